"""Documents → chunks → queries → dataset; each step is written to disk before the next one reads it.

``pipeline.py`` calls the three steps in order. Each returns a summary, which the run's manifest keeps and the report
shows.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from vectune.chunking import Chunker
from vectune.config import Config
from vectune.corpus import read_corpus, write_corpus
from vectune.dataset import Qrels, RetrievalDataset
from vectune.documents import Skipped, read_documents
from vectune.duplicates import Duplicates, drop_duplicate_chunks, drop_duplicates
from vectune.embedders.factory import open_embedder
from vectune.errors import DatasetError, UsageError
from vectune.progress import Progress
from vectune.protocols import QueryWriter
from vectune.queries.extractive import ExtractiveWriter
from vectune.queries.filters import filter_queries
from vectune.queries.llm import LLMWriter
from vectune.records import Chunk, Document, Query, WrittenQuery
from vectune.runs import Json, writing
from vectune.splits import check_contamination, split_by_document


def copy_chunks(dataset: Path, folder: Path) -> Json:
    """A dataset's chunks as they are, without its queries and judgments.

    Raises:
        UsageError: the folder is no dataset.
    """
    if not (dataset / "corpus.jsonl").exists():
        raise UsageError(f"--ignore-labels: {dataset} is no dataset folder: it holds no corpus.jsonl.")
    corpus = read_corpus(dataset)
    with writing(folder) as beside:
        beside.mkdir()
        count = write_corpus(beside, corpus.values())
    return {"documents": len({chunk.document_id for chunk in corpus.values()}), "chunks": count}


def write_chunks(
    paths: Sequence[str | Path], folder: Path, config: Config, progress: Progress, outputs: Sequence[Path] = ()
) -> Json:
    """Read the documents, cut them, and write corpus.jsonl and documents.jsonl into ``folder``.

    Documents stream through: in memory are signatures that tell duplicates, so a corpus may be larger than it. With
    ``ignore_labels`` the one path is a dataset, whose chunks are taken as they are. Nothing in ``outputs`` is read.
    """
    if config.ignore_labels:
        if len(paths) != 1:
            raise UsageError(f"ignore_labels takes the chunks of one dataset folder, and {len(paths)} paths are given.")
        return copy_chunks(Path(paths[0]), folder)
    skipped: list[Skipped] = []
    repeated = Duplicates()
    count = Counter[str]()

    def counted() -> Iterator[Document]:
        for document in read_documents(paths, config.documents, progress, skipped, outputs):
            count["documents"] += 1
            yield document

    chunker = Chunker.for_model(config.model, config.chunks)
    once = drop_duplicates(counted(), repeated, config.duplicates.documents)
    cut = (chunk for document in once for chunk in chunker.split(document))
    with writing(folder) as beside:
        beside.mkdir()
        count["chunks"] = write_corpus(beside, drop_duplicate_chunks(cut, repeated, config.duplicates.chunks))
    if not count["chunks"]:
        raise DatasetError("no document holds enough text for a chunk.", "Look at the list of skipped files.")
    if skipped:
        listed = "".join(f"\n  {one.source}: {one.reason}" for one in skipped)
        progress.warn(f"{len(skipped)} of {len(skipped) + count['documents']} files were skipped:{listed}")
    return {
        **count,
        "skipped": [asdict(one) for one in skipped],
        "duplicates": [asdict(one) for one in repeated.listed],
        "duplicates_left_out": repeated.count,
    }


def write_queries(chunks: Path, target: Path, config: Config, progress: Progress) -> Json:
    """Write queries for the chunks in the folder ``chunks``, filter them, and put one a line into ``target``."""
    corpus = read_corpus(chunks)
    if config.log is not None:
        return _label_log(corpus, config.log, target, config, progress)
    drawn = draw_chunks(corpus, config.most_chunks, config.seed)
    if len(drawn) < len(corpus):
        progress.warn(f"Queries are written for {len(drawn):,} of {len(corpus):,} chunks (most_chunks).")
    writer = query_writer(config, progress)
    written = []
    with progress.task("write queries", total=len(drawn), unit="chunks") as task:
        asked: set[str] = set()
        for one in writer.write(drawn):
            written.append(one)
            fresh = set(one.chunk_ids) - asked
            asked |= fresh
            task.advance(len(fresh))
    # An LLM's answers come in another order each time, and what was answered before comes first.
    place = {chunk.id: number for number, chunk in enumerate(drawn)}
    written.sort(key=lambda one: [place[chunk] for chunk in one.chunk_ids])
    base = open_embedder(config.model, config.models, progress=progress) if config.filters.consistency else None
    kept, filters = filter_queries(written, corpus, config.filters, base, progress)
    _write_written(target, kept)
    return {"writer": writer.name, "filters": filters.to_json(), "unfinished": left_undone(writer)}


def draw_chunks(corpus: Mapping[str, Chunk], most: int, seed: int) -> list[Chunk]:
    """The chunks that queries are written for, in the corpus's order: ``most`` of them at random; all where it is 0."""
    if not most or len(corpus) <= most:
        return list(corpus.values())
    places = sorted(random.Random(seed).sample(range(len(corpus)), most))
    ids = list(corpus)
    return [corpus[ids[place]] for place in places]


def _label_log(corpus: Mapping[str, Chunk], log: str, target: Path, config: Config, progress: Progress) -> Json:
    """Label the queries of a log, and put those that got a label into ``target``."""
    from vectune.formats import read_queries
    from vectune.training.teacher import dataset_of_log

    base = open_embedder(config.model, config.models, progress=progress)
    dataset = dataset_of_log(corpus, read_queries(log), base, config.teacher, progress)
    labelled = dataset.qrels["train"].items()
    _write_written(target, [WrittenQuery(dataset.queries[query], tuple(chunks)) for query, chunks in labelled])
    return {"writer": "log", **dataset.info}


def _write_written(target: Path, written: Sequence[WrittenQuery]) -> None:
    with writing(target) as beside:
        beside.write_text("".join(map(_query_line, written)), encoding="utf-8")


def writer_key(config: Config) -> str:
    """Changes with all that an LLM's queries depend on, also with what its prompt and example files hold.

    Raises:
        InputError, UsageError: such a file or an option cannot be used; said before any document is read.
    """
    return "" if config.llm is None else LLMWriter(config.llm, config.llm_queries).fingerprint


def left_undone(writer: QueryWriter) -> str:
    """What an LLM could not be asked or did not answer, in a sentence; empty where all went well."""
    if not isinstance(writer, LLMWriter):
        return ""
    failed = f"{len(writer.failures):,} requests failed" if writer.failures else ""
    return "; ".join(part for part in (failed, writer.stopped) if part)


def query_writer(config: Config, progress: Progress) -> QueryWriter:
    """The LLM where one is named; else the writer that needs no model."""
    if config.llm is None:
        return ExtractiveWriter(config.queries)
    return LLMWriter(config.llm, config.llm_queries, progress=progress)


def write_dataset(chunks: Path, queries: Path, target: Path, config: Config, facts: Json) -> Json:
    """Put chunks and queries together, split by document, check the split, and write the dataset folder.

    Args:
        chunks, queries, target: what the two steps before wrote, and the dataset folder.
        config: the part split counts here.
        facts: kept in dataset.json: what was skipped, filtered and left out on the way.
    """
    corpus = read_corpus(chunks)
    with queries.open(encoding="utf-8") as file:
        written = list(map(_read_query, file))
    if not written:
        raise DatasetError(*_no_query(facts))
    judged: Qrels = {}
    for one in written:  # the same query stands there for several chunks where the filter of duplicates is off
        judged.setdefault(one.query.id, {}).update(dict.fromkeys(one.chunk_ids, 1))
    splits = split_by_document(corpus, judged, config.split)
    info = {
        "name": target.resolve().parent.name if target.name == "dataset" else target.name,
        "generated": True,
        **facts,
    }
    dataset = RetrievalDataset(corpus, {one.query.id: one.query for one in written}, splits, info)
    findings = check_contamination(dataset, allow=config.allow_contamination, options=config.split)
    dataset.info["warnings"] = [str(finding) for finding in findings]
    dataset.write(target)
    return dataset.counts()


def _no_query(facts: Json) -> tuple[str, str]:
    """Why a dataset would be empty, and what helps."""
    if unfinished := facts.get("unfinished"):
        return f"no query came from the LLM ({unfinished}).", "What was answered is kept; raise the budget, or go on."
    if wrote := (facts.get("filters") or {}).get("written"):
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in facts["filters"]["dropped"].items())
        return f"the filters dropped all {wrote:,} queries ({dropped}).", "Loosen [filters] in a configuration file."
    return "no query could be written for these documents.", "Give longer documents, or use --llm."


def _query_line(written: WrittenQuery) -> str:
    query = written.query
    line = {"text": query.text, "style": query.style, "writer": query.writer, "chunks": list(written.chunk_ids)}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _read_query(line: str) -> WrittenQuery:
    values = json.loads(line)
    return WrittenQuery(Query(values["text"], values["style"], values["writer"]), tuple(values["chunks"]))
