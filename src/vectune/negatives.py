"""Hard negatives: chunks that look like the answer and are not, found by BM25 and the current model together.

Only chunks of the pool are mined (``splits.train_pool``: nothing of dev and test documents). What scores above 95 % of
the positive's score is left out, since it is likely an answer nobody marked (NV-Retriever, arXiv 2407.15831).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectune.lexical import BM25, fuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.int64]

BLOCK = 256  # queries scored at a time: a block of scores against 100,000 chunks takes 100 MB


def mine(
    queries: Floats,
    texts: Sequence[str],
    pool: Floats,
    lexical: BM25,
    positives: Sequence[Sequence[int]],
    excluded: Sequence[Sequence[int]],
    depth: int,
    *,
    margin: float = 0.95,
    weight: float = 0.5,
    advance: Callable[[int], object] | None = None,
) -> Ints:
    """The hardest chunks of the pool for each query, judged by ``weight · z(BM25) + (1 − weight) · z(cosine)``.

    Args:
        queries: unit vectors of shape (q, d).
        texts: the same queries as text.
        pool: unit vectors of the pool's chunks, shape (n, d).
        lexical: BM25 over the same chunks in the same order.
        positives: for each query, where its positives are in the pool.
        excluded: for each query, further places that must not be taken, such as neighbours of a positive.
        depth: how many for each query.
        margin: share of the positive's score above which a chunk is taken for an unmarked positive.
        weight: of BM25 in the score.
        advance: called with the number of queries done, after each block.

    Returns:
        Places in the pool, hardest first, shape (q, depth); -1 where there are no more.
    """
    found = np.full((len(queries), depth), -1, dtype=np.int64)
    for start in range(0, len(queries), BLOCK):
        rows = range(start, min(start + BLOCK, len(queries)))
        scores = fuse(queries[start : rows.stop] @ pool.T, lexical.all_scores(texts[start : rows.stop]), weight)
        scores = np.round(scores, 4)  # a product's last bits differ with its place in memory; the choice must not
        for row in rows:
            hardest = _hardest(scores[row - start], positives[row], excluded[row], depth, margin)
            found[row, : len(hardest)] = hardest
        if advance is not None:
            advance(len(rows))
    return found


def _hardest(scores: Floats, positives: Sequence[int], excluded: Sequence[int], depth: int, margin: float) -> Ints:
    """Below the limit, hardest first. A positive that the models do not find at all sets no limit worth the name."""
    limit = margin * float(scores[list(positives)].max()) if len(positives) else np.inf
    if limit <= 0:  # the positive is below the average chunk: nothing that resembles the query would be left
        limit = np.inf
    allowed = scores < limit
    allowed[list(positives)] = False
    allowed[list(excluded)] = False
    places = np.flatnonzero(allowed)
    best = places[np.argpartition(-scores[places], min(depth, len(places)) - 1)[:depth]] if len(places) else places
    ordered: Ints = best[np.lexsort((best, -scores[best]))]
    return ordered
