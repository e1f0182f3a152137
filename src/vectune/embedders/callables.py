"""CallableEmbedder: any pair of Python functions as an embedder."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.embedders.vectors import unit_rows
from vectune.errors import ModelError

if TYPE_CHECKING:
    from vectune.protocols import Vectors

EmbedFunction = Callable[[Sequence[str]], Any]


class CallableEmbedder:
    """Two functions from texts to vectors (lists, arrays or tensors on the CPU), one for each role.

    Args:
        embed_queries: takes a list of texts and gives one vector for each, in order.
        embed_documents: the same for documents.
        name: what to call it.
        fingerprint: changes when the vectors change. None takes a hash of the functions' source and of the vectors
            they give for a fixed text: enough to notice another model, but name your own version where you can.
        settings: what else the vectors depend on, where the functions' source does not tell; without a ``fingerprint``.
    """

    def __init__(
        self,
        embed_queries: EmbedFunction,
        embed_documents: EmbedFunction,
        name: str | None = None,
        fingerprint: str | None = None,
        settings: str = "",
    ) -> None:
        self._functions = {"query": embed_queries, "document": embed_documents}
        self.name = name or str(getattr(embed_documents, "__qualname__", type(embed_documents).__name__))
        self._fingerprint, self._settings = fingerprint, settings

    @cached_property
    def dim(self) -> int:
        return int(self._probe["document"].shape[1])

    @cached_property
    def fingerprint(self) -> str:
        if self._fingerprint:
            return hashlib.sha256(self._fingerprint.encode()).hexdigest()
        digest = hashlib.sha256(self._settings.encode())
        for role, vectors in self._probe.items():
            digest.update(_source(self._functions[role]).encode())
            digest.update(vectors.round(4).tobytes())
        return digest.hexdigest()

    @cached_property
    def _probe(self) -> dict[str, Vectors]:
        text = ["vectune asks: what is this model?"]
        return {role: self._checked(function(text), text) for role, function in self._functions.items()}

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "query")

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "document")

    def _embed(self, texts: Sequence[str], role: str) -> Vectors:
        if not len(texts):
            return np.zeros((0, self.dim), dtype=np.float32)
        vectors = self._checked(self._functions[role](list(texts)), texts)
        if vectors.shape[1] != self.dim:
            raise ModelError(f"{self.name}: gave {vectors.shape[1]} dimensions, {self.dim} before.")
        return vectors

    def _checked(self, answer: Any, texts: Sequence[str]) -> Vectors:
        try:
            vectors = np.asarray(answer, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{self.name}: did not give an array of numbers ({error}).") from error
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ModelError(
                f"{self.name}: gave an array of shape {vectors.shape} for {len(texts)} texts.",
                "The function must give one vector for each text.",
            )
        return unit_rows(vectors, texts, self.name)


def _source(function: EmbedFunction) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return repr(type(function))
