"""What a run folder holds, read once: every part may be missing, none is ever written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vectune.board import Board
from vectune.dataset import RetrievalDataset
from vectune.errors import InputError
from vectune.runs import Json

STAGES = ("chunks", "queries", "dataset", "tune", "blend", "evaluate", "retriever", "report")


@dataclass(frozen=True)
class Material:
    """The finished files of a run.

    Attributes:
        folder: the run folder.
        run: run.json; empty where there is none.
        stages: stage → its manifest (key, seconds, summary).
        board: board.json, or None.
        verdict: verdict.json, or None.
        artifact: model/vectune.json, or None.
        retriever: retriever/retriever.json, or None.
        curve: curve.json of the run, or of its model where ``vectune tune --curve`` wrote it, or None.
        events: the events of events.jsonl that the report draws: train, dev, done.
        dataset: the dataset folder of the run, or None.
    """

    folder: Path
    run: Json
    stages: dict[str, Json]
    board: Board | None
    verdict: Json | None
    artifact: Json | None
    retriever: Json | None
    curve: Json | None
    events: list[Json]
    dataset: RetrievalDataset | None


def read_material(folder: Path) -> Material:
    """Read a run folder.

    Raises:
        InputError: it is no folder, holds nothing a report could show, or one of its files is broken.
        DatasetError: its dataset folder is broken.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder.", "Give the folder that `vectune run ... --out` wrote.")
    has_board = (folder / "board.json").exists()
    has_dataset = (folder / "dataset" / "corpus.jsonl").exists()
    if not has_board and not has_dataset:
        raise InputError(
            f"{folder} holds neither board.json nor dataset/: there is nothing to report.",
            "Give the folder that `vectune run ... --out` wrote; an unfinished run goes on when it is started again.",
        )
    return Material(
        folder=folder,
        run=read_object(folder / "run.json") or {},
        stages=dict(_stages(folder / "stages")),
        board=Board.read(folder / "board.json") if has_board else None,
        verdict=read_object(folder / "verdict.json"),
        artifact=read_object(folder / "model" / "vectune.json"),
        retriever=read_object(folder / "retriever" / "retriever.json"),
        curve=read_object(folder / "curve.json") or read_object(folder / "model" / "curve.json"),
        events=list(_events(folder / "events.jsonl")),
        dataset=RetrievalDataset.read(folder / "dataset") if has_dataset else None,
    )


def read_object(path: Path) -> Json | None:
    """The JSON object in a file; None where there is no file.

    Raises:
        InputError: the file holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON ({error}).", path=path) from None
    if not isinstance(value, dict):
        raise InputError("is not a JSON object.", path=path)
    return value


def _stages(folder: Path) -> Iterator[tuple[str, Json]]:
    """In the order in which they run; times of files do not tell it: copying a run changes them."""
    found = {path.stem: read_object(path) or {} for path in sorted(folder.glob("*.json"))}
    for name in [*(known for known in STAGES if known in found), *(name for name in found if name not in STAGES)]:
        yield name, found[name]


def _events(path: Path) -> Iterator[Json]:
    """Events of the kinds that are drawn; a killed run may leave a broken line, which is passed over."""
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("kind") in ("train", "dev", "done", "warning"):
                yield event
