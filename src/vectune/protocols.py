"""What can be plugged in, and nothing else: batching, caching, retries and progress are vectune's job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from vectune.records import Chunk, WrittenQuery

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into unit vectors. Queries and documents are separate calls, so that prompts cannot be forgotten.

    Attributes:
        name: as a person would name it.
        dim: number of dimensions of a vector.
        fingerprint: hash of all that the vectors depend on: weights, prompts, pooling, sequence length, truncation.
    """

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Float32 array of shape (len(texts), dim); every row has unit norm."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Float32 array of shape (len(texts), dim); every row has unit norm."""
        ...


@runtime_checkable
class QueryWriter(Protocol):
    """Writes queries for chunks.

    Attributes:
        name: ``extractive`` or ``llm:MODEL``; stored with each query.
        fingerprint: hash of all that its queries depend on: prompt, model, settings, seed.
    """

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...

    def write(self, chunks: Sequence[Chunk]) -> Iterator[WrittenQuery]:
        """Queries for these chunks, as they become ready; in an order that may differ from the chunks'."""
        ...
