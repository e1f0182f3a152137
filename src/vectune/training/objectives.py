"""What the loop minimises, as functions of unit vectors: InfoNCE with masks, a teacher's distribution, Matryoshka."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize, softmax

Objective = Callable[[Tensor, Tensor], Tensor]  # queries (b, d), chunks (c, d) → a scalar


def info_nce(
    queries: Tensor,
    chunks: Tensor,
    targets: Tensor,
    masked: Tensor,
    temperature: float = 0.05,
    symmetric: bool = True,
) -> Tensor:
    """Softmax over the batch (van den Oord et al., arXiv 1807.03748), both ways as in CLIP (arXiv 2103.00020).

    Args:
        queries: unit vectors, shape (b, d).
        chunks: unit vectors, shape (c, d).
        targets: the chunk that answers each query, shape (b,); several queries may have the same.
        masked: True where a chunk counts neither for nor against a query, shape (b, c).
        temperature: cosines are divided by it.
        symmetric: a query's chunk must find it among the queries, too, others of the same chunk set aside.

    Returns:
        The mean loss over queries, a scalar.
    """
    scores = (queries @ chunks.T / temperature).masked_fill(masked, float("-inf"))
    loss = cross_entropy(scores, targets)
    if not symmetric:
        return loss
    own = torch.arange(len(queries), device=scores.device)
    same = (targets[:, None] == targets[None, :]) & (own[:, None] != own[None, :])
    return (loss + cross_entropy(scores[:, targets].T.masked_fill(same, float("-inf")), own)) / 2


def distillation(queries: Tensor, chunks: Tensor, teacher: Tensor, temperature: float = 0.05) -> Tensor:
    """Kullback-Leibler divergence from the teacher's distribution over the batch's chunks to the model's.

    Args:
        queries: unit vectors, shape (b, d).
        chunks: unit vectors, shape (c, d).
        teacher: the teacher's scores, already divided by its own temperature, shape (b, c).
        temperature: of the model's cosines.
    """
    scores = queries @ chunks.T / temperature
    return kl_div(log_softmax(scores, -1), softmax(teacher, -1), reduction="batchmean")


def matryoshka(objective: Objective, dimensions: Sequence[int], axes: Tensor | None = None) -> Objective:
    """The mean of an objective over prefixes of the vectors, each brought to unit norm (arXiv 2205.13147).

    Args:
        objective: takes unit vectors of queries and chunks.
        dimensions: lengths of the prefixes; the whole vector always counts, named or not.
        axes: orthogonal (d, d) whose columns are the basis that prefixes are taken in; None: the model's own.
    """

    def over_prefixes(queries: Tensor, chunks: Tensor) -> Tensor:
        whole = queries.shape[1]
        losses = [objective(queries, chunks)]
        if axes is not None:
            queries, chunks = queries @ axes, chunks @ axes
        for dim in sorted({dim for dim in dimensions if dim < whole}, reverse=True):
            losses.append(objective(normalize(queries[:, :dim], dim=-1), normalize(chunks[:, :dim], dim=-1)))
        return torch.stack(losses).mean()

    return over_prefixes


def drift(vectors: Tensor, base: Tensor) -> Tensor:
    """How far unit vectors have moved from the base model's: the mean of 1 − cosine; both of shape (n, d)."""
    return (1 - (vectors * base).sum(-1)).mean()
