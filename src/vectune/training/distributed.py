"""Several processes on one global batch, as torchrun starts them: the same steps as one process would make.

Every process encodes its share of the batch's texts and gets the others' vectors; each computes the loss of the whole
batch, goes back through its own share, and the gradients are added up. Negatives are those of the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run; alone unless torchrun says otherwise."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> World:
        """Join what torchrun has started; (0, 1) without it."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process looks at dev, writes and speaks."""
        return self.rank == 0

    def shares(self, lengths: Ints) -> list[Ints]:
        """Positions for each process, dealt out by length so that all have about equally much to do."""
        order = np.argsort(-lengths, kind="stable")
        return [order[rank :: self.size] for rank in range(self.size)]

    def assembled(self, own: Tensor, shares: list[Ints]) -> Tensor:
        """All rows from each process's own; gradients flow into this one's alone.

        Args:
            own: vectors at ``shares[rank]``, shape (own rows, dim).
            shares: positions of each process's rows; all processes hold the same list.

        Returns:
            Shape (all rows, dim), in order of position.
        """
        parts = []
        for rank, share in enumerate(shares):
            part = own.detach().clone() if rank == self.rank else own.new_empty(len(share), own.shape[1])
            if self.size > 1 and len(share):
                dist.broadcast(part, rank)
            parts.append(own if rank == self.rank else part)
        back = torch.from_numpy(np.argsort(np.concatenate(shares), kind="stable"))
        return torch.cat(parts)[back.to(own.device)]

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Make every process's gradient the sum of all."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def from_first(self, value: T) -> T:
        """The first process's value, everywhere."""
        if self.size == 1:
            return value
        holder: list[Any] = [value]
        dist.broadcast_object_list(holder, 0)
        found: T = holder[0]
        return found

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()
