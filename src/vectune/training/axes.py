"""Principal axes: a turn of the space that changes no cosine, and after which the first dimensions hold the most.

Vectors that are cut to their first dimensions lose what the others hold. In the basis that a model happens to have,
that is as much as any dimensions would hold; in the basis of the documents' principal axes it is the least (Eckart and
Young 1936). The turn is the model's last layer, and whole vectors have the cosines they had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vectune.errors import UsageError
from vectune.training.dev import DevSample
from vectune.training.problem import spread, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    Floats = NDArray[np.float32]

SAMPLE = 2000  # chunks that are embedded to tell a tuned model's axes
MOST = 20_000  # vectors at hand that are looked at


def principal_axes(vectors: Floats) -> Floats:
    """Orthogonal (dim, dim) whose first k columns hold the most of the vectors' squared length that k can, for all k.

    Args:
        vectors: unit vectors, shape (n, dim); may be a memory map, of which at most ``MOST`` rows are read.
    """
    drawn = np.asarray(vectors[spread(len(vectors), MOST)], dtype=np.float64)
    _, axes = np.linalg.eigh(drawn.T @ drawn)
    return np.ascontiguousarray(axes[:, ::-1], dtype=np.float32)


def check_lengths(dimensions: tuple[int, ...], whole: int) -> None:
    """Check lengths that vectors shall be cut to.

    Raises:
        UsageError: a model's vector has no such prefix.
    """
    for dim in dimensions:
        if not 0 < dim <= whole:
            raise UsageError(
                f"tune.dimensions: {dim}: this model's vectors have {whole} dimensions.",
                f"Give lengths from 1 to {whole}.",
            )


def turn(model: SentenceTransformer, axes: Floats) -> None:
    """Append a layer that gives the model's vectors in the basis of these axes; any loader of its kind knows it."""
    from sentence_transformers.sentence_transformer.modules import Dense

    weight = torch.from_numpy(np.ascontiguousarray(axes.T))
    size = len(axes)
    model.append(
        Dense(size, size, bias=False, activation_function=torch.nn.Identity(), init_weight=weight).to(model.device)
    )


def by_dimension(
    dev: DevSample, queries: Floats, chunks: Floats, axes: Floats, dimensions: tuple[int, ...]
) -> dict[int, float]:
    """nDCG@10 on dev of turned vectors that are cut to each of these lengths."""
    queries, chunks = queries @ axes, chunks @ axes
    return {
        dim: round(float(dev.scores(unit(queries[:, :dim]), unit(chunks[:, :dim])).mean()), 5) for dim in dimensions
    }
