"""Chunks of the last steps as further negatives: their vectors are there already and cost no encoding.

A cross-batch memory (Wang et al., arXiv 1912.06798): weights move little within a few steps, so vectors made a few
steps ago still tell a query what to keep away from. They get no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vectune.training.batches import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

# Queries (b,) and chunks (c,) → True where a chunk must not be a negative of a query, shape (b, c).
Masks = Callable[["Ints", "Ints"], "Bools"]


class ChunkMemory:
    """The vectors of the latest chunks, each chunk once.

    Args:
        size: chunks to remember; 0 remembers nothing.
        masks: who must not be a negative to whom.
    """

    def __init__(self, size: int, masks: Masks) -> None:
        self.size, self.masks = size, masks
        self.chunks: Ints = np.zeros(0, dtype=np.int64)
        self.vectors: Tensor | None = None

    def extended(self, batch: Batch, chunks: Tensor) -> tuple[Batch, Tensor]:
        """The batch with the remembered chunks behind its own, and their vectors.

        Args:
            batch: one step's input.
            chunks: vectors of its chunks, shape (c, d).
        """
        if self.vectors is None:
            return batch, chunks
        kept = ~np.isin(self.chunks, batch.chunks)
        if not kept.any():
            return batch, chunks
        further = self.chunks[kept]
        masked = np.concatenate([batch.masked, self.masks(batch.queries, further)], axis=1)
        vectors = self.vectors[torch.from_numpy(np.flatnonzero(kept)).to(self.vectors.device)]
        longer = replace(batch, chunks=np.concatenate([batch.chunks, further]), masked=masked)
        return longer, torch.cat([chunks, vectors])

    def rise(self, batch: Batch) -> float:
        """By how much the remembered chunks raise the loss of a step, were they as hard as the batch's own."""
        return math.log1p(len(self.chunks) / len(batch.chunks))

    def add(self, batch: Batch, chunks: Tensor) -> None:
        """Remember a step's chunks in place of the oldest.

        Args:
            batch: the step's input, not extended.
            chunks: vectors of its chunks, shape (c, d).
        """
        if not self.size:
            return
        vectors = chunks.detach().float().clone()
        if self.vectors is not None:
            kept = np.flatnonzero(~np.isin(self.chunks, batch.chunks))
            vectors = torch.cat([self.vectors[torch.from_numpy(kept).to(vectors.device)], vectors])
            self.chunks = np.concatenate([self.chunks[kept], batch.chunks])
        else:
            self.chunks = batch.chunks
        self.chunks, self.vectors = self.chunks[-self.size :], vectors[-self.size :]

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it."""
        if self.vectors is None:
            return {}
        return {"memory.chunks": torch.from_numpy(self.chunks), "memory.vectors": self.vectors}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what ``tensors`` gave."""
        if "memory.vectors" in tensors:
            self.chunks, self.vectors = tensors["memory.chunks"].cpu().numpy(), tensors["memory.vectors"]
