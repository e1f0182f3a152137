"""Evaluation: every model ranks the same chunks for the same queries, and the board tells how well and at what cost.

Names of rows are in ``rankers.py``, measures in ``metrics.py``, the board in ``board.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vectune.adapters import fitted_on_dev
from vectune.board import Board, Costs, Row
from vectune.dataset import Qrels, RetrievalDataset, asked_hash
from vectune.embedders.factory import tuned_seed
from vectune.embedders.options import DEFAULTS
from vectune.errors import DatasetError, UsageError, check_bounds
from vectune.lexical import AUTO
from vectune.metrics import DEFAULT_MEASURES, Answer, PerQuery, depth_of, measure_name, score_answers
from vectune.progress import SILENT, Progress
from vectune.protocols import Embedder
from vectune.runs import Json

if TYPE_CHECKING:
    from vectune.embedders.settings import Settings
    from vectune.encoding import EncodedDataset, Encoder
    from vectune.products import Floats
    from vectune.rankers import Placed, Ranked, Ranker, RowName
    from vectune.ranks import Pairs

__all__ = ["Board", "Costs", "EvaluateOptions", "Model", "Row", "evaluate"]

FEW_DOCUMENTS = 10
FITTED_ON_DEV_NOTE = "an adapter, query encoder or bridge, fitted on dev as well: here it looks too good."
INT8_NOTE = "int8 rows are timed with codes turned into floats for each search; a store's int8 kernels are faster."

Model: TypeAlias = "str | Path | Embedder | tuple[Callable[..., Any], Callable[..., Any]]"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is measured.

    Attributes:
        measures: see ``metrics.py``.
        k: further cutoffs: each adds nDCG@k, RR@k, hit@k, R@k and P@k.
        depth: how many chunks of each ranking are scored at least; measures with higher cutoffs deepen it.
        kept: how many chunks of each ranking stay on the board.
        timed_queries: so many queries are asked one at a time, past every cache, for the latency; 0 does not time.
        hybrid_step: distance between the weights that are tried on dev for ``hybrid:NAME``.
        seed: draws what dev is cut from, where a dataset has none.
        language: BM25's, as an ISO 639-1 code; ``auto``: the corpus's; None neither stems nor drops stop words.
        cache: keep vectors on disk across runs, keyed by the model's fingerprint.
    """

    measures: tuple[str, ...] = DEFAULT_MEASURES
    k: tuple[int, ...] = ()
    depth: int = 100
    kept: int = 10
    timed_queries: int = 20
    hybrid_step: float = 0.05
    seed: int = 0
    language: str | None = AUTO
    cache: bool = True

    def __post_init__(self) -> None:
        """Check every number.

        Raises:
            UsageError: one that makes no sense, with what is allowed.
        """
        bounds = {"depth": (1, inf), "kept": (1, inf), "timed_queries": (0, inf), "hybrid_step": (0, 1)}
        check_bounds("evaluate", self, bounds, ("hybrid_step",))

    def all_measures(self) -> tuple[str, ...]:
        """The measures with those that ``k`` adds, each once.

        Raises:
            UsageError: an unknown measure.
        """
        more = [f"{family}@{k}" for k in self.k for family in ("nDCG", "RR", "hit", "R", "P")]
        return tuple(dict.fromkeys(measure_name(name) for name in (*self.measures, *more)))


def evaluate(
    dataset: RetrievalDataset,
    models: Sequence[Model],
    split: str = "test",
    options: EvaluateOptions = EvaluateOptions(),
    progress: Progress = SILENT,
    settings: Settings = DEFAULTS,
    weights: Mapping[str, float] = MappingProxyType({}),
) -> Board:
    """Score models on one split.

    Args:
        dataset: the chunks of the whole corpus are searched, whatever split they belong to.
        models: names as in ``rankers.py``, Embedders, or pairs of functions from texts to vectors (for queries,
            for documents).
        split: whose queries are asked.
        options: what is measured.
        progress: where to report.
        settings: how models that are named are opened; see ``open_embedder``.
        weights: BM25's weight in hybrids, by name, where another dataset has chosen it.

    Returns:
        The board, rows in the order of ``models``; a model named twice has one row.

    Raises:
        DatasetError: the dataset has no such split, or its judgments name what it does not hold.
        UsageError: a name or a measure that nothing can be made of; nothing has been computed then.
        ModelError: a model cannot be loaded, or answers with vectors that are none.
        EndpointError: an API failed; what it answered before is in the cache.
    """
    from vectune.encoding import EncodedDataset

    qrels = _known(dataset, split)
    named = _named(models)
    encoded = EncodedDataset(
        dataset, language=options.language, cache=options.cache, progress=progress, settings=settings
    )
    work = _Evaluation(encoded, split, options, weights)
    for name, model in named.items():
        work.encoder(name, model)  # a name that means nothing shall not be found out after an hour's work on the others
    rows = []
    with progress.task("evaluate", total=len(named), unit="models") as task:
        for name, model in named.items():
            rows.append(work.row(name, model))
            task.advance(note=name.text)
    clusters, clustered_by = clusters_of(dataset, split)
    return Board(
        dataset=dataset.name,
        split=split,
        corpus=len(dataset.corpus),
        queries=len(qrels),
        rows=tuple(rows),
        measures=work.measures,
        generated=dataset.generated_in(split),
        asked=asked_hash(dataset, split),
        depth=work.depth,
        clusters=clusters,
        clustered_by=clustered_by,
        notes=tuple(dict.fromkeys([*work.notes, *_notes(clustered_by, dataset, split)])),
    )


def _known(dataset: RetrievalDataset, split: str) -> Qrels:
    """The split's judgments, all of queries and chunks that there are: one made in memory was never checked."""
    qrels = dataset.split(split)
    for query, judged in qrels.items():
        missing = [f"query '{query}'"] if query not in dataset.queries else []
        missing += [f"chunk '{chunk}'" for chunk in judged if chunk not in dataset.corpus]
        if missing:
            raise DatasetError(f"the {split} judgments of '{dataset.name}' name the unknown {missing[0]}.")
        if not judged:
            raise DatasetError(f"the {split} judgments of '{dataset.name}' hold no chunk for the query '{query}'.")
    return qrels


def clusters_of(dataset: RetrievalDataset, split: str) -> tuple[dict[str, str], str]:
    """Which queries stand or fall together: those of one document.

    With fewer than ``FEW_DOCUMENTS`` there is nothing to resample: then those of one chunk, and what is found holds
    for these documents alone.

    Returns:
        Query id → id of its cluster, and ``document`` or ``chunk``.
    """
    first = {query: next(iter(judged)) for query, judged in dataset.split(split).items()}
    documents = {query: dataset.corpus[chunk].document_id for query, chunk in first.items()}
    return (first, "chunk") if len(set(documents.values())) < FEW_DOCUMENTS else (documents, "document")


def _notes(clustered_by: str, dataset: RetrievalDataset, split: str) -> list[str]:
    notes = []
    if clustered_by != "document":
        documents = len(dataset.documents_of(split))
        notes.append(f"The answers lie in {_count(documents, 'document')}: what is found holds for those.")
    left = len(dataset.queries) - sum(map(len, dataset.qrels.values()))
    if left > 0:
        notes.append(f"{_count(left, 'query', 'queries')} of the dataset without judgments in any split: not asked.")
    return notes


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _named(models: Sequence[Model]) -> dict[RowName, Model]:
    """Row name → model, each once, in order.

    Raises:
        UsageError: no model, or a name that nothing can be made of.
    """
    from vectune.rankers import RowName, parse_name

    found: dict[RowName, Model] = {}
    for number, model in enumerate(models, start=1):
        if isinstance(model, str | Path):
            model = str(model)
            found.setdefault(parse_name(model), model)
        else:
            text = model.name if isinstance(model, Embedder) else f"callable {number}"
            if found.get(RowName(text, text), model) is not model:
                text = f"{text} ({number})"  # another one of the same name
            found[RowName(text, text)] = model
    if not found:
        raise UsageError("no model was named.", "Give --model NAME, for example --model bm25.")
    return found


class _Evaluation:
    """What all rows of one board share."""

    def __init__(
        self, encoded: EncodedDataset, split: str, options: EvaluateOptions, weights: Mapping[str, float]
    ) -> None:
        self.encoded, self.split, self.options, self.weights = encoded, split, options, weights
        self.qrels = encoded.dataset.split(split)
        self.texts = [query.text for query in encoded.dataset.queries_of(split)]
        self.measures = options.all_measures()
        self.depth = min(len(encoded.dataset.corpus), max(options.depth, depth_of(self.measures)))
        self.notes: list[str] = []

    def row(self, name: RowName, model: Model) -> Row:
        """Rank, score and weigh one model."""
        from vectune.rankers import place

        encoder = self.encoder(name, model)
        vectors = None if encoder is None else self._shaped(name, encoder.queries(self.texts))
        if encoder is not None and fitted_on_dev(encoder.embedder) and self.split == "dev":
            self.notes.append(f"{name.text}: {FITTED_ON_DEV_NOTE}")
        ranker, details = self._ranker(name, encoder)
        with self.encoded.progress.task(f"rank with {name.text}", total=len(self.texts), unit="queries") as task:
            kept = self.options.kept
            placed = place(ranker, self.texts, vectors, self._pairs, kept, self.depth, task.advance)
        return self._scored(name, placed, self._costs(name, encoder, ranker), details)

    def encoder(self, name: RowName, model: Model) -> Encoder | None:
        """The row's embedder, opened when it is first asked for; None for BM25."""
        if not name.model:
            return None
        return self.encoded.encoder(name.model, name.model if isinstance(model, str) else model)

    def _shaped(self, name: RowName, vectors: Floats) -> Floats:
        from vectune.encoding import truncated

        return truncated(vectors, name.dims, name.text) if name.dims else vectors

    def _ranker(self, name: RowName, encoder: Encoder | None) -> tuple[Ranker, Json]:
        from vectune.rankers import Binary, Dense, Hybrid, Int8, Lexical

        ties = self.encoded.ties
        if encoder is None:
            return Lexical(self.encoded.bm25, ties), {"language": self.encoded.bm25.analyzer.language}
        corpus = self._shaped(name, encoder.corpus)
        if name.quantization == "int8":
            self.notes.append(INT8_NOTE)
        makers: dict[str, type[Dense | Int8 | Binary]] = {"": Dense, "int8": Int8, "binary": Binary}
        if not name.hybrid:
            return makers[name.quantization](corpus, ties), {}
        weight, details = self._weight(name, encoder, corpus)
        return Hybrid(self.encoded.bm25, corpus, weight, ties), details

    def _weight(self, name: RowName, encoder: Encoder, corpus: Floats) -> tuple[float, Json]:
        """BM25's weight, chosen on dev; a half where there is nothing to choose on."""
        from vectune.hybrid import choose_weight, judged_indices
        from vectune.splits import with_dev

        dataset, chosen_on = self.encoded.dataset, "dev"
        language: Json = {"language": self.encoded.bm25.analyzer.language}
        if name.text in self.weights:
            return self.weights[name.text], {"weight": self.weights[name.text], "chosen_on": None, **language}
        if not dataset.qrels.get("dev") and dataset.qrels.get("train") and self.split != "train":
            seed = tuned_seed(encoder.embedder, self.options.seed)
            with suppress(DatasetError):  # too small to be cut: then there is nothing to choose on
                dataset, chosen_on = with_dev(dataset, seed), "dev, cut from train"
        if why := self._no_choice(dataset, encoder):
            self.notes.append(f"{name.text}: the weight is .5, for {why}.")
            return 0.5, {"weight": 0.5, "chosen_on": None, **language}
        queries = dataset.queries_of("dev")
        texts = [query.text for query in queries]
        if encoder.untuned is not None:
            chosen_on += ", with the queries as they are before tuning"
        place = {chunk: index for index, chunk in enumerate(self.encoded.ids)}
        weight = choose_weight(
            self.encoded.bm25,
            corpus,
            texts,
            self._shaped(name, encoder.untuned_queries(texts)),
            judged_indices(dataset.split("dev"), [query.id for query in queries], place),
            self.encoded.ties,
            self.options.hybrid_step,
        )
        curve = {f"{at:g}": value for at, value in weight.curve.items()}
        details: Json = {
            "weight": weight.value, "chosen_on": chosen_on, "queries": weight.queries, "curve": curve,
            "before_tuning": encoder.untuned is not None, **language,
        }  # fmt: skip
        return weight.value, details

    def _no_choice(self, dataset: RetrievalDataset, encoder: Encoder) -> str:
        """Why a weight cannot be chosen on dev; empty where it can."""
        if self.split == "dev":
            return "dev is the split that is scored to choose it on"
        if not dataset.qrels.get("dev"):
            return "it has no dev queries to choose it on"
        if fitted_on_dev(encoder.embedder) and encoder.untuned is None:
            return "queries and documents pass through an adapter that was fitted on dev as well"
        return ""

    def _scored(self, name: RowName, placed: Placed, costs: Costs, details: Json) -> Row:
        answers = self._answers(placed)
        by_measure = score_answers(answers, self.measures)
        return Row(
            name=name.text,
            kind=name.kind,
            per_query=_by_query(by_measure, self.qrels),
            rankings=dict(zip(self.qrels, _named_hits(placed.heads, self.encoded.ids), strict=True)),
            ranks={query: min((rank for rank, _ in a.judged if rank), default=0) for query, a in answers.items()},
            unanswered=int(np.count_nonzero(placed.lengths == 0)),
            costs=costs,
            details=details,
        )

    def _answers(self, placed: Placed) -> dict[str, Answer]:
        """Where each query's ranking holds the chunks that were judged for it."""
        ranks = iter(placed.ranks.tolist())
        return {
            query: Answer(length, tuple((next(ranks), grade) for grade in judged.values()))
            for (query, judged), length in zip(self.qrels.items(), placed.lengths.tolist(), strict=True)
        }

    @cached_property
    def _pairs(self) -> Pairs:
        """Each query and the chunks that were judged for it."""
        from vectune.ranks import Pairs

        wanted = {chunk for judged in self.qrels.values() for chunk in judged}
        place = {chunk: index for index, chunk in enumerate(self.encoded.ids) if chunk in wanted}
        queries = np.repeat(np.arange(len(self.qrels)), [len(judged) for judged in self.qrels.values()])
        return Pairs(queries, np.array([place[chunk] for judged in self.qrels.values() for chunk in judged]))

    def _costs(self, name: RowName, encoder: Encoder | None, ranker: Ranker) -> Costs:
        from vectune.encoding import latency

        texts = self.texts[: self.options.timed_queries]
        embedding = [0.0] * len(texts) if encoder is None else encoder.query_seconds(tuple(texts))
        searching = []
        for text in texts:
            vectors = None if encoder is None else self._shaped(name, encoder.queries([text]))
            started = time.perf_counter()
            ranker.rank([text], vectors, 10)
            searching.append(time.perf_counter() - started)
        timing = latency([a + b for a, b in zip(embedding, searching, strict=True)])
        if encoder is None:
            return Costs(index_bytes=ranker.index_bytes, query_ms=timing)
        tokens, money = encoder.api_price or (0, 0.0)
        return Costs(
            dim=name.dims or encoder.embedder.dim,
            index_bytes=ranker.index_bytes,
            documents_per_second=encoder.documents_per_second,
            query_ms=timing,
            api_tokens=tokens,
            money=money,
            truncated=encoder.truncated,
        )


def _by_query(values: PerQuery, queries: Iterable[str]) -> PerQuery:
    """Measure → query → value, to query → measure → value."""
    columns = zip(*(found.values() for found in values.values()), strict=True)
    return {query: dict(zip(values, each, strict=True)) for query, each in zip(queries, columns, strict=True)}


def _named_hits(heads: Ranked, ids: Sequence[str]) -> Iterator[list[tuple[str, float]]]:
    """Ids of chunks and their scores, to six digits: more would be noise."""
    if not heads:
        return
    rounded = np.concatenate([scores for _, scores in heads]).astype(np.float64).round(6).tolist()
    start = 0
    for indices, _ in heads:
        names = [ids[index] for index in indices.tolist()]
        yield list(zip(names, rounded[start : start + len(names)], strict=True))
        start += len(names)
