"""Ours and the peers' on the seven sets: one command, from nothing to RESULTS.md.

    python benchmarks/results.py ../shared/data                    all of it, but for what is there
    python benchmarks/results.py ../shared/data --sets emanual --seeds 0 --tools base,full
    python benchmarks/results.py ../shared/data --again changed    what was measured with code that has changed since
    python benchmarks/results.py --render                          the pages again, nothing is run

Makes the peers' environment under ``--out`` (exact versions: peers/requirements.txt), then runs the tools in turn on
each set and seed. A tool's training is a process of its own, so that its wall time, CPU seconds and peak memory are
its own; scoring is another process with vectune's own code, the same for everybody. Peers get the same train queries,
and dev's besides where they have no use for it. A job over ``--time-limit`` minutes is stopped, and its tool is not
run on that set again; a failure is kept with its message. Both are shown in the tables.

Every job leaves one JSON in ``benchmarks/measured``, which is committed: a job that has one is not run again, so the
command can be stopped and repeated, and days of work can be collected by several people. Each tells when it was
measured, at which commit, with which versions and processor, and how busy the machine was. RESULTS.md and the
README's table are written from the JSONs alone; what else a reader must know stands in measured/note.md, a line each.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from provenance import REQUIREMENTS, Company, digest, measured_with, sources

HERE = Path(__file__).parent
MEASURED = HERE / "measured"
SETS = ("emanual", "chunking_eval", "lyft_uber", "legalbenchrag", "covid_qa", "stackexchange", "squad")
SEEDS = (0, 1, 2)
OVER = "over"  # how the message of a job that was stopped begins
MESSAGE = 400  # characters of a failure that are kept


@dataclass(frozen=True)
class Tool:
    """A row of the tables.

    Attributes:
        title: what the tables call it.
        peer: the script in peers/ that trains; empty for ours.
        settings: given to the script, or to TuneOptions.
        seeded: a seed changes something; else it runs once.
        whole: the documents' vectors change too.
        after: another tool, whose model of the same set and seed this one starts from; its costs hold both.
        hurry: another tool, and the share of its wall time on the same set that this one may take.
        made_of: the module of vectune that does it, where it is ours.
        best_of: other tools, of whose results this one keeps what dev prefers; it is not run by itself.
    """

    title: str
    peer: str = ""
    settings: tuple[tuple[str, Any], ...] = ()
    seeded: bool = True
    whole: bool = False
    after: str = ""
    hurry: tuple[str, float] | None = None
    made_of: str = ""
    best_of: tuple[str, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether there is anything to train: the untuned base only reads."""
        return bool(self.peer) or "method" in dict(self.settings)

    def code(self) -> list[Path]:
        """The files that its figures hang on."""
        return [HERE / "peers" / f"{self.peer}.py", REQUIREMENTS] if self.peer else sources(self.made_of)


TRAINER = (("negatives", 3), ("epochs", 1), ("dev", False))
TRAINER_BEST = (("negatives", 1), ("epochs", 3), ("dev", True))
FINETUNE = "training.finetune"
TOOLS = {
    "base": Tool("untuned base", seeded=False, made_of="evaluation"),
    "base-512": Tool(
        "untuned base, reading 512 tokens", settings=(("reads", 512),), seeded=False, made_of="evaluation"
    ),
    "llama-model": Tool("LlamaIndex SentenceTransformersFinetuneEngine", "llama_model", (("dev", True),), whole=True),
    "llama-512": Tool(
        "LlamaIndex SentenceTransformersFinetuneEngine, reading 512 tokens",
        "llama_model",
        (("dev", True), ("reads", 512)),
        whole=True,
    ),
    "full": Tool("vectune full", settings=(("method", "full"),), whole=True, made_of=FINETUNE),
    "full-tail": Tool(
        "vectune full, with a lexical tail",
        settings=(("method", "full"), ("tail", True)),
        whole=True,
        after="full",
        made_of=FINETUNE,
    ),
    "quick": Tool(
        "vectune full, in a quarter of LlamaIndex's time",
        settings=(("method", "full"),),
        whole=True,
        hurry=("llama-model", 0.25),
        made_of=FINETUNE,
    ),
    "trainer": Tool("sentence-transformers trainer, 1 epoch", "trainer", TRAINER, whole=True),
    "lora": Tool("vectune lora", settings=(("method", "lora"),), whole=True, made_of=FINETUNE),
    "auto": Tool("vectune auto", best_of=("lora", "full"), made_of=FINETUNE),
    "trainer-best": Tool("sentence-transformers trainer, best of 3 epochs", "trainer", TRAINER_BEST, whole=True),
    "matryoshka": Tool(
        "vectune full, Matryoshka",
        settings=(("method", "full"), ("dimensions", (384, 256, 128, 64))),
        whole=True,
        made_of=FINETUNE,
    ),
    "llama-adapter": Tool("LlamaIndex EmbeddingAdapterFinetuneEngine", "llama_adapter"),
    "adapter": Tool("vectune adapter", settings=(("method", "adapter"),), made_of="training.adapter"),
    "query": Tool("vectune query", settings=(("method", "query"),), made_of="training.query"),
    "keep-index": Tool(
        "vectune auto, index kept", settings=(("method", "auto"), ("keep_index", True)), made_of="training.query"
    ),
    "llama-model-no-val": Tool(
        "LlamaIndex SentenceTransformersFinetuneEngine, val_dataset=None", "llama_model", (("dev", False),), False, True
    ),
    "unlabelled": Tool(
        "vectune blend, no labels", settings=(("method", "blend"),), seeded=False, made_of="training.blend"
    ),
}


@dataclass(frozen=True)
class Job:
    tool: str
    set: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.set}-{self.tool}-{self.seed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="the folder with the sets")
    parser.add_argument("--measured", type=Path, default=MEASURED, help="the folder with a JSON for each job")
    parser.add_argument("--out", type=Path, default=Path("results"), help="what is made on the way and not kept")
    parser.add_argument("--sets", type=_list, default=SETS)
    parser.add_argument("--seeds", type=_list, default=SEEDS)
    parser.add_argument("--tools", type=_list, default=tuple(TOOLS))
    parser.add_argument("--time-limit", type=float, default=20.0, help="minutes that one training may take")
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has peers/requirements.txt already")
    parser.add_argument("--no-others", action="store_true", help="do not score seed 0 on the sets it was not tuned on")
    parser.add_argument("--again", choices=tuple(AGAIN), help="repeat jobs that are there")
    parser.add_argument("--render", action="store_true", help="write the pages from what is there")
    given = parser.parse_args()
    if unknown := [name for name in given.tools if name not in TOOLS]:
        parser.error(f"no such tool: {', '.join(unknown)}; there are {', '.join(TOOLS)}")
    if not given.render:
        if given.data is None:
            parser.error("name the folder with the sets")
        run(given)
    subprocess.run([sys.executable, str(HERE / "results_page.py"), str(given.measured)], check=True)


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def run(given: argparse.Namespace) -> None:
    """Every job that has no JSON yet, ours and theirs in turn."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no training is left behind
    given.out = given.out.resolve()
    given.measured.mkdir(parents=True, exist_ok=True)
    peers = given.peers_python
    if any(TOOLS[name].peer for name in given.tools) and peers is None:
        peers = environment(given.out / "peers-venv")
    for seed in map(int, given.seeds):
        for name in given.sets:
            for tool in given.tools:
                if (seed == 0 or TOOLS[tool].seeded) and not TOOLS[tool].best_of:
                    once(Job(tool, name, seed), given, peers)


def environment(folder: Path) -> Path:
    """The interpreter of the peers' environment; made where it is missing, marked when it is whole."""
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        requirements = str(HERE / "peers" / "requirements.txt")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)
        ready.touch()
    return python


def changed(job: dict[str, Any]) -> bool:
    """Whether a job's tool is made of other code by now."""
    return bool(job["measured"]["code"] != _today(job["tool"]))


@cache
def _today(tool: str) -> str:
    return digest(TOOLS[tool].code())


AGAIN: dict[str, Callable[[dict[str, Any]], bool]] = {
    "failed": lambda job: bool(job["state"] != "ok"),
    "changed": changed,
    "all": lambda job: True,
}


def once(job: Job, given: argparse.Namespace, peers: Path | None) -> None:
    """Run a job unless it has its JSON, and write that last."""
    kept = given.measured / f"{job.name}.json"
    if kept.exists() and not (given.again and AGAIN[given.again](json.loads(kept.read_text()))):
        return
    tool = TOOLS[job.tool]
    # Before the work: whoever edits the sources while it runs does not edit what runs.
    measured = measured_with(tool.code(), peers if tool.peer and peers else Path(sys.executable))
    found = {**asdict(job), **(_refused(job, given.measured) or work(job, given, peers)), "measured": measured}
    write_job(kept, found)
    test = found.get("scores", {}).get("test", {}).get("nDCG@10", float("nan"))
    wall = found.get("train", {}).get("wall", 0.0)
    print(f"{job.name:32} {found['state']:8} {wall:7.1f} s  nDCG@10 {test:.3f}  {found.get('message', '')}", flush=True)


def write_job(kept: Path, found: dict[str, Any]) -> None:
    """A line for each part, so that a person can read it and git can compare it."""
    lines = [f"{json.dumps(key)}: {json.dumps(rounded(value))}" for key, value in found.items()]
    beside = kept.with_suffix(".part")
    beside.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    beside.replace(kept)


def rounded(value: Any) -> Any:
    """Floats to five decimals, wherever they are."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


def _refused(job: Job, measured: Path) -> dict[str, Any] | None:
    """A tool that took too long on a set is not run on it with another seed."""
    for file in sorted(measured.glob(f"{job.set}-{job.tool}-[0-9]*.json")):
        earlier = json.loads(file.read_text())
        if earlier["seed"] != job.seed and str(earlier.get("message")).startswith(OVER):
            return {"state": "timeout", "message": f"seed {earlier['seed']} took too long"}
    return None


def work(job: Job, given: argparse.Namespace, peers: Path | None) -> dict[str, Any]:
    """Train in one process, score in another."""
    tool, folder = TOOLS[job.tool], given.out / "work" / job.name
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    folder.mkdir(parents=True)
    settings = dict(tool.settings)
    if tool.hurry:
        other = _trained(Job(tool.hurry[0], job.set, 0), given)
        if other is None:
            return {"state": "failed", "message": f"{tool.hurry[0]} has no time on this set"}
        settings["max_minutes"] = tool.hurry[1] * alone(other) / 60
    started = _started(job, given)
    if "state" in started:
        return started
    others = [] if given.no_others or job.seed else [s for s in SETS if s != job.set and (given.data / s).is_dir()]
    spec = {**asdict(job), **settings, "settings": settings, "data": str(given.data.resolve()),
            "peer": tool.peer, "whole": tool.whole, "trains": tool.trains,
            "tuned": started.get("model"), "out": str(folder / "model"),
            "pairs": str(given.out / "pairs" / f"{job.set}.json"),
            "report": str(folder / "train.json"), "scores": str(folder / "scores.json"), "others": others}  # fmt: skip
    ours = [sys.executable, str(HERE / "results_job.py")]
    pairs = _call([*ours, "pairs", _write(folder, spec)], folder / "pairs.log", 600)
    if "state" in pairs:
        return pairs
    spec["model"] = pairs["model"]
    command = [str(peers), str(HERE / "peers" / f"{tool.peer}.py")] if tool.peer else [*ours, "train"]
    path = _write(folder, spec)
    measured: dict[str, Any] = {}
    if tool.trains:
        measured = _call([*command, path], folder / "train.log", given.time_limit * 60)
        if "state" in measured:
            return measured
        measured |= json.loads((folder / "train.json").read_text())
    if tool.after:
        measured |= together(measured, started)
    scored = _call([*ours, "score", path], folder / "score.log", 7200)
    if "state" in scored:
        return {**scored, "train": measured}
    awaited = any(other.after == job.tool for other in TOOLS.values())
    done = ["opened", "base", *([] if awaited else ["model"])]  # 90 MB each that nobody needs
    subprocess.run(["rm", "-rf", *(str(folder / name) for name in done)], check=True)
    return {"state": "ok", "train": measured, **json.loads((folder / "scores.json").read_text())}


def _started(job: Job, given: argparse.Namespace) -> dict[str, Any]:
    """The model that a tool starts from and what it cost; nothing for most tools, a state where there is no model."""
    after = TOOLS[job.tool].after
    if not after:
        return {}
    other = Job(after, job.set, job.seed)
    train, model = _trained(other, given), given.out / "work" / other.name / "model"
    if train is None or not model.is_dir():
        return {"state": "failed", "message": f"{after} has left no model of this set and seed: run both"}
    return {"model": str(model), **{cost: train[cost] for cost in ("wall", "cpu", "peak_mib")}}


def _trained(job: Job, given: argparse.Namespace) -> dict[str, Any] | None:
    """What is kept of another job's training; None where there is none that worked."""
    file = given.measured / f"{job.name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"state": "missing"}
    return found["train"] if found["state"] == "ok" else None


def together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What two processes one after the other cost."""
    sums = {cost: round(one[cost] + other[cost], 1) for cost in ("wall", "cpu")}
    return {**sums, "peak_mib": max(one["peak_mib"], other["peak_mib"])}


def alone(train: dict[str, Any]) -> float:
    """Seconds that a training would have taken at least on a machine of its own: others make only wall times longer."""
    return float(min(train["wall"], train["cpu"] / train["threads"] if "threads" in train else train["wall"]))


def _write(folder: Path, spec: dict[str, Any]) -> str:
    path = folder / "job.json"
    path.write_text(json.dumps(spec))
    return str(path)


def _call(command: list[str], log: Path, seconds: float) -> dict[str, Any]:
    """A process by itself: its wall and CPU seconds and peak memory, or its state and message where it failed.

    This process stays small, because a child's peak counts what it was forked from.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    company = Company()
    with log.open("w") as output:
        started = time.perf_counter()
        child = subprocess.Popen(  # in a folder of its own: peers leave checkpoints where they stand
            command, stdout=output, stderr=output, env=environment, cwd=log.parent, start_new_session=True
        )
        late = threading.Event()
        timer = threading.Timer(seconds, _end, [child.pid, late])
        timer.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            _end(child.pid, late)
            raise
        finally:
            timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
    if late.is_set():
        return {"state": "timeout", "message": f"{OVER} {seconds / 60:g} minutes"}
    if child.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        message = lines[-1][:MESSAGE] if lines else f"exit status {child.returncode}"
        return {"state": "failed", "message": message}
    cpu = used.ru_utime + used.ru_stime
    found: dict[str, Any] = {
        "wall": round(wall, 1),
        "cpu": round(cpu, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
        **company.kept(wall, cpu),
    }
    if command[-2] == "pairs":
        found |= json.loads(log.read_text().splitlines()[-1])
    return found


def _end(process: int, late: threading.Event) -> None:
    late.set()
    os.killpg(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
