"""The comparison's bookkeeping: jobs are kept with what they were measured with; the pages say what is kept."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))  # at the end: its modules must not hide anybody's
provenance, results, page = (import_module(name) for name in ("provenance", "results", "results_page"))


def job(tool: str, name: str, seed: int = 0, test: float = 0.5, **changes: Any) -> dict[str, Any]:
    versions = {"vectune": "0.1.0"}
    return {
        "tool": tool, "set": name, "seed": seed, "state": "ok",
        "train": {"wall": 10.0, "cpu": 20.0, "peak_mib": 300, "threads": 2, "load": [1.0, 3.5], "others": 0.25,
                  "stages": {"a": 9.0}},
        "scores": {key: {"nDCG@10": test, "hit@5": test} for key in ("test", "hybrid", "bm25")},
        "others": {},
        "measured": {
            "date": "2026-01-02", "commit": "abc1234", "code": provenance.digest(results.TOOLS[tool].code()),
            "processor": "Abacus", "cores": 2, "system": "Linux", "versions": versions,
        },
        **changes,
    }  # fmt: skip


def kept(folder: Path, *jobs: dict[str, Any]) -> Any:
    for each in jobs:
        results.write_job(folder / f"{each['set']}-{each['tool']}-{each['seed']}.json", each)
    return page.Results(folder)


def test_gains_are_compared_on_the_sets_where_both_were_run(tmp_path: Path) -> None:
    found = kept(
        tmp_path,
        job("base", "emanual", test=0.4),
        job("base", "squad", test=0.6),
        job("llama-model", "emanual", test=0.5),
        job("full", "emanual", test=0.6),
        job("full", "emanual", seed=1, test=0.7),
        job("full", "squad", test=0.55),
    )
    table = page.gains(found)
    assert "| LlamaIndex SentenceTransformersFinetuneEngine | +.100 | — | — |" in table
    assert "| vectune full | +.250 | -.050 | +.100 (2.50 × on 1) |" in table
    assert "untuned base" not in table


def test_what_keeps_the_better_one_has_the_test_of_the_better_one_on_dev(tmp_path: Path) -> None:
    def on_dev(tool: str, name: str, dev: float, test: float, **changes: Any) -> dict[str, Any]:
        made = job(tool, name, test=test, **changes)
        made["scores"]["dev"] = {"nDCG@10": dev}
        return made

    stale = job("lora", "squad")["measured"] | {"code": "earlier", "date": "2025-12-31"}
    found = kept(
        tmp_path,
        on_dev("lora", "emanual", dev=0.7, test=0.5),
        on_dev("full", "emanual", dev=0.6, test=0.9),
        on_dev("lora", "squad", dev=0.4, test=0.8, measured=stale),
        on_dev("full", "squad", dev=0.5, test=0.3),
        on_dev("lora", "covid_qa", dev=0.5, test=0.3),
        on_dev("full", "legalbenchrag", dev=0.5, test=0.3),
    )
    made = {each["set"]: each for each in found.jobs if each["tool"] == "auto"}
    assert {name: each["scores"]["test"]["nDCG@10"] for name, each in made.items()} == {"emanual": 0.5, "squad": 0.3}
    assert (made["emanual"]["train"]["cpu"], made["emanual"]["train"]["peak_mib"]) == (40.0, 300)
    assert page.changed(made["squad"]) and not page.changed(made["emanual"]), "as old as the oldest of both"
    assert "| vectune auto | squad (0) | 2025-12-31 | abc1234 | changed |" in page.page(found)


def test_costs_on_two_machines_do_not_add_up(tmp_path: Path) -> None:
    lora, full = job("lora", "emanual"), job("full", "emanual")
    for each in (lora, full):
        each["scores"]["dev"] = {"nDCG@10": 0.5}
    lora["measured"] = lora["measured"] | {"processor": "Slide rule"}
    made = kept(tmp_path, lora, full).of("auto", "emanual")
    assert [each["train"] for each in made] == [{}]


def test_each_machine_has_its_own_costs_and_quality_is_of_all(tmp_path: Path) -> None:
    elsewhere = job("full", "emanual", seed=1, test=0.7)
    elsewhere["train"] = elsewhere["train"] | {"cpu": 999.0}
    elsewhere["measured"] = elsewhere["measured"] | {"processor": "Slide rule"}
    found = page.page(kept(tmp_path, job("base", "emanual"), job("full", "emanual", test=0.6), elsewhere))
    quality, cost = found.split("## Cost of training")
    assert "| vectune full | .650 ± .071 |" in quality
    assert "| vectune full | emanual (1) | 2026-01-02 | abc1234 | the same | Slide rule |" in quality
    usual, other = cost.split("### On Slide rule")
    assert "| vectune full | 20 |" in usual and "999" not in usual
    assert "| vectune full | 999 |" in other and "| vectune full | 20 |" not in other


def test_a_partly_filled_table_says_what_is_missing(tmp_path: Path) -> None:
    found = kept(
        tmp_path,
        job("base", "emanual", test=0.4),
        job("base", "squad", test=0.6),
        job("full", "emanual", test=0.5),
        job("full", "emanual", seed=1, test=0.7),
        job("lora", "emanual", state="failed", message="ImportError: no peft", scores={}, train={}),
        job("trainer", "squad", state="timeout", message="over 20 minutes", scores={}, train={}),
    )
    text = page.page(found)
    assert "| vectune full | .600 ± .141 | — | — |" in text, (
        "two seeds of one set, the other not run: no mean over sets"
    )
    assert "| untuned base | .400 | .600 | .500 |" in text
    assert "vectune lora, emanual, seed 0: failed: ImportError: no peft" in text and "| failed | — |" in text
    assert "seed 0: timeout: over 20 minutes" in text and "| — | too slow |" in text
    assert "| 2 | 1.0 → 3.5 | 25% |" in text
    assert "| vectune full | 10 ± 0\\* | — |" in text, "in company"
    assert page.page(page.Results(tmp_path / "none")).count("Not run yet.") > 3


def test_a_row_of_older_code_is_shown_as_such(tmp_path: Path) -> None:
    older = job("full", "squad")
    older["measured"] |= {"code": "00000000", "commit": "0ld0ne5"}
    text = page.measured(kept(tmp_path, job("full", "emanual"), older))
    assert "| emanual (0) | 2026-01-02 | abc1234 | the same |" in text
    assert "| squad (0) | 2026-01-02 | 0ld0ne5 | changed |" in text
    assert results.AGAIN["changed"](older) and not results.AGAIN["changed"](job("full", "emanual"))


def test_comments_are_no_change_and_code_is(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    digests = []
    for text in ('"""Says."""\nx = 1\n', '"""Says more."""\nx = 1  # one\n', "x = 2\n"):
        file.write_text(text)
        digests.append(provenance.digest([file]))
    assert digests[0] == digests[1] != digests[2]


def test_every_tool_is_made_of_something() -> None:
    assert all(tool.code() for tool in results.TOOLS.values())
    names = {file.name for file in results.TOOLS["full"].code()}
    assert {"finetune.py", "loop.py", "negatives.py"} <= names and "http.py" not in names


def test_what_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def work(job: Any, given: Namespace, peers: Path | None) -> dict[str, Any]:
        ran.append(job.name)
        return {"state": "ok", "train": {}, "scores": {"test": {"nDCG@10": 1 / 3}}, "others": {}}

    monkeypatch.setattr(results, "work", work)
    given = Namespace(measured=tmp_path, again=None)
    kept(tmp_path, job("lora", "squad", state="timeout", message="over 20 minutes"), job("adapter", "squad"))
    for each in (("adapter", 0), ("adapter", 1), ("lora", 1), ("lora", 0)):
        results.once(results.Job(each[0], "squad", each[1]), given, None)
    assert ran == ["squad-adapter-1"], "one was there; one timed out with another seed"
    new = json.loads((tmp_path / "squad-adapter-1.json").read_text())
    assert new["scores"] == {"test": {"nDCG@10": 0.33333}} and new["measured"]["code"]
    assert {"date", "commit", "processor", "versions"} <= new["measured"].keys()

    results.once(results.Job("lora", "squad", 0), Namespace(measured=tmp_path, again="failed"), None)
    assert ran[1:] == ["squad-lora-0"]


def test_a_process_is_measured_and_its_failure_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    done = results._call([sys.executable, "-c", "sum(range(2_000_000))", "-"], log, 60)
    assert done["wall"] >= 0 and done["peak_mib"] > 3 and len(done["load"]) == 2 and done["threads"] == 3
    assert results._call([sys.executable, "-c", "raise ValueError('so')", "-"], log, 60) == {
        "state": "failed", "message": "ValueError: so",
    }  # fmt: skip
    assert results._call([sys.executable, "-c", "import time; time.sleep(60)", "-"], log, 0.3)["state"] == "timeout"


COMMITTED = sorted((ROOT / "benchmarks/measured").glob("*.json"))


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_a_committed_job_says_with_what_it_was_measured(file: Path) -> None:
    found = json.loads(file.read_text())
    assert file.stem == results.Job(found["tool"], found["set"], found["seed"]).name
    assert found["tool"] in results.TOOLS and found["set"] in results.SETS
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found["measured"]["date"]) and found["measured"]["versions"]
    assert found["message"] if found["state"] != "ok" else found["scores"]["test"]["nDCG@10"] > 0


def test_the_pages_are_written_from_the_committed_jobs() -> None:
    """README ← RESULTS.md ← the JSONs: a figure that was edited by hand, or a page not written again, fails."""
    found = page.Results(ROOT / "benchmarks/measured")
    table = page.quality(found, page.score("test"), page.score("bm25"))
    written = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    assert table in written and page.failures(found) in written
    assert page.readme_table(found) in (ROOT / "README.md").read_text(encoding="utf-8"), "results.py --render"


def test_a_hurried_training_gets_no_time_from_others_on_the_machine() -> None:
    assert results.alone({"wall": 100.0, "cpu": 120.0, "threads": 2}) == 60.0
    assert results.alone({"wall": 100.0, "cpu": 250.0, "threads": 2}) == 100.0
    assert results.alone({"wall": 100.0, "cpu": 40.0}) == 100.0, "it was not recorded how many threads there were"


def test_a_tool_that_goes_on_from_anothers_model_needs_it_and_costs_both(tmp_path: Path) -> None:
    tail, given = results.Job("full-tail", "squad", 1), Namespace(measured=tmp_path, out=tmp_path / "out")
    kept(tmp_path, job("full", "squad", seed=1))
    missing = results._started(tail, given)
    assert missing["state"] == "failed" and "full has left no model" in missing["message"]
    (tmp_path / "out/work/squad-full-1/model").mkdir(parents=True)
    started = results._started(tail, given)
    assert started["model"].endswith("squad-full-1/model")
    both = results.together({"wall": 1.25, "cpu": 2.0, "peak_mib": 200}, started)
    assert both == {"wall": 11.2, "cpu": 22.0, "peak_mib": 300}
    assert results._started(results.Job("full", "squad", 1), given) == {}, "most tools start from the base"
