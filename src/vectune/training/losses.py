"""The loss of a batch as the options ask for it, put together from ``objectives``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vectune.training.axes import principal_axes
from vectune.training.batches import Batch
from vectune.training.ground import Ground
from vectune.training.loop import Loss
from vectune.training.objectives import distillation, drift, info_nce, matryoshka
from vectune.training.options import TuneOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Texts of queries (b) and chunks (c) → scores of shape (b, c), already divided by the teacher's temperature.
Teacher = Callable[[Sequence[str], Sequence[str]], "NDArray[np.float32]"]


def make_loss(options: TuneOptions, ground: Ground, teacher: Teacher | None = None) -> Loss:
    """InfoNCE over the batch; with a teacher its distribution, too; over prefixes and held by an anchor where asked.

    Args:
        options: weights and temperatures.
        ground: texts for the teacher, the base's vectors for the anchor.
        teacher: its distribution has the weight ``options.teacher_weight``, InfoNCE the rest.
    """
    data = ground.data
    weight = options.teacher_weight if teacher is not None else 0.0
    axes = torch.from_numpy(principal_axes(ground.chunk_vectors)) if options.dimensions else None

    def loss(queries: Tensor, chunks: Tensor, batch: Batch) -> Tensor:
        device = queries.device
        masked, targets = torch.from_numpy(batch.masked).to(device), torch.from_numpy(batch.targets).to(device)
        scores: Tensor | None = None
        if teacher is not None:
            texts = [data.queries[query] for query in batch.queries], [data.chunks[chunk] for chunk in batch.chunks]
            scores = torch.from_numpy(np.asarray(teacher(*texts), dtype=np.float32)).to(device)

        def objective(q: Tensor, d: Tensor) -> Tensor:
            total = q.new_zeros(())
            if weight < 1:
                total = total + (1 - weight) * info_nce(q, d, targets, masked, options.temperature, options.symmetric)
            if scores is not None and weight > 0:
                total = total + weight * distillation(q, d, scores, temperature=options.temperature)
            return total

        basis = None if axes is None else axes.to(device)
        whole = objective if basis is None else matryoshka(objective, options.dimensions, basis)
        found = whole(queries, chunks)
        if options.anchor and options.anchor_texts is None:
            before = torch.from_numpy(ground.query_vectors[batch.queries]).to(device)
            found = found + options.anchor * drift(queries, before)
            before = torch.from_numpy(ground.chunk_vectors[batch.chunks]).to(device)
            found = found + options.anchor * drift(chunks, before)
        return found

    return loss
