"""Between LlamaIndex's BaseEmbedding and our embedders, in both directions."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr, field_serializer

from vectune.adapters import CARD, Adapter, check_base, import_llama_index, load_adapter, read_json
from vectune.embedders.callables import CallableEmbedder
from vectune.embedders.factory import open_embedder
from vectune.embedders.models import ARTIFACT_FILE
from vectune.embedders.options import DEFAULTS, EmbedOptions
from vectune.embedders.settings import options_from, to_keep
from vectune.errors import ModelError, UsageError
from vectune.integrations.llama_adapters import LLAMA_CLASSES, BaseAdapter, LinearLayer, TwoLayerNN
from vectune.integrations.llama_arguments import refuse_unknown
from vectune.integrations.llama_loop import iterate
from vectune.integrations.turns import Turns
from vectune.protocols import Embedder

if TYPE_CHECKING:
    from vectune.protocols import Vectors

TEXTS = 256  # in one call to an embedder; LlamaIndex's 10 would leave most of a processor idle
QUERIES_AT_ONCE = 8  # of a black box that takes one query a call
# Fields of a class of embeddings that change no vector.
_HOW = re.compile(
    r"key|secret|password|(?:api|auth|access)_?token|retry|retries|timeout|batch|worker|callback|header|client|cache|url"
    r"|base$|calls|count|usage|asked|total"
)
# Arguments beside BaseEmbedding's fields; pydantic would take any other name and forget it.
_ADAPTED = ("adapter_path", "adapter_cls", "transform_query", "device")


class VectuneEmbedding(BaseEmbedding):
    """Any of vectune's embedders as LlamaIndex's: a model's name, a folder that ``tune`` wrote, ``openai:NAME``.

    Queries and texts get the prompts of their role, whole lists go through the model at once, and vectors have unit
    norm. Calls from several threads wait for each other.

    Args:
        model_name: as vectune names models; with ``embedder`` only a label.
        embedder: an embedder in memory instead.
        options: how ``model_name`` is opened, see ``EmbedOptions``. ``to_dict`` keeps them, but for an API key.
        cache: look vectors up in vectune's cache on disk, and keep new ones there.
        embed_batch_size: texts in one call.

    Raises:
        ModelError: there is no such model.
        UsageError: an unknown argument.
    """

    options: EmbedOptions = DEFAULTS
    cache: bool = False
    _embedder: Embedder = PrivateAttr()
    _in_memory: bool = PrivateAttr()
    _turns: Turns = PrivateAttr(default_factory=Turns)

    def __init__(
        self,
        model_name: str | Path = "",
        *,
        embedder: Embedder | None = None,
        options: EmbedOptions | dict[str, Any] = DEFAULTS,
        cache: bool = False,
        embed_batch_size: int = TEXTS,
        **fields: Any,
    ) -> None:
        refuse_unknown(fields, [*type(self).model_fields, "embedder"], type(self).__name__)
        if not isinstance(options, EmbedOptions):
            options = options_from(options, f"{type(self).__name__}: options")
        found = embedder if embedder is not None else open_embedder(str(model_name), options, cache)
        name = str(model_name) or found.name
        super().__init__(model_name=name, options=options, cache=cache, embed_batch_size=embed_batch_size, **fields)
        self._embedder, self._in_memory = found, embedder is not None

    @field_serializer("options")
    def _kept(self, options: EmbedOptions) -> dict[str, Any]:
        return to_keep(options)

    def __getstate__(self) -> dict[str, Any]:
        """What makes the same embedding in another process, as LlamaIndex's pipelines with ``num_workers`` do."""
        if self._in_memory:
            raise UsageError(
                f"{self.model_name}: an embedder in memory cannot be sent to another process.",
                "Give VectuneEmbedding a model's name or folder instead, or leave num_workers out.",
            )
        return {**self.__dict__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        VectuneEmbedding.__init__(self, **state)

    @classmethod
    def class_name(cls) -> str:
        return "VectuneEmbedding"

    @property
    def embedder(self) -> Embedder:
        """The vectune embedder within."""
        return self._embedder

    def _get_query_embedding(self, query: str) -> list[float]:
        with self._turns:
            return _numbers(self._embedder.embed_queries([query]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        with self._turns:
            return _numbers(self._embedder.embed_documents(texts))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class AdapterEmbeddingModel(BaseEmbedding):
    """A base embedding whose queries pass through an adapter; texts are the base's own, so its index serves on.

    Adapters were trained on unit vectors and get them; what comes out has unit norm.

    Args:
        base_embed_model: any BaseEmbedding.
        adapter_path: a folder that an adapter engine wrote, ours or LlamaIndex's.
        adapter_cls: the class of an adapter of your own. LinearLayer, TwoLayerNN and vectune's need none.
        transform_query: False leaves queries as the base makes them.
        device: where an adapter of your own runs; vectune's and LlamaIndex's two need none.
        embed_batch_size: texts in one call to the base.

    Raises:
        ModelError: the folder is damaged, or holds an adapter of another class or dimension.
        FingerprintError: over a VectuneEmbedding, the adapter was made for other vectors.
        UsageError: an unknown argument.
    """

    _base_embed_model: BaseEmbedding = PrivateAttr()
    _adapter: Adapter | BaseAdapter = PrivateAttr()
    _transform_query: bool = PrivateAttr()
    _device: str = PrivateAttr()

    def __init__(
        self,
        base_embed_model: BaseEmbedding,
        adapter_path: str | Path,
        adapter_cls: type[Any] | None = None,
        transform_query: bool = True,
        device: str | None = None,
        embed_batch_size: int | None = None,
        callback_manager: Any = None,
        **fields: Any,
    ) -> None:
        refuse_unknown(fields, [*type(self).model_fields, *_ADAPTED], type(self).__name__)
        if callback_manager is not None:
            fields["callback_manager"] = callback_manager
        super().__init__(
            model_name=f"Adapter for {base_embed_model.model_name}",
            embed_batch_size=embed_batch_size or base_embed_model.embed_batch_size,
            **fields,
        )
        self._base_embed_model, self._transform_query = base_embed_model, transform_query
        self._device = device or "cpu"
        self._adapter = open_adapter(Path(adapter_path), adapter_cls)
        if isinstance(base_embed_model, VectuneEmbedding):  # of another class nothing is known without asking it
            _check_made_for(Path(adapter_path), base_embed_model.embedder)
        if not isinstance(self._adapter, Adapter):
            self._adapter.to(self._device)

    @classmethod
    def class_name(cls) -> str:
        return "AdapterEmbeddingModel"

    def _adapted(self, vector: list[float]) -> list[float]:
        if not self._transform_query:
            return vector
        return _numbers(apply_adapter(self._adapter, np.asarray([vector], dtype=np.float32), self._device))[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._adapted(self._base_embed_model._get_query_embedding(query))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._adapted(await self._base_embed_model._aget_query_embedding(query))

    def _get_text_embedding(self, text: str) -> list[float]:
        return cast("list[float]", self._base_embed_model._get_text_embedding(text))

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return cast("list[list[float]]", self._base_embed_model._get_text_embeddings(texts))

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return cast("list[float]", await self._base_embed_model._aget_text_embedding(text))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return cast("list[list[float]]", await self._base_embed_model._aget_text_embeddings(texts))


def open_adapter(folder: Path, adapter_cls: type[Any] | None = None) -> Adapter | BaseAdapter:
    """What a folder holds: vectune's adapter, LlamaIndex's two classes (applied with NumPy), or a class of your own."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no adapter.", "Call finetune() first.")
    if adapter_cls is not None and hasattr(adapter_cls, "load") and not _known(adapter_cls):
        return cast(BaseAdapter, adapter_cls.load(str(folder)).eval())
    if (folder / CARD).exists():
        stored, kind = load_adapter(folder), read_json(folder / ARTIFACT_FILE).get("kind") if _marked(folder) else None
        if stored.document is not None or kind == "query":
            what = "a query encoder" if kind == "query" else "a map of stored vectors"
            raise ModelError(f"{folder}: holds {what} besides.", f"Open all of it: VectuneEmbedding({str(folder)!r}).")
        return stored.adapter
    try:
        return import_llama_index(folder)
    except ModelError as error:
        if adapter_cls is None:
            error.hint = "Pass the class of an adapter of your own as adapter_cls."
        raise


def _marked(folder: Path) -> bool:
    return (folder / ARTIFACT_FILE).exists()


def _check_made_for(folder: Path, base: Embedder) -> None:
    """An own class's adapter has no card: its marker tells what it was trained over. A checkpoint has neither."""
    if (folder / CARD).exists():
        stored = load_adapter(folder)
        check_base(base, stored.base, stored.base_fingerprint, "adapter")
    elif _marked(folder):
        made = read_json(folder / ARTIFACT_FILE)
        check_base(base, str(made.get("base") or ""), str(made.get("base_fingerprint") or ""), "adapter")


def _known(adapter_cls: type[Any]) -> bool:
    """Whether vectune computes what this class does: a class of one's own may have the name of one of LlamaIndex's."""
    return adapter_cls in (LinearLayer, TwoLayerNN) or adapter_cls.__module__ == LLAMA_CLASSES


def apply_adapter(adapter: Adapter | Any, vectors: Vectors, device: str = "cpu") -> Vectors:
    """Vectors of shape (n, dim), brought to unit norm, through an adapter and to unit norm again."""
    vectors = _unit(vectors)
    if isinstance(adapter, Adapter):
        return adapter.apply(vectors)
    import torch

    with torch.inference_mode():
        mapped = adapter(torch.from_numpy(vectors).to(device))
    return _unit(mapped.float().cpu().numpy())


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found


def _numbers(vectors: Vectors) -> list[list[float]]:
    return cast("list[list[float]]", vectors.tolist())


def as_embedder(model: BaseEmbedding) -> Embedder:
    """A BaseEmbedding as our embedder: texts in its own batches, queries several at once (without an async way one
    after the other), each text once for ever.

    vectune's own is taken as it is. Any other is known by its class, its settings and its vectors for a fixed text.
    """
    return open_embedder(model.embedder if isinstance(model, VectuneEmbedding) else _Foreign(model))


class _Foreign(CallableEmbedder):
    """A BaseEmbedding of another class. What has come is handed over batch by batch, so a failure loses little."""

    def __init__(self, model: BaseEmbedding) -> None:
        def embed_documents(texts: Sequence[str]) -> Any:
            return model.get_text_embedding_batch(list(texts))

        def embed_queries(texts: Sequence[str]) -> Any:
            found = dict(iterate(_queries(model, texts)))
            return [found[place] for place in range(len(texts))]

        name = model.model_name if model.model_name != "unknown" else model.class_name()
        super().__init__(embed_queries, embed_documents, name, settings=_settings(model))
        self._batch = {"document": max(model.embed_batch_size, 1), "query": 4 * QUERIES_AT_ONCE}

    def stream(self, texts: Sequence[str], role: str) -> Iterator[tuple[Sequence[int], Vectors]]:
        """(indices, vectors) of one batch after the other."""
        for start in range(0, len(texts), self._batch[role]):
            block = texts[start : start + self._batch[role]]
            yield range(start, start + len(block)), self._embed(block, role)


def _settings(model: BaseEmbedding) -> str:
    """The class and its fields, but for those that tell how to ask and not what comes back: keys, limits, addresses."""
    fields = {name: getattr(model, name) for name in sorted(type(model).model_fields) if not _HOW.search(name)}
    plain = {name: value for name, value in fields.items() if isinstance(value, str | int | float | bool | None)}
    return json.dumps([type(model).__module__, type(model).__qualname__, plain])


async def _queries(model: BaseEmbedding, texts: Sequence[str]) -> AsyncIterator[tuple[int, list[float]]]:
    free, alone = asyncio.Semaphore(QUERIES_AT_ONCE), asyncio.Lock()

    async def one(place: int, text: str) -> tuple[int, list[float]]:
        async with free:
            try:
                return place, await model.aget_query_embedding(text)
            except NotImplementedError:  # LlamaIndex's engine asks one after the other, and so it may need to be
                async with alone:
                    return place, await asyncio.to_thread(model.get_query_embedding, text)

    for start in range(0, len(texts), TEXTS):
        part = enumerate(texts[start : start + TEXTS], start)
        block = [asyncio.ensure_future(one(place, text)) for place, text in part]
        try:
            for found in await asyncio.gather(*block):
                yield found
        finally:  # after a failure nothing more is asked, and paid, for nobody
            for task in block:
                task.cancel()
