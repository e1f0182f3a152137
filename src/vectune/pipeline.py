"""The whole of vectune on one page: the stages in order, and each stage alone.

documents → chunks → queries → dataset (split by document) → tune → board → verdict → report

``prepare``, ``tune``, ``evaluate``, ``report`` and ``run`` are what the command line calls; their results are typed.
Every stage reads what the one before wrote and nothing else.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectune import __version__
from vectune.config import Config
from vectune.dataset import RetrievalDataset
from vectune.progress import SILENT, Progress
from vectune.runs import (
    Json,
    RunFolder,
    check_output,
    hash_files,
    hash_of,
    locked,
    processor_name,
    versions,
    work_folder,
    write_json,
)

if TYPE_CHECKING:
    from vectune.evaluation import Board
    from vectune.protocols import Embedder
    from vectune.training.result import TuneResult

Paths = Sequence[str | Path]


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
    paths: Paths, out: str | Path, config: Config | None = None, *, progress: Progress = SILENT
) -> RetrievalDataset:
    """Documents → a dataset folder with written queries, split by document.

    Args:
        paths: files and folders.
        out: the dataset folder to write.
        config: all options; the parts model, llm, seed, documents, chunks, queries and split count here.

    Raises:
        DocumentError: a path is missing, or nothing in it can be read.
        OutputError: ``out`` holds something else.
    """
    target = Path(out)
    check_output(target, marker="dataset.json")
    with work_folder(target) as work:
        _go(RunFolder(work), preparing(work, paths, target, config or Config(), progress), progress)
    return RetrievalDataset.read(target)


def tune(
    dataset: str | Path | RetrievalDataset,
    out: str | Path,
    config: Config | None = None,
    *,
    progress: Progress = SILENT,
) -> TuneResult:
    """Dataset → an artifact folder: a tuned model or an adapter, never worse on dev than the base.

    Args:
        dataset: a dataset folder in the BEIR layout, another format that ``formats.open_dataset`` knows,
            or one in memory.
        out: the artifact folder to write; checkpoints are beside it until it is finished.
        config: all options; the parts model, seed and tune count here.
    """
    from vectune.formats import open_dataset
    from vectune.training.methods import tune_method

    target = Path(out)
    check_output(target, marker="vectune.json")
    config = config or Config()
    with work_folder(target) as work:
        return tune_method(open_dataset(dataset), target, config.model, config.tune, config.seed, progress, work)


def evaluate(
    dataset: str | Path | RetrievalDataset,
    models: Sequence[str | Embedder],
    split: str = "test",
    config: Config | None = None,
    *,
    progress: Progress = SILENT,
) -> Board:
    """Score models on one split of a dataset, all in the same way.

    Args:
        dataset: as for ``tune``.
        models: names in DESIGN's grammar (``bm25``, a hub id, an artifact folder, ``hybrid:NAME`` …) or embedders.
        split: ``train``, ``dev`` or ``test``.
    """
    from vectune.evaluation import evaluate as score
    from vectune.formats import open_dataset

    return score(open_dataset(dataset), models, split, (config or Config()).evaluate, progress=progress)


def report(run_folder: str | Path) -> Path:
    """A finished run → its ``report.html``; only reads what the run wrote."""
    from vectune.report import write_report

    return write_report(Path(run_folder))


def run(paths: Paths, out: str | Path, config: Config | None = None, *, progress: Progress | None = None) -> RunResult:
    """Everything: documents → dataset → tuned model → board → verdict → report, in one resumable run directory.

    Finished stages whose inputs are unchanged are skipped; the first unfinished one goes on where it stopped.
    """
    target, config = Path(out), config or Config()
    check_output(target, marker="run.json")
    progress = progress or Progress(target / "events.jsonl", terminal=False)
    with locked(target):
        write_run_file(target, paths, config)
        steps = [
            *preparing(target / "work", paths, target / "dataset", config, progress),
            *proving(target, config, progress),
        ]
        seconds = _go(RunFolder(target), steps, progress)
    return RunResult(target, tuple(seconds), seconds, target / "report.html")


@dataclass(frozen=True)
class Step:
    """One stage: what it writes, what it depends on besides the stage before, and the work itself."""

    name: str
    target: Path
    depends: tuple[Any, ...]
    work: Callable[[], Json]


def preparing(work: Path, paths: Paths, target: Path, config: Config, progress: Progress) -> list[Step]:
    """documents → chunks → queries → dataset."""
    from vectune.preparation import write_chunks, write_dataset, write_queries

    chunks, queries = work / "chunks", work / "queries.jsonl"
    return [
        Step(
            "chunks",
            chunks,
            (__version__, input_files(paths), config.model, config.documents, config.chunks),
            lambda: write_chunks(paths, chunks, config, progress),
        ),
        Step(
            "queries",
            queries,
            (config.llm, config.seed, config.queries, config.llm_queries),
            lambda: write_queries(chunks, queries, config, progress),
        ),
        Step("dataset", target, (config.split,), lambda: write_dataset(chunks, queries, target, config, progress)),
    ]


def proving(run: Path, config: Config, progress: Progress) -> list[Step]:
    """tune → board and verdict → report."""
    dataset, model, board = run / "dataset", run / "model", run / "board.json"

    def write_model() -> Json:
        from vectune.training.methods import tune_method

        result = tune_method(
            RetrievalDataset.read(dataset),
            model,
            config.model,
            config.tune,
            config.seed,
            progress,
            run / "work" / "tune",
        )
        return result.to_json()

    def write_board() -> Json:
        from vectune.evaluation import evaluate as score

        rows = ["bm25", config.model, str(model), f"hybrid:{model}"]
        scored = score(RetrievalDataset.read(dataset), rows, "test", config.evaluate, progress=progress)
        write_json(board, scored.to_json())
        return {"rows": len(scored.rows)}

    return [
        Step("tune", model, (config.tune, config.seed), write_model),
        Step("evaluate", board, (config.evaluate,), write_board),
        Step("report", run / "report.html", (), lambda: {"report": str(report(run))}),
    ]


def _go(folder: RunFolder, steps: list[Step], progress: Progress) -> dict[str, float]:
    """Do the steps that are not done, in order; returns the seconds of those that ran."""
    key, ran = "", {}
    for step in steps:
        key = hash_of([key, [repr(value) for value in step.depends]])
        stage, now = folder.stage(step.name, key, step.target, step.work)
        if now:
            ran[step.name] = stage.seconds
            progress.event("stage", name=step.name, seconds=stage.seconds)
    return ran


def input_files(paths: Paths) -> str:
    """Changes when a file under the paths does: what a repeated run compares."""
    return hash_files(
        file
        for path in map(Path, paths)
        for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
        if file.is_file()
    )


def write_run_file(run: Path, paths: Paths, config: Config) -> None:
    """run.json: the marker of a run directory, and how it was made."""
    created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    facts = {
        "vectune": __version__,
        "created": created,
        "command": " ".join(sys.argv),
        "config": config.to_json(),
        "seed": config.seed,
        "inputs": [str(path) for path in paths],
        "versions": versions(),
        "machine": {"system": platform.platform(), "processor": processor_name(), "cores": os.cpu_count()},
    }
    write_json(run / "run.json", facts)
