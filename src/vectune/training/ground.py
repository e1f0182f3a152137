"""What is known before the first step: tokens, the base model's vectors, mined negatives, the dev sample."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vectune.embedders.local import longest_input
from vectune.lexical import BM25
from vectune.negatives import mine
from vectune.progress import Progress
from vectune.runs import decided_once, hash_of
from vectune.training.data import TrainingData
from vectune.training.defaults import Settings
from vectune.training.dev import DevSample, dev_sample
from vectune.training.encoder import Encoder, Texts
from vectune.training.length import Reach
from vectune.training.options import TuneOptions
from vectune.training.streamed import StreamedTexts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Embedder

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

AnyTexts = Texts | StreamedTexts
Look = tuple[DevSample, "NDArray[np.float64]", float]  # among which chunks, nDCG@10 of each query, seconds it took
LOOKS = 10  # at dev, with those that the end takes
DEV_CHUNKS = (200, 1000)
DRAWN = 20_000  # chunks that dev's are chosen from where the data stay on disk
DEPTH = 8  # mined chunks kept for each query; later epochs use later ones


@dataclass
class Ground:
    """The state of knowledge before training.

    Attributes:
        data: what is trained on.
        queries, chunks, dev_queries: tokens of train queries, of all chunks, of dev queries.
        negatives: mined chunks of each train query, hardest first, -1 for none; shape (queries, depth).
        miner: finds such chunks anew with the model as it is by then; None where none are mined.
        dev: what looks at dev are measured on.
        dev_base: the base's nDCG@10 there, of each query, read as far as the base is set to.
        reach: how far the tuned model reads; None where that is as far as the base is set to.
        dev_reaching: the base's mean where it reads as far.
        check_seconds: what a look takes.
        query_vectors, chunk_vectors: the base's, for the anchor; shape (n, dim). Not where the data stay on disk.
    """

    data: TrainingData
    queries: AnyTexts
    chunks: AnyTexts
    dev_queries: Texts
    negatives: Ints
    miner: Miner | None
    dev: DevSample
    dev_base: NDArray[np.float64]
    check_seconds: float
    query_vectors: Floats
    chunk_vectors: Floats
    reach: Reach | None
    dev_reaching: float

    @property
    def dev_before(self) -> float:
        """The base's value on dev."""
        return float(self.dev_base.mean())


def prepare(
    data: TrainingData,
    encoder: Encoder,
    base: Embedder,
    options: TuneOptions,
    settings: Settings,
    progress: Progress,
    kept: Path,
    reach: Reach | None = None,
) -> Ground:
    """Tokenise everything once, embed it with the base, mine negatives, choose the dev sample and measure the base.

    ``kept`` is a file beside the checkpoints for what a clock decided: a second start must not decide otherwise.
    With ``reach`` the model is set to it already.
    """
    chunks, queries = _texts(data, encoder, progress)
    dev_queries = encoder.tokenize(data.dev_queries, "query")
    candidates = _candidates(data, options.seed)
    part = data.among(candidates) if data.on_disk else data
    corpus = base.embed_documents(part.chunks)
    query_vectors = base.embed_queries([] if data.on_disk else data.queries)
    mined, miner = np.full((len(data.queries), 0), -1, dtype=np.int64), None
    if settings.negatives:
        miner = Miner(data, options.negative_margin, progress, max(DEPTH, settings.negatives))
        mined = miner(query_vectors, corpus[miner.pool])
    asked, lexical = base.embed_queries(data.dev_queries), BM25(part.chunks)

    def look(most: int) -> Look:
        found = dev_sample(part, asked, corpus, lexical, most, options.seed)
        dev = replace(found, chunks=candidates[found.chunks])
        started = time.perf_counter()  # in the loop's own arithmetic: tuned states are compared with it
        before = dev.scores(encoder.embed(dev_queries, dev.queries), encoder.embed(*chunks.at(dev.chunks)))
        return dev, before, time.perf_counter() - started

    most, key = options.dev_chunks or affordable_chunks(data, settings), hash_of([options.decisive(), data.key])
    dev, before, seconds = _dev_in_time(look, key, options, most, kept)
    reaching = float(before.mean())
    if reach:
        before = _as_it_was(encoder, data, dev, reach.own)
    progress.event("dev", step=0, value=round(float(before.mean()), 5))
    return Ground(
        data, queries, chunks, dev_queries, mined, miner, dev, before, seconds, query_vectors, corpus, reach, reaching
    )


def _as_it_was(encoder: Encoder, data: TrainingData, dev: DevSample, length: int) -> NDArray[np.float64]:
    """nDCG@10 of each dev query with the base reading as far as it is set to."""
    with encoder.reading(length):
        queries = encoder.tokenize([data.dev_queries[row] for row in dev.queries], "query")
        chunks = encoder.tokenize([data.chunks[row] for row in dev.chunks], "document")
    return dev.scores(encoder.embed(queries), encoder.embed(chunks))


def _texts(data: TrainingData, encoder: Encoder, progress: Progress) -> tuple[AnyTexts, AnyTexts]:
    """Tokens of all chunks and of all train queries; made batch by batch where the data stay on disk."""
    if data.on_disk:
        return StreamedTexts(encoder, data.chunks, "document"), StreamedTexts(encoder, data.queries, "query")
    with progress.task("tokenise", total=len(data.chunks), unit="chunks") as task:
        chunks, queries = encoder.tokenize(data.chunks, "document"), encoder.tokenize(data.queries, "query")
        task.advance(len(data.chunks))
    return chunks, queries


def _candidates(data: TrainingData, seed: int) -> Ints:
    """Chunks that dev's may be chosen from: all, or dev's positives and a draw where the data stay on disk."""
    if not data.on_disk:
        return np.arange(len(data.chunks))
    drawn = np.random.default_rng([seed, 13]).integers(len(data.chunks), size=DRAWN)
    return np.unique(np.concatenate([drawn, [chunk for grades in data.dev_grades for chunk in grades]]))


def affordable_chunks(data: TrainingData, settings: Settings) -> int:
    """How many chunks dev can have so that about ten looks at it take a third of the time the steps take.

    A look is a forward pass; a step goes back as well, which takes twice as long.
    """
    positives = len(np.unique(data.same[data.positives.values]))
    trained = 3 * settings.epochs * positives * (1 + settings.negatives)
    return int(np.clip(trained / 3 / LOOKS, *DEV_CHUNKS))


def _dev_in_time(look: Callable[[int], Look], key: str, options: TuneOptions, most: int, kept: Path) -> Look:
    """A first look at dev among ``most`` chunks; among fewer where looks would fill a time limit."""
    if options.max_minutes is None or options.dev_chunks:
        return look(most)
    limit, first = 60 * options.max_minutes, list[Look]()

    def affordable() -> int:
        first.append(look(most))
        dev, _, seconds = first[0]
        return min(most, max(DEV_CHUNKS[0], int(limit / 3 / LOOKS / seconds * len(dev.chunks))))

    chunks = decided_once(kept, key, affordable)
    return first[0] if first and len(first[0][0].chunks) <= chunks else look(chunks)


class Miner:
    """Finds hard negatives for the train queries among the chunks that may be any.

    Args:
        data: what is trained on.
        margin: share of the positive's score above which a chunk is taken for an unmarked positive.
        progress: counts queries.
        depth: chunks for each query.

    Attributes:
        pool: chunk indices that are mined, shape (p,).
    """

    def __init__(self, data: TrainingData, margin: float, progress: Progress, depth: int = DEPTH) -> None:
        self.data, self.margin, self.progress, self.depth = data, margin, progress, depth
        self.pool: Ints = np.flatnonzero(data.pool)
        self._lexical = BM25([data.chunks[int(chunk)] for chunk in self.pool])
        at = {int(chunk): place for place, chunk in enumerate(self.pool)}
        self._positives = [[at[chunk] for chunk in chunks if chunk in at] for chunks in data.positives]
        self._excluded = [
            np.flatnonzero(data.answers(query, self.pool) | data.neighbours(query, self.pool)).tolist()
            for query in range(len(data.queries))
        ]

    def __call__(self, queries: Floats, pool: Floats) -> Ints:
        """Chunk indices, hardest first, -1 where there are no more; shape (queries, depth).

        Args:
            queries: unit vectors of the train queries, shape (q, d).
            pool: unit vectors of the pool's chunks, shape (p, d).
        """
        with self.progress.task("mine negatives", total=len(queries), unit="queries") as task:
            found = mine(
                queries, self.data.queries, pool, self._lexical, self._positives, self._excluded,
                self.depth, margin=self.margin, advance=task.advance,
            )  # fmt: skip
        mined: Ints = np.where(found >= 0, self.pool[found], -1)
        return mined


def truncation_notes(encoder: Encoder, data: TrainingData, chunks: AnyTexts) -> list[str]:
    """What is lost because the model reads only so many tokens, and what helps."""
    limit = encoder.model.max_seq_length
    if limit is None:
        return []
    rows = chunks.sample()
    seen, at = chunks.at(rows)
    read: Ints = seen.lengths[at]
    full: Ints = np.flatnonzero(read >= limit)
    lengths = encoder.full_lengths([data.chunks[rows[place]] for place in full]) if len(full) else full
    cut = lengths[lengths > limit]
    if not len(cut):
        return []
    lost = float((cut - limit).sum() / (read.sum() + (cut - limit).sum()))
    longest = longest_input(encoder.model) or 0
    more = f" The model can read {longest}: set max_length, at the price of time." if longest > limit else ""
    return [
        f"{len(cut)} of {len(rows)} chunks are longer than the {limit} tokens the model reads; {lost:.0%} of the "
        f"text is not seen.{more} Smaller chunks lose nothing."
    ]
