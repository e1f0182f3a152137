"""Documents → chunks → queries → dataset; each step is written to disk before the next one reads it.

``pipeline.py`` calls the three steps in order. Each returns a summary, which the run's manifest keeps and the report
shows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from vectune.chunking import Chunker, load_tokenizer, model_reads
from vectune.config import Config
from vectune.dataset import RetrievalDataset, read_corpus, write_corpus
from vectune.documents import Skipped, read_documents
from vectune.duplicates import Duplicate, drop_duplicate_chunks, drop_duplicates
from vectune.errors import DatasetError
from vectune.progress import Progress
from vectune.protocols import QueryWriter
from vectune.queries.extractive import ExtractiveWriter
from vectune.queries.llm import LLMWriter
from vectune.records import Document, Query, WrittenQuery
from vectune.runs import Json, writing
from vectune.splits import check_contamination, split_by_document

LISTED = 1000  # duplicates listed by name; all are counted


def write_chunks(paths: Sequence[str | Path], folder: Path, config: Config, progress: Progress) -> Json:
    """Read the documents, cut them, and write corpus.jsonl and documents.jsonl into ``folder``.

    Documents stream through: in memory are signatures that tell duplicates, so a corpus may be larger than it.
    """
    skipped: list[Skipped] = []
    repeated: list[Duplicate] = []
    count = Counter[str]()

    def counted() -> Iterator[Document]:
        for document in read_documents(paths, config.documents, progress, skipped):
            count["documents"] += 1
            yield document

    chunker = Chunker(load_tokenizer(config.model), model_reads(config.model), config.chunks)
    cut = (chunk for document in drop_duplicates(counted(), repeated) for chunk in chunker.split(document))
    with writing(folder) as beside:
        beside.mkdir()
        count["chunks"] = write_corpus(beside, drop_duplicate_chunks(cut, repeated))
    if not count["chunks"]:
        raise DatasetError("no document holds enough text for a chunk.", "Look at the list of skipped files.")
    if skipped:
        listed = "".join(f"\n  {one.source}: {one.reason}" for one in skipped)
        progress.warn(f"{len(skipped)} of {len(skipped) + count['documents']} files were skipped:{listed}")
    return {
        **count,
        "skipped": [asdict(one) for one in skipped],
        "duplicates": [asdict(one) for one in repeated[:LISTED]],
        "duplicates_left_out": len(repeated),
    }


def write_queries(chunks: Path, target: Path, config: Config, progress: Progress) -> Json:
    """Write queries for the chunks in the folder ``chunks``, one JSON object a line, into the file ``target``."""
    corpus = read_corpus(chunks)
    writer: QueryWriter = (
        ExtractiveWriter(config.queries)
        if config.llm is None
        else LLMWriter(config.llm, config.llm_queries, progress=progress)
    )
    written = []
    with progress.task("write queries", total=len(corpus), unit="chunks") as task:
        seen: set[str] = set()
        for query in writer.write(list(corpus.values())):
            written.append(query)
            fresh = set(query.chunk_ids) - seen
            seen |= fresh
            task.advance(len(fresh))
    with writing(target) as beside:
        beside.write_text("".join(_query_line(one) for one in written), encoding="utf-8")
    return {"writer": writer.name, "queries": len(written)}


def write_dataset(chunks: Path, queries: Path, target: Path, config: Config, facts: Json) -> Json:
    """Put chunks and queries together, split by document, check the split, and write the dataset folder.

    Args:
        chunks, queries, target: what the two steps before wrote, and the dataset folder.
        config: the part split counts here.
        facts: kept in dataset.json: what was skipped, filtered and left out on the way.
    """
    corpus = read_corpus(chunks)
    written = [_read_query(line) for line in queries.read_text(encoding="utf-8").splitlines()]
    if not written:
        raise DatasetError("no query could be written for these documents.", "Give longer documents, or use --llm.")
    judged = {one.query.id: {chunk: 1 for chunk in one.chunk_ids} for one in written}
    splits = split_by_document(corpus, judged, config.split)
    info = {
        "name": target.resolve().parent.name if target.name == "dataset" else target.name,
        "generated": True,
        **facts,
    }
    dataset = RetrievalDataset(corpus, {one.query.id: one.query for one in written}, splits, info)
    check_contamination(dataset, options=config.split)
    dataset.write(target)
    return dataset.counts()


def _query_line(written: WrittenQuery) -> str:
    query = written.query
    line = {"text": query.text, "style": query.style, "writer": query.writer, "chunks": list(written.chunk_ids)}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _read_query(line: str) -> WrittenQuery:
    values = json.loads(line)
    return WrittenQuery(Query(values["text"], values["style"], values["writer"]), tuple(values["chunks"]))
