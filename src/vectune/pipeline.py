"""The whole of vectune on one page: the stages in order, and each stage alone.

documents → chunks → queries → dataset (split by document) → tune → board → verdict → report

``prepare``, ``tune``, ``evaluate``, ``report`` and ``run`` are what the command line calls; their results are typed.
Every stage reads what the one before wrote and nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from vectune import __version__
from vectune.config import Config
from vectune.dataset import RetrievalDataset, labels_hash
from vectune.documents import find_files
from vectune.embedders.models import ARTIFACT_FILE
from vectune.embedders.settings import decisive
from vectune.errors import DocumentError, InputError, OutputError, UsageError
from vectune.formats import holds_labels, open_dataset, read_queries
from vectune.progress import SILENT, Progress
from vectune.runs import (
    Json,
    RunFolder,
    cache_folder,
    check_output,
    hash_files,
    hash_of,
    held,
    object_in,
    processor_name,
    versions,
    work_folder,
    write_json,
)
from vectune.splits import check_contamination, summary
from vectune.training.options import TuneOptions

if TYPE_CHECKING:
    from vectune.curve import Curve
    from vectune.evaluation import Board
    from vectune.protocols import Embedder
    from vectune.queries.pricing import CostEstimate
    from vectune.training.result import TuneResult

Paths = Sequence[str | Path]
UNLABELLED_NOTE = (
    "The queries were cut from the documents, so they cannot say what people's own words need. What is served is the "
    "blend: the untuned model with a cautious share of BM25 in the same vector. On seven sets with people's questions "
    "it helped on each (docs/unlabelled.md). With an LLM or judged queries, dev chooses instead."
)
RUN_MINUTES = 6.0  # tuning in a run ends while its user watches; [tune] max_minutes in the configuration overrules it


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: the run directory.
        ran: names of the stages that ran now; empty when everything was already done.
        seconds: stage → its duration when it ran, in seconds.
        report: the HTML report.
    """

    path: Path
    ran: tuple[str, ...]
    seconds: dict[str, float]
    report: Path


def prepare(
    paths: str | Path | Paths, out: str | Path, config: Config = Config(), *, progress: Progress = SILENT
) -> RetrievalDataset:
    """Documents → a dataset folder with written queries, split by document.

    Args:
        paths: files and folders.
        out: the dataset folder to write.
        config: all options; the parts model, llm, seed, documents, chunks, queries, llm_queries and split count here.

    Raises:
        DocumentError: a path is missing, or nothing in it can be read.
        OutputError: ``out`` holds something else.
    """
    target = Path(out)
    check_output(target, marker="dataset.json")
    check_unedited(target)
    paths = check_inputs(paths, config.ignore_labels)
    with work_folder(target) as work:
        folder = RunFolder(work)
        go(folder, preparing(folder, paths, target, config.seeded(), progress), progress)
    return RetrievalDataset.read(target)


def estimate(paths: str | Path | Paths, config: Config, *, progress: Progress = SILENT) -> CostEstimate:
    """What the LLM would be asked and what it would cost, before anything is sent.

    Args:
        paths: files and folders.
        config: names the LLM; the parts documents, chunks and llm_queries count here.
        progress: where to report.

    Raises:
        UsageError: the configuration names no LLM.
    """
    from tempfile import TemporaryDirectory

    from vectune import preparation as stages
    from vectune.corpus import read_corpus
    from vectune.queries.llm import LLMWriter

    if config.llm is None:
        raise UsageError("queries are written without an LLM: there is nothing to pay.", "Name one with --llm.")
    paths = check_inputs(paths, config.ignore_labels)
    with TemporaryDirectory() as folder:
        stages.write_chunks(paths, Path(folder) / "chunks", config, progress, config.files)
        drawn = stages.draw_chunks(read_corpus(Path(folder) / "chunks"), config.most_chunks, config.seed)
        return LLMWriter(config.llm, config.llm_queries).estimate(drawn)


def tune(
    dataset: str | Path | RetrievalDataset, out: str | Path, config: Config = Config(), *, progress: Progress = SILENT
) -> TuneResult:
    """Dataset → an artifact folder: a tuned model or an adapter, never worse on dev than the base.

    Args:
        dataset: a dataset folder in the BEIR layout, another format that ``formats.open_dataset`` knows, or one in
            memory.
        out: the artifact folder to write; checkpoints are beside it until it is finished.
        config: all options; the parts model, seed and tune count here.

    Raises:
        DatasetError: the dataset is broken or has no train judgments.
        ContaminationError: its splits overlap, and the configuration does not allow it.
        ModelError: there is no such model, or it cannot be trained.
        OutputError: ``out`` holds something else.
    """
    from vectune.training.methods import tune_with

    target = Path(out)
    check_output(target, marker=ARTIFACT_FILE)
    opened = opened_dataset(dataset)
    warnings = contamination(opened, config, progress)
    with work_folder(target) as work:
        result = tune_with(opened, target, config.seeded().tune, progress, work, config.models)
    return replace(result, notes=(*result.notes, *warnings))


def explain(dataset: str | Path | RetrievalDataset, config: Config = Config()) -> list[tuple[str, str, str]]:
    """What ``tune`` would choose for this dataset: what, its value, and why. Trains nothing."""
    from vectune.training.methods import explain as explain_tuning

    return explain_tuning(opened_dataset(dataset), config.seeded().tune)


def check_curve(dataset: str | Path | RetrievalDataset, config: Config) -> None:
    """Refuse a curve over train queries where none is learnt from.

    Raises:
        UsageError: the method is a blend.
    """
    from vectune.training.methods import method_for

    if method_for(opened_dataset(dataset), config.seeded().tune) == "blend":
        raise UsageError(
            "--curve: a blend learns from the documents alone; other train queries would not change it.",
            "Leave out --curve, or name another --method.",
        )


def curve(
    dataset: str | Path | RetrievalDataset,
    config: Config = Config(),
    *,
    whole: str | Path | None = None,
    progress: Progress = SILENT,
) -> Curve:
    """Would more data help? Tunes on 25, 50 and 100 % of the train queries, scores on dev, and fits the trend.

    Args:
        dataset, config: as for ``tune``.
        whole: what was tuned on all of it with this configuration, if it is at hand; it need not be done again.
        progress: where to report.

    Raises:
        UsageError: the method learns from no query.
    """
    from tempfile import TemporaryDirectory

    from vectune.curve import WHOLE, learning_curve
    from vectune.training.methods import tune_with

    opened = opened_dataset(dataset)
    check_curve(opened, config)
    options = config.seeded().tune
    with TemporaryDirectory() as folder:

        def tuned(part: RetrievalDataset, name: str) -> str:
            if whole is not None and name == WHOLE:
                return str(whole)
            return str(tune_with(part, Path(folder) / name, options, progress, models=config.models).path)

        return learning_curve(opened, options.model, tuned, seed=config.seed, progress=progress, settings=config.models)


def evaluate(
    dataset: str | Path | RetrievalDataset,
    models: str | Embedder | Sequence[str | Embedder],
    split: str = "test",
    config: Config = Config(),
    *,
    progress: Progress = SILENT,
) -> Board:
    """Score models on one split of a dataset, all in the same way.

    Args:
        dataset: as for ``tune``.
        models: names as in docs/reference/options.md (``bm25``, an artifact folder, ``hybrid:NAME`` …) or embedders.
        split: ``train``, ``dev`` or ``test``.
        config: all options; the parts seed and evaluate count here.

    Raises:
        DatasetError: the dataset is broken or has no such split.
        ContaminationError: its splits overlap, and the configuration does not allow it.
        ModelError: a model cannot be loaded or answers nonsense.
    """
    from vectune.evaluation import evaluate as score

    opened = opened_dataset(dataset)
    warnings = contamination(opened, config, progress)
    models = models if isinstance(models, Sequence) and not isinstance(models, str) else [models]
    board = score(opened, models, split, config.seeded().evaluate, progress, config.models)
    return replace(board, notes=(*board.notes, *warnings))


def guard(
    general: str | Path | RetrievalDataset, models: Sequence[str], board: Board, config: Config, progress: Progress
) -> Board:
    """Score rows of a board on the test split of a set that nothing is tuned on, hybrids at the weight they have there.

    Its other splits do not matter.
    """
    from vectune.evaluation import evaluate as score

    weights = {row.name: float(row.details["weight"]) for row in board.rows if "weight" in row.details}
    return score(opened_dataset(general), models, "test", config.seeded().evaluate, progress, config.models, weights)


def report(run_folder: str | Path) -> Path:
    """A finished run → its ``report.html`` and the card of its model; otherwise only reads what the run wrote.

    Raises:
        InputError: the folder is no finished run.
    """
    from vectune.modelcard import write_model_card
    from vectune.report import write_report

    folder = Path(run_folder)
    if (folder / "run.json").exists() and not (folder / "board.json").exists():
        raise InputError(f"{folder}: the run is not finished: it has no board yet.", "Start it again: it goes on.")
    if (folder / "model" / ARTIFACT_FILE).exists():
        write_model_card(folder)
    return write_report(folder)


def run(
    paths: str | Path | Paths, out: str | Path, config: Config = Config(), *, progress: Progress | None = None
) -> RunResult:
    """Everything: documents → dataset → tuned model → board → verdict → report, in one resumable run directory.

    Finished stages whose inputs are unchanged are skipped; the first unfinished one goes on where it stopped.

    Args:
        paths: files and folders.
        out: the run directory.
        config: all options.
        progress: where to report; None writes ``events.jsonl`` in the run directory and shows nothing.
    """
    target = Path(out)
    from vectune.training.methods import checked_method

    check_output(target, marker="run.json")
    paths = check_inputs(paths, config.ignore_labels)
    progress = progress or Progress(target / "events.jsonl", terminal=False)
    config = config.seeded()
    if checked_method(config.tune) not in ("adapter", "blend"):  # checked before anything is paid for
        config = config.limited(RUN_MINUTES)
    with held(target):
        if (target / "run.json").exists():
            tell_other_inputs(target, paths, progress)
        else:  # the marker, without which a killed start could not go on
            write_run_file(target, paths, config)
        folder = RunFolder(target)
        steps = [
            *preparing(folder, paths, target / "dataset", config, progress),
            *proving(target, config, progress),
        ]
        seconds = go(folder, steps, progress, lambda: write_run_file(target, paths, config))
        if object_in(target / "run.json").get("config") != json.loads(json.dumps(config.to_json())):
            write_run_file(target, paths, config)  # options that no stage depends on, or a kill after the first stage
    return RunResult(target, tuple(seconds), seconds, target / "report.html")


def opened_dataset(dataset: str | Path | RetrievalDataset) -> RetrievalDataset:
    """A dataset as it is, or read from where it is."""
    return dataset if isinstance(dataset, RetrievalDataset) else open_dataset(dataset)


def contamination(dataset: RetrievalDataset, config: Config, progress: Progress) -> tuple[str, ...]:
    """Check that the splits share nothing; the warning, where they do and that is allowed.

    Raises:
        ContaminationError: they do, and it is not allowed.
    """
    findings = check_contamination(dataset, allow=config.allow_contamination, options=config.split)
    if not findings:
        return ()
    progress.warn(summary(findings))
    return (summary(findings),)


@dataclass(frozen=True)
class Step:
    """One stage.

    Attributes:
        name: what it is called.
        target: what it writes.
        depends: what it depends on besides the stage before.
        work: does it; returns what the manifest keeps.
        check: raises what forbids it.
        labels: datasets whose queries and judgments it depends on: a person may have edited them.
    """

    name: str
    target: Path
    depends: tuple[Any, ...]
    work: Callable[[], Json]
    check: Callable[[], None] = lambda: None
    labels: tuple[Path, ...] = ()


def preparing(folder: RunFolder, paths: Paths, target: Path, config: Config, progress: Progress) -> list[Step]:
    """documents → chunks → queries → dataset."""
    from vectune import preparation as stages

    chunks, queries = folder.path / "work" / "chunks", folder.path / "work" / "queries.jsonl"

    def write_dataset() -> Json:
        facts = {**folder.summary("chunks"), **folder.summary("queries")}
        return stages.write_dataset(chunks, queries, target, config, facts)

    outputs = (folder.path, target, cache_folder(), *config.files)  # they may lie among the documents
    reading = (
        __version__,
        input_files(paths, config, outputs),
        config.model,
        config.documents,
        config.chunks,
        config.duplicates,
        config.ignore_labels,
    )
    log = None if config.log is None else ([query.id for query in read_queries(config.log)], config.teacher)
    writer = stages.writer_key(config)
    writing = (config.llm, config.queries, config.llm_queries, config.filters, config.most_chunks, log, writer)
    return [
        Step("chunks", chunks, reading, lambda: stages.write_chunks(paths, chunks, config, progress, outputs)),
        Step(
            "queries",
            queries,
            (*writing, *decisive(config.model, config.models)),
            lambda: stages.write_queries(chunks, queries, config, progress),
        ),
        Step(
            "dataset", target, (config.split, config.allow_contamination), write_dataset, lambda: check_unedited(target)
        ),
    ]


def proving(run: Path, config: Config, progress: Progress) -> list[Step]:
    """dataset → tuned model → board and verdict → retriever → curve, if asked for → report."""
    from vectune.training.methods import checked_method, tune_with

    dataset, model, blend, board = run / "dataset", run / "model", run / "blend", run / "board.json"
    unlabelled = _unlabelled(config)
    method = checked_method(config.tune)
    served = str(blend) if unlabelled else f"hybrid:{model}"
    rows = ["bm25", config.model, *([served] if unlabelled else []), f"hybrid:{model}", str(model)]
    general = () if config.general is None else (Path(config.general),)

    def write_model() -> Json:
        options = replace(config.tune, method=method)
        work = run / "work" / "tune"
        return tune_with(RetrievalDataset.read(dataset), model, options, progress, work, config.models).to_json()

    def write_blend() -> Json:
        options = _of_a_blend(config.tune)
        return tune_with(RetrievalDataset.read(dataset), blend, options, progress, models=config.models).to_json()

    def write_board() -> Json:
        candidate = served if unlabelled else str(model)  # what nobody will serve needs no verdict
        return _score_and_judge(run, rows, candidate, config, progress)

    def write_retriever() -> Json:
        from vectune.board import Board
        from vectune.retriever import fusion_note, save_retriever

        # by its place: the folder may have had another name, or been named from elsewhere, when it was scored
        row = replace(Board.read(board).rows[rows.index(served)], name=served)
        opened = RetrievalDataset.read(dataset)
        save_retriever(run / "retriever", opened, row, progress=progress, settings=config.models)
        return {"chosen": UNLABELLED_NOTE if unlabelled else fusion_note(row.details)}

    def write_curve() -> Json:
        options = replace(config.tune, method=method)
        aside = Progress(run / "work" / "curve.jsonl", progress.terminal)  # the report draws the model's own training
        found = curve(dataset, replace(config, tune=options), whole=model, progress=aside)
        write_json(run / "curve.json", found.to_json())
        return {"advice": found.advice}

    asked = (config.model, config.tune.teacher or "")
    tuning = (config.tune.decisive(), *(decisive(name, config.models) for name in asked))
    scoring = (config.evaluate, config.verdict, config.general)
    return [
        Step("tune", model, tuning, write_model, labels=(dataset,)),
        *([Step("blend", blend, (), write_blend)] if unlabelled else []),
        Step("evaluate", board, scoring, write_board, lambda: check_general(config.general), labels=general),
        Step("retriever", run / "retriever", (), write_retriever),
        *([Step("curve", run / "curve.json", (), write_curve)] if config.curve else []),
        Step("report", run / "report.html", (), lambda: {"report": report(run).name}),
    ]


def _score_and_judge(run: Path, rows: list[str], candidate: str, config: Config, progress: Progress) -> Json:
    """Write the board and the verdict of a run; the board goes last."""
    from vectune.general import general_set
    from vectune.queries.extractive import ExtractiveWriter
    from vectune.verdict import verdict

    opened = RetrievalDataset.read(run / "dataset")
    scored = evaluate(opened, rows, "test", config, progress=progress)
    untouched: str | RetrievalDataset | None = config.general
    if untouched is None:
        untouched = general_set(opened, ExtractiveWriter(config.queries), seed=config.seed)
    compared = (config.model, candidate)
    guarded = None if untouched is None else guard(untouched, compared, scored, config, progress)
    judged = verdict(scored, opened, *compared, config.verdict, general=guarded)
    write_json(run / "verdict.json", judged.to_json())
    scored.write(run / "board.json")
    return {"verdict": judged.sentence}


def _unlabelled(config: Config) -> bool:
    """Whether the queries are cut from the documents and nobody says what to make of them: the blend is served then."""
    asked = config.tune.method is not None or config.tune.keep_index
    return config.llm is None and config.log is None and not asked


def _of_a_blend(tune: TuneOptions) -> TuneOptions:
    """Of the options what a blend reads: the others are about the training beside it."""
    chosen = {name: getattr(tune, name) for name in ("model", "seed", "precision", "trust_remote_code")}
    return TuneOptions("blend", **chosen)


def go(
    folder: RunFolder, steps: list[Step], progress: Progress, begun: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Do the steps that are not done, in order; returns the seconds of each.

    ``begun`` is called before the second of them, when the first has shown that the options can be used, and always
    before the last of all, which tells about the others.
    """
    key, ran = "", dict[str, float]()
    for place, step in enumerate(steps):
        key = hash_of([key, [repr(value) for value in step.depends], *map(labels_hash, step.labels)])
        stage = folder.finished(step.name, key, step.target)
        if stage is None:
            if not ran:
                for later in steps[place:]:
                    later.check()  # before anything is paid for
            if len(ran) == 1 or (not ran and step is steps[-1]):
                begun()
            progress.milestone(f"{step.name} …")
            progress.event("stage", name=step.name, state="started")
            stage = folder.stage(step.name, key, step.work)
            ran[step.name] = stage.seconds
            progress.event("stage", name=step.name, state="finished", seconds=stage.seconds)
        key += str(stage.summary.get("unfinished") or "")  # what it lacks, the later ones lack
    return ran


def check_inputs(paths: str | Path | Paths, ignore_labels: bool = False) -> list[Path]:
    """The paths as a list, ``~`` expanded; missing ones and data with labels are refused before anything is written.

    Raises:
        DocumentError: a path does not exist, or holds queries and their chunks; names it.
    """
    found = [Path(path).expanduser() for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    for path in found:
        if not path.exists():
            raise DocumentError(f"{path}: no such file or folder.", "Check the path; a relative one counts from here.")
        if not ignore_labels and holds_labels(path):
            raise DocumentError(
                f"{path} holds queries and the chunks that answer them; documents are wanted here.",
                f"To tune on its queries: vectune tune {quote(str(path))} --out tuned. "
                + (
                    f"To have others written for its chunks: vectune prepare {quote(str(path))} --ignore-labels "
                    "--out FOLDER."
                    if path.is_dir()
                    else "To read it as text all the same: name the folder that holds it."
                ),
            )
    return found


def check_general(general: str | None) -> None:
    """Refuse a general set that cannot be scored: reading, queries and tuning come before.

    Raises:
        DatasetError: it is missing or broken, or has no test split.
    """
    if general is not None:
        open_dataset(general).split("test")


def check_unedited(target: Path) -> None:
    """Refuse to replace a dataset that a person has edited or brought along.

    Raises:
        OutputError: its queries were reviewed or imported, or they or their judgments are not as they were written.
    """
    info = object_in(target / "dataset.json")
    edited = "labels" in info and info["labels"] != labels_hash(target)
    if edited or info.get("review") or info.get("imported"):
        raise OutputError(
            f"{target} holds queries or judgments that somebody has edited or imported.",
            "Name another --out, or move the folder away.",
        )


def tell_other_inputs(run: Path, paths: Paths, progress: Progress) -> None:
    """Warn where a run directory is about other documents: they are read in the place of those."""
    before = object_in(run / "run.json").get("inputs")
    if before and before != (now := [str(path) for path in paths]):
        progress.warn(f"{run} was about {', '.join(before)}; what it holds is made anew for {', '.join(now)}.")


def input_files(paths: Paths, config: Config, outputs: Sequence[Path]) -> str:
    """Changes when a file that would be read does: what a repeated run compares."""
    if config.ignore_labels:
        return hash_files(file for path in paths for file in sorted(Path(path).glob("*")) if file.is_file())
    return hash_files(found.path for found in find_files(paths, config.documents, [], outputs, []))


def write_run_file(run: Path, paths: Paths, config: Config) -> None:
    """run.json: the marker of a run directory, and how it was made."""
    facts = {
        "vectune": __version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(sys.argv),
        "config": config.to_json(),
        "seed": config.seed,
        "inputs": [str(path) for path in paths],
        "versions": dict(versions()),
        "machine": {"system": platform.platform(), "processor": processor_name(), "cores": os.cpu_count()},
    }
    write_json(run / "run.json", facts)
