"""The lexical teacher: which chunks answer queries that nobody judged, told by BM25 and the base model together.

For query logs: people's own words, without labels. The fusion of BM25 and cosine is ahead of both on most corpora, so
its first chunk is a usable label where the two agree, and no label is better than a wrong one where they do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vectune.dataset import Qrels, RetrievalDataset
from vectune.errors import DatasetError
from vectune.lexical import AUTO, BM25, fuse, top_indices
from vectune.progress import SILENT, Progress
from vectune.records import Chunk, Query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vectune.protocols import Embedder

_BLOCK = 64


@dataclass(frozen=True)
class TeacherOptions:
    """When the teacher gives a label.

    Attributes:
        weight: of BM25 in the fused score, 0 to 1.
        agree: both BM25 and the base must rank the chunk among their first so many.
        language: see ``lexical.BM25``.
    """

    weight: float = 0.5
    agree: int = 5
    language: str | None = AUTO


def label_queries(
    corpus: Mapping[str, Chunk],
    queries: Sequence[Query],
    embedder: Embedder,
    options: TeacherOptions = TeacherOptions(),
    progress: Progress = SILENT,
) -> Qrels:
    """Label each query with the chunk that the fusion ranks first, if BM25 and the base both rank it high.

    Args:
        corpus: what is searched.
        queries: usually ``formats.read_queries`` of a log.
        embedder: the base.
        options: see ``TeacherOptions``.
        progress: counts queries.

    Returns:
        Query id → chunk id → 1; queries without agreement are left out.
    """
    ids, texts = list(corpus), [chunk.content for chunk in corpus.values()]
    index, documents = BM25(texts, options.language), embedder.embed_documents(texts)
    found: Qrels = {}
    with progress.task("label queries", total=len(queries), unit="queries") as task:
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            asked = [query.text for query in block]
            lexical, dense = index.all_scores(asked), embedder.embed_queries(asked) @ documents.T
            fused = fuse(dense, lexical, options.weight)
            for row, query in enumerate(block):
                best = int(fused[row].argmax())
                depth = min(options.agree, len(ids))
                ranked = (top_indices(scores[row], depth) for scores in (lexical, dense))
                if lexical[row, best] > 0 and all(best in chunks for chunks in ranked):
                    found[query.id] = {ids[best]: 1}
            task.advance(len(block))
    return found


def dataset_of_log(
    corpus: Mapping[str, Chunk],
    queries: Sequence[Query],
    embedder: Embedder,
    options: TeacherOptions = TeacherOptions(),
    progress: Progress = SILENT,
) -> RetrievalDataset:
    """A dataset whose train split is a query log, labelled by the teacher; ``generated``, since no person judged it.

    Raises:
        DatasetError: BM25 and the base agree on no query.
    """
    qrels = label_queries(corpus, queries, embedder, options, progress)
    if not qrels:
        raise DatasetError(
            f"BM25 and the base model agree on none of the {len(queries)} queries.",
            "Check that the log belongs to these documents.",
        )
    kept = {query.id: query for query in queries if query.id in qrels}
    info = {"generated": True, "log": {"queries": len(queries), "labelled": len(kept)}}
    return RetrievalDataset(dict(corpus), kept, {"train": qrels}, info)
