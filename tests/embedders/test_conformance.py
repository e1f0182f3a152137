"""What every embedder must do, whatever is behind it. A new one goes into ``KINDS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from vectune.adapters import AdaptedEmbedder, Adapter, SplitEmbedder
from vectune.blend import Blend, BlendedEmbedder
from vectune.embedders.cached import CachedEmbedder
from vectune.embedders.callables import CallableEmbedder
from vectune.embedders.factory import open_embedder
from vectune.embedders.http import HTTPEmbedder
from vectune.embedders.local import LocalEmbedder
from vectune.embedders.options import EmbedOptions
from vectune.protocols import Embedder
from vectune.tail import fit_tail
from vectune.testing import OpenAIServer, hashed_embedding
from vectune.words import WordEmbedder, WordFit

TEXTS = [
    "how to brew coffee",
    "water of the river " * 40,  # longer than the tiny models read
    "ÄÖ 日本 №5 — 🙂",
    "  two  spaces\tand a tab\n",
    "x",
    "the cat sound is in the garden",
]


class Case(NamedTuple):
    """An embedder, and what makes others that must not have its fingerprint."""

    embedder: Embedder
    others: Callable[[], Sequence[Embedder]]


def local(folder: str) -> Callable[..., Case]:
    def make(stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> Case:
        path = str(request.getfixturevalue(folder))
        changed = [EmbedOptions(query_prompt="another: "), EmbedOptions(dimensions=8)]
        if folder != "tiny_static":
            changed.append(EmbedOptions(max_length=16))
        embedder = LocalEmbedder(path, EmbedOptions(query_prompt="query: "))
        return Case(embedder, lambda: [LocalEmbedder(path, other) for other in changed])

    return make


def http(stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    server = stack.enter_context(OpenAIServer())

    def opened(model: str = "small", **fields: Any) -> HTTPEmbedder:
        embedder = HTTPEmbedder(model, EmbedOptions(base_url=server.base_url, batch_texts=4, **fields))
        stack.callback(embedder.close)
        return embedder

    return Case(
        opened(query_prompt="query: "), lambda: [opened("large"), opened(dimensions=8), opened(query_prompt="q: ")]
    )


def callables(stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    def queries(texts: Sequence[str]) -> list[list[float]]:
        return [[3 * value for value in hashed_embedding(f"query {text}", 32)] for text in texts]

    def documents(texts: Sequence[str]) -> list[list[float]]:
        return [hashed_embedding(text, 32) for text in texts]

    def others() -> list[Embedder]:
        return [CallableEmbedder(documents, documents), CallableEmbedder(queries, documents, fingerprint="mine 2")]

    return Case(CallableEmbedder(queries, documents), others)


def cached(stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    inner = local("tiny_bert")(stack, request, tmp_path)
    return Case(CachedEmbedder(inner.embedder), lambda: [CachedEmbedder(other) for other in inner.others()])


def cached_before(stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    case = cached(stack, request, tmp_path)
    case.embedder.embed_queries(TEXTS)
    case.embedder.embed_documents(TEXTS[:3])
    return case


def worded(stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    inner = local("tiny_bert")(stack, request, tmp_path).embedder
    fit = WordFit(TEXTS, inner.embed_documents(TEXTS))
    return Case(WordEmbedder(inner, fit.fit(0.3), "words"), lambda: [WordEmbedder(inner, fit.fit(0.2), "words")])


def blended(stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    inner = local("tiny_bert")(stack, request, tmp_path).embedder
    blend = Blend.fit(fit_tail(TEXTS, 4), TEXTS, inner.embed_documents(TEXTS), 0.3)
    other = BlendedEmbedder(inner, blend.weighing(0.2), "blend")
    return Case(BlendedEmbedder(inner, blend, "blend"), lambda: [other])


def adapted(stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    inner = local("tiny_bert")(stack, request, tmp_path).embedder
    dim, eye = inner.dim, np.eye(inner.dim, dtype=np.float32)
    one, two = (Adapter("linear", dim, dim, skip=np.roll(eye, by, axis=1)) for by in (1, 2))
    return Case(AdaptedEmbedder(inner, one), lambda: [AdaptedEmbedder(inner, two), AdaptedEmbedder(inner, one, two)])


def split(stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    made = local("tiny_bert")(stack, request, tmp_path)
    other = made.others()[0]
    return Case(SplitEmbedder(other, made.embedder), lambda: [SplitEmbedder(made.embedder, other), made.embedder])


KINDS: dict[str, Callable[[ExitStack, pytest.FixtureRequest, Path], Case]] = {
    "bert": local("tiny_bert"),
    "decoder": local("tiny_decoder"),
    "static": local("tiny_static"),
    "http": http,
    "callables": callables,
    "cached": cached,
    "cached before": cached_before,
    "words": worded,
    "blend": blended,
    "adapter": adapted,
    "query encoder": split,
}


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    with ExitStack() as stack:
        yield KINDS[request.param](stack, request, tmp_path)


@pytest.fixture
def embedder(case: Case) -> Embedder:
    return case.embedder


def both(embedder: Embedder) -> list[Callable[[Sequence[str]], np.ndarray]]:
    return [embedder.embed_queries, embedder.embed_documents]


def test_it_is_an_embedder(embedder: Embedder) -> None:
    assert isinstance(embedder, Embedder)
    assert embedder.name
    assert embedder.dim > 0
    assert len(embedder.fingerprint) == 64


def test_vectors_are_float32_of_unit_norm(embedder: Embedder) -> None:
    for embed in both(embedder):
        vectors = embed(TEXTS)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(TEXTS), embedder.dim)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_order_is_kept_whatever_else_is_embedded(embedder: Embedder) -> None:
    for embed in both(embedder):
        together, turned = embed(TEXTS), embed(TEXTS[::-1])
        alone = np.concatenate([embed([text]) for text in TEXTS])
        assert (np.sum(together * turned[::-1], axis=1) > 0.999).all()
        assert (np.sum(together * alone, axis=1) > 0.999).all()


def test_the_same_call_gives_the_same_bits(embedder: Embedder) -> None:
    for embed in both(embedder):
        np.testing.assert_array_equal(embed(TEXTS), embed(TEXTS))


def test_nothing_has_no_vectors(embedder: Embedder) -> None:
    for embed in both(embedder):
        nothing = embed([])
        assert nothing.shape == (0, embedder.dim)
        assert nothing.dtype == np.float32


def test_repeated_texts_have_one_vector(embedder: Embedder) -> None:
    for embed in both(embedder):
        vectors = embed([TEXTS[0], TEXTS[1], TEXTS[0]])
        np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-3)


def test_tuples_serve_as_well_as_lists(embedder: Embedder) -> None:
    np.testing.assert_allclose(embedder.embed_queries(tuple(TEXTS)), embedder.embed_queries(TEXTS), atol=1e-6)


def test_a_query_is_not_a_document(embedder: Embedder) -> None:
    """Each kind here has a prompt, or a function of its own, for queries."""
    assert not np.allclose(embedder.embed_queries(TEXTS), embedder.embed_documents(TEXTS), atol=1e-2)


def test_the_caller_may_change_what_it_got(embedder: Embedder) -> None:
    vectors = embedder.embed_documents(TEXTS)
    before = vectors.copy()
    vectors[:] = 0
    np.testing.assert_array_equal(embedder.embed_documents(TEXTS), before)


def test_the_fingerprint_is_stable_and_tells_what_vectors_depend_on(case: Case) -> None:
    mine = case.embedder.fingerprint
    case.embedder.embed_documents(TEXTS)
    assert case.embedder.fingerprint == mine
    others = [other.fingerprint for other in case.others()]
    assert mine not in others
    assert len(set(others)) == len(others)


def test_the_factory_gives_an_embedder_back_with_a_cache_around_it(embedder: Embedder) -> None:
    opened = open_embedder(embedder)
    assert opened.fingerprint == embedder.fingerprint
    np.testing.assert_allclose(opened.embed_documents(TEXTS), embedder.embed_documents(TEXTS), atol=1e-3)
    assert open_embedder(embedder, cache=False) is embedder
