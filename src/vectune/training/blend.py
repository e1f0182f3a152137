"""Tuning without training: a lexical tail behind the base's vectors, fitted on the corpus alone.

The default where queries were written from the corpus itself: such queries share words with their chunks, so a dev
split of them praises whatever favours shared words and cannot choose a weight. The weight is a constant then, small
enough not to hurt where people's words are not the corpus's. Real judgments choose it otherwise.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vectune.adapters import read_json
from vectune.blend import Blend
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import name_to_open
from vectune.embedders.models import ARTIFACT_FILE, INNER
from vectune.errors import DatasetError
from vectune.progress import SILENT, Progress
from vectune.runs import check_output, write_json, writing
from vectune.splits import with_dev
from vectune.tail import fit_tail
from vectune.training.dev import MANY
from vectune.training.folders import marker
from vectune.training.problem import Positives, judged_among, ndcg_among
from vectune.training.result import TuneResult
from vectune.training.saving import told

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Embedder, Vectors

UNLABELLED_WEIGHT = 0.2  # see docs/unlabelled.md for how it was chosen
MOST_QUERIES = 2_000  # of train that help to choose one number
FEW = 30  # judged queries below which the constant is the better choice
WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75)


@dataclass(frozen=True)
class BlendOptions:
    """How the tail is fitted.

    Attributes:
        dimensions: of the tail; the whole vector has one more than base and tail together. More follow BM25 closer;
            there are never more than chunks. 639 make 1,024 in all over a base of 384, and keep most of the gain.
        weight: of the tail, 0 to 1. None: chosen on real judgments where there are some, else 0.2.
        language: see ``lexical.Analyzer``.
    """

    dimensions: int = 1151
    weight: float | None = None
    language: str | None = "en"


def tune_blend(
    dataset: RetrievalDataset,
    out: Path,
    embedder: Embedder,
    seed: int = 0,
    options: BlendOptions = BlendOptions(),
    progress: Progress = SILENT,
) -> TuneResult:
    """Fit a blend over an embedder and write its artifact folder.

    Args:
        dataset: its corpus is fitted; judgments are used only where people made them, and only for the weight.
        out: the artifact folder.
        embedder: the base; with its cache around it, each text is embedded once, ever.
        seed: of the decomposition and of the dev split.
        options: see ``BlendOptions``.
        progress: told what is chosen.

    Raises:
        DatasetError: the corpus holds no words.
        OutputError: ``out`` holds something that vectune did not write, or cannot be written.
    """
    check_output(out, ARTIFACT_FILE)
    started = time.perf_counter()
    judged = _judged(dataset, embedder, seed, options, progress)
    weight, note = _choose(dataset, options, judged)
    progress.say(note)
    result = TuneResult(
        path=out,
        method="blend",
        model=name_to_open(embedder),
        base_fingerprint=embedder.fingerprint,
        dev_before=judged.dev_score(0.0),
        dev_after=judged.dev_score(weight),
        chosen=judged.describe(weight),
        seconds=round(time.perf_counter() - started, 2),
        notes=(note,),
    )
    with writing(out) as beside:
        beside.mkdir(parents=True)
        judged.blend.weighing(weight).save(beside)
        write_json(beside / ARTIFACT_FILE, marker("blend", result))
    return result


def tail_behind(
    dataset: RetrievalDataset,
    tuned: TuneResult,
    out: Path,
    embedders: tuple[Embedder, Embedder],
    seed: int = 0,
    options: BlendOptions = BlendOptions(),
    progress: Progress = SILENT,
) -> TuneResult:
    """Put a lexical tail behind a tuned model's vectors and write both as one folder.

    The model finds its train queries almost without fail, so those of dev alone choose the weight. Where the tail adds
    nothing there, the folder is the tuned model's as it was.

    Args:
        dataset: with the dev split that chose the model's weights.
        tuned: the model; a copy of its folder goes into ``out``.
        out: the artifact folder.
        embedders: the untuned model and the tuned one, with their cache.
        seed: of the decomposition.
        options: see ``BlendOptions``.
        progress: told what is chosen.

    Returns:
        The result; with a tail its figures on dev are among all chunks, or very many (training looks at fewer).

    Raises:
        DatasetError: the corpus holds no words.
        OutputError: ``out`` holds something that vectune did not write, or cannot be written.
    """
    check_output(out, ARTIFACT_FILE)
    started = time.perf_counter()
    base, embedder = embedders
    judged = _judged(dataset, embedder, seed, options, progress, most_train=0)
    weight, note = _choose(dataset, options, judged)
    without, with_it = judged.dev_score(0.0), judged.dev_score(weight)
    gains = with_it > without
    note += (
        f"; nDCG@10 on dev, among {len(judged.contents):,} chunks, is {without:.3f} without and {with_it:.3f} with it"
    )
    note += "." if gains else ": it is left out."
    progress.say(note)
    result = replace(
        tuned,
        path=out,
        seconds=round(tuned.seconds + time.perf_counter() - started, 1),
        notes=(*tuned.notes, note),
    )
    if gains:
        result = replace(
            result,
            dev_before=round(judged.dev_score_of(base), 5),
            dev_after=round(with_it, 5),
            chosen={**tuned.chosen, "lexical_tail": judged.describe(weight)},
        )
    _write_over(tuned.path, judged.blend.weighing(weight) if gains else None, result)
    return result


def _write_over(model: Path, blend: Blend | None, result: TuneResult) -> None:
    """The artifact folder: the tuned model's with other words on it, or a blend's with the tuned model inside."""
    kept = {**read_json(model / ARTIFACT_FILE), **told(result)}
    with writing(result.path) as beside:
        shutil.copytree(model, beside if blend is None else beside / INNER)
        if blend is not None:
            blend.save(beside)
            kept["kind"] = "blend"
        write_json(beside / ARTIFACT_FILE, kept)


@dataclass(frozen=True)
class _Judged:
    """Judged queries among chunks of the corpus: all, or ``MANY`` and the judged ones.

    Attributes:
        blend: fitted to the corpus, at weight 0.
        contents, documents: of the chunks; their vectors have the tail.
        vectors, texts: of the queries, without the tail; the first ``dev`` of them are the dev split's.
        positives: rows of ``documents`` that answer each query.
        dev: queries of the dev split.
    """

    blend: Blend
    contents: Sequence[str]
    documents: Vectors
    vectors: Vectors
    texts: Sequence[str]
    positives: Positives
    dev: int

    def scores(self, weight: float) -> NDArray[np.float64]:
        """nDCG@10 of every query, shape (len(self.texts),)."""
        return ndcg_among(self.blend.weighing(weight).queries(self.vectors, self.texts), self.documents, self.positives)

    def dev_score(self, weight: float) -> float:
        return float(self.scores(weight)[: self.dev].mean()) if self.dev else 0.0

    def dev_score_of(self, other: Embedder) -> float:
        """What another embedder has on dev, among the same chunks."""
        queries, documents = other.embed_queries(self.texts[: self.dev]), other.embed_documents(self.contents)
        return (
            float(ndcg_among(queries, documents, self.positives.take(slice(0, self.dev))).mean()) if self.dev else 0.0
        )

    def describe(self, weight: float) -> dict[str, float]:
        """For ``chosen`` in the result."""
        tail = self.blend.tail
        return {"weight": weight, "tail": tail.dim, "dim": self.blend.dim, "words": len(tail.vocabulary)}


def _judged(
    dataset: RetrievalDataset,
    embedder: Embedder,
    seed: int,
    options: BlendOptions,
    progress: Progress,
    most_train: int = MOST_QUERIES,
) -> _Judged:
    """A blend of the corpus, and what judges it: dev first, then as much of train; nothing where no dev can be cut."""
    contents = [chunk.content for chunk in dataset.corpus.values()]
    documents = embedder.embed_documents(contents)
    with progress.task("fitting the lexical tail", unit="chunks") as task:
        tail = fit_tail(contents, options.dimensions, options.language, seed)
        blend = Blend.fit(tail, contents, documents, 0.0)
        task.advance(len(contents))
    try:
        dataset = with_dev(dataset, seed)
    except DatasetError:
        dataset = replace(dataset, qrels={})
    dev, train = dataset.qrels.get("dev", {}), dataset.qrels.get("train", {})
    qrels = dict([*dev.items(), *list(train.items())[:most_train]])
    texts = [dataset.queries[key].text for key in qrels]
    vectors = embedder.embed_queries(texts) if texts else np.zeros((0, embedder.dim), np.float32)
    rows, positives = judged_among(qrels, {key: row for row, key in enumerate(dataset.corpus)}, MANY)
    among = [contents[row] for row in rows]
    return _Judged(blend, among, blend.documents(documents[rows], among), vectors, texts, positives, len(dev))


def _choose(dataset: RetrievalDataset, options: BlendOptions, judged: _Judged) -> tuple[float, str]:
    """The weight, and why. No judgment takes part in the fit, so train and dev queries alike may choose one number."""
    if options.weight is not None:
        return options.weight, f"weight {options.weight} of the lexical tail, as asked for"
    if dataset.generated or len(judged.texts) < FEW:
        why = (
            "queries were generated"
            if dataset.generated
            else f"{len(judged.texts)} judged queries are too few to choose"
        )
        return UNLABELLED_WEIGHT, f"weight {UNLABELLED_WEIGHT} of the lexical tail, the constant: {why}"
    means = {weight: float(judged.scores(weight).mean()) for weight in WEIGHTS}
    best = max(means, key=lambda weight: (round(means[weight], 6), -weight))
    return best, f"weight {best} of the lexical tail, chosen on {len(judged.texts)} judged queries"
