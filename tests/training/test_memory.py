from __future__ import annotations

import numpy as np
import torch

from vectune.training.batches import Batch
from vectune.training.memory import ChunkMemory


def nobody(queries: np.ndarray, chunks: np.ndarray) -> np.ndarray:
    return np.zeros((len(queries), len(chunks)), dtype=bool)


def batch(*chunks: int) -> Batch:
    rows = np.array(chunks)
    return Batch(np.array([0]), np.array([0]), rows, np.zeros((1, len(rows)), dtype=bool))


def vectors(*chunks: int) -> torch.Tensor:
    return torch.tensor([[float(chunk), 1.0] for chunk in chunks], requires_grad=True)


def test_chunks_of_earlier_steps_come_behind_those_of_the_batch_and_get_no_gradient() -> None:
    memory = ChunkMemory(10, nobody)
    memory.add(batch(1, 2), vectors(1, 2))
    own = vectors(3, 2)
    longer, found = memory.extended(batch(3, 2), own)
    assert longer.chunks.tolist() == [3, 2, 1]  # 2 is in the batch itself, with a gradient
    assert found[:, 0].tolist() == [3, 2, 1]
    assert longer.masked.shape == (1, 3)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert own.grad is not None


def test_the_oldest_are_forgotten_and_a_chunk_is_kept_once_with_its_latest_vector() -> None:
    memory = ChunkMemory(3, nobody)
    memory.add(batch(1, 2), vectors(1, 2))
    memory.add(batch(2, 3), vectors(7, 3))
    assert memory.chunks.tolist() == [1, 2, 3]
    memory.add(batch(4), vectors(4))
    assert memory.chunks.tolist() == [2, 3, 4]
    assert memory.vectors is not None
    assert memory.vectors[:, 0].tolist() == [7, 3, 4]


def test_remembered_chunks_are_masked_like_any_that_meet_by_chance() -> None:
    memory = ChunkMemory(10, lambda queries, chunks: np.isin(chunks, [2])[None].repeat(len(queries), 0))
    memory.add(batch(1, 2), vectors(1, 2))
    longer, _ = memory.extended(batch(3), vectors(3))
    assert longer.masked.tolist() == [[False, False, True]]


def test_without_a_size_nothing_is_remembered_and_a_checkpoint_brings_all_of_it_back() -> None:
    none = ChunkMemory(0, nobody)
    none.add(batch(1), vectors(1))
    assert none.extended(batch(2), vectors(2))[0].chunks.tolist() == [2]
    assert none.tensors() == {}
    full, again = ChunkMemory(5, nobody), ChunkMemory(5, nobody)
    full.add(batch(1, 2), vectors(1, 2))
    again.restore(full.tensors())
    assert again.chunks.tolist() == [1, 2]
    assert torch.equal(again.extended(batch(3), vectors(3))[1], full.extended(batch(3), vectors(3))[1])
