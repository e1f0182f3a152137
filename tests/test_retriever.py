from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boards import dataset
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError, FingerprintError, InputError, ModelError
from vectune.evaluation import EvaluateOptions, evaluate
from vectune.retriever import Retriever, fusion_note, save_retriever

QUICK = EvaluateOptions(timed_queries=0, hybrid_step=0.25)


@pytest.fixture
def run(tmp_path: Path, tiny_bert: Path) -> Path:
    """A run folder with a dataset, a model and the hybrid's retriever."""
    dataset(12).write(tmp_path / "run" / "dataset")
    shutil.copytree(tiny_bert, tmp_path / "run" / "model")
    data = RetrievalDataset.read(tmp_path / "run" / "dataset")
    row = evaluate(data, [f"hybrid:{tmp_path / 'run' / 'model'}"], options=QUICK).rows[0]
    row = replace(row, details={**row.details, "weight": 0.5})
    save_retriever(tmp_path / "run" / "retriever", data, row)
    return tmp_path / "run"


def test_answers_are_the_boards(run: Path) -> None:
    data = RetrievalDataset.read(run / "dataset")
    bm25 = evaluate(data, ["bm25"], options=QUICK).rows[0]
    save_retriever(run / "lexical", data, bm25)
    retriever = Retriever.open(run / "lexical")
    assert retriever.facts["kind"] == "bm25" and retriever.facts["model"] is None
    for query in data.queries_of("test"):
        expected = [chunk for chunk, _ in bm25.rankings[query.id]]
        assert [hit.chunk.id for hit in retriever.search(query.text, 10)] == expected


def test_a_run_that_was_moved_still_answers(run: Path, tmp_path: Path) -> None:
    shutil.move(run, tmp_path / "elsewhere")
    retriever = Retriever.open(tmp_path / "elsewhere")
    assert retriever.facts["kind"] == "hybrid" and retriever.facts["model"] == "../model"
    hits = retriever.search("what is river detail1 item0", 3)
    assert hits[0].chunk.id == "d00c1" and len(hits) == 3
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_vectors_alone(run: Path) -> None:
    data = RetrievalDataset.read(run / "dataset")
    row = evaluate(data, [f"{run / 'model'}@16"], options=QUICK).rows[0]
    save_retriever(run / "dense", data, row)
    retriever = Retriever.open(run / "dense")
    assert retriever.facts["kind"] == "dense" and retriever.facts["dim"] == 16
    assert not (run / "dense" / "bm25").exists()
    query = data.queries_of("test")[0]
    assert [hit.chunk.id for hit in retriever.search(query.text)] == [chunk for chunk, _ in row.rankings[query.id]]
    assert retriever.search_all([]) == []


def test_changed_chunks_and_another_model_are_refused(run: Path) -> None:
    facts = json.loads((run / "retriever" / "retriever.json").read_text())
    (run / "retriever" / "retriever.json").write_text(json.dumps({**facts, "fingerprint": "another"}))
    with pytest.raises(FingerprintError):
        Retriever.open(run).search("river")
    lines = (run / "dataset" / "corpus.jsonl").read_text().replace("river", "brook")
    (run / "dataset" / "corpus.jsonl").write_text(lines)
    with pytest.raises(DatasetError, match="changed"):
        Retriever.open(run)


def test_damaged_vectors_are_named(run: Path) -> None:
    path = run / "retriever" / "vectors.npy"
    whole, vectors = path.read_bytes(), np.load(path)
    for kept in (0, len(whole) // 2):
        path.write_bytes(whole[:kept])
        with pytest.raises(ModelError, match=r"vectors\.npy: the stored vectors cannot be read"):
            Retriever.open(run).search("river")
    for other in (vectors[:-1], vectors[:, 1:], vectors.astype(np.float16)):
        np.save(path, other)
        with pytest.raises(ModelError, match=r"vectors\.npy: holds float"):
            Retriever.open(run).search("river")
    path.unlink()
    with pytest.raises(ModelError, match=r"vectors\.npy: the stored vectors cannot be read"):
        Retriever.open(run).search("river")


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"retriever\.json"):
        Retriever.open(tmp_path)
    (tmp_path / "retriever.json").write_text("{")
    with pytest.raises(InputError):
        Retriever.open(tmp_path)
    with pytest.raises(DatasetError, match="only in memory"):
        save_retriever(tmp_path / "r", dataset(), evaluate(dataset(), ["bm25"], options=QUICK).rows[0])


def test_what_is_served_reads_the_language_of_the_board(run: Path) -> None:
    data = RetrievalDataset.read(run / "dataset")
    row = evaluate(data, [f"hybrid:{run / 'model'}"], options=replace(QUICK, language="de")).rows[0]
    save_retriever(run / "retriever", data, replace(row, details={**row.details, "weight": 0.5}))
    assert json.loads((run / "retriever" / "retriever.json").read_text())["bm25"]["language"] == "de"


def test_what_dev_said() -> None:
    row = evaluate(dataset(), ["bm25"], options=QUICK).rows[0]
    assert fusion_note(row.details) == ""
    curve = {"0": 0.4, "0.5": 0.6, "1": 0.5}
    both = fusion_note({"weight": 0.5, "curve": curve})
    assert "weight 0.5 is best: nDCG@10 .600; the model .400, BM25 .500." in both
    assert "BM25 alone is best" in fusion_note({"weight": 1.0, "curve": {"0": 0.4, "1": 0.5}})
    told = fusion_note({"weight": 0.5, "curve": curve, "before_tuning": True})
    assert "; the model before tuning " in told  # dev's queries were fitted to: their figure is the base's


def test_what_ties_is_not_called_best() -> None:
    tied = fusion_note({"weight": 0.5, "curve": {"0": 0.95, "0.5": 1.0, "1": 1.0}})
    assert tied == "On dev the hybrid with BM25's weight 0.5 is as good as BM25 alone: nDCG@10 1.000; the model .950."
    both = fusion_note({"weight": 0.5, "curve": {"0": 1.0, "0.5": 1.0, "1": 1.0}})
    assert both.endswith("is as good as the model or BM25 alone: nDCG@10 1.000.")
    assert "as good as BM25" in fusion_note({"weight": 0.0, "curve": {"0": 0.5, "0.5": 0.4, "1": 0.5}})


def test_search_on_the_command_line(run: Path) -> None:
    data = RetrievalDataset.read(run / "dataset")
    save_retriever(run / "retriever", data, evaluate(data, ["bm25"], options=QUICK).rows[0])
    code = "from typer import Typer; from vectune.cli.search import search; a = Typer(); a.command()(search); a()"

    def ask(*arguments: str, lines: str = "") -> str:
        done = subprocess.run([sys.executable, "-c", code, str(run), *arguments], input=lines, capture_output=True,
                              text=True, check=True, env=os.environ)  # fmt: skip
        return done.stdout

    assert ask("what is river detail1 item0", "-k", "2").startswith("1. doc0")
    found = [json.loads(line) for line in ask("--json", lines="river detail1 item0\n\nzzz\n").splitlines()]
    assert found[0]["hits"][0]["id"] == "d00c1" and found[1] == {"query": "zzz", "hits": []}
