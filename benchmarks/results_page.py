"""RESULTS.md, and the README's table, from the JSONs of results.py alone.

python benchmarks/results_page.py MEASURED
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from functools import reduce
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from results import SETS, TOOLS, changed, together

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARKS = ("<!-- results: written by benchmarks/results.py -->", "<!-- /results -->")
COMPANY = 0.1  # a share of the machine that others may take without a mark
Done = dict[str, Any]
Value = Callable[[Done], "float | None"]


class Results:
    """All finished jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[Done] = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
        self.jobs += preferred(self.jobs)
        self.sets = [name for name in SETS if any(job["set"] == name for job in self.jobs)]
        self.tools = [name for name in TOOLS if any(job["tool"] == name for job in self.jobs)]

    def on(self, name: str) -> Results:
        """Those of one machine."""
        own = copy.copy(self)
        own.jobs = [job for job in self.jobs if machine(job) == name]
        return own

    def of(self, tool: str, name: str) -> list[Done]:
        return [job for job in self.jobs if (job["tool"], job["set"]) == (tool, name)]

    def values(self, tool: str, name: str, value: Value) -> list[float]:
        found = (value(job) for job in self.of(tool, name) if job["state"] == "ok")
        return [number for number in found if number is not None]

    def base(self, name: str, value: Value) -> float | None:
        found = self.values("base", name, value)
        return found[0] if found else None


def preferred(jobs: list[Done]) -> list[Done]:
    """What tools end with that try others and keep what dev prefers: nothing is run again for them."""
    done = {(job["tool"], job["set"], job["seed"]): job for job in jobs if job["state"] == "ok"}
    found = []
    for tool, each in TOOLS.items():
        for _, name, seed in [key for key in done if key[0] in each.best_of[:1]]:
            tried = [done.get((other, name, seed)) for other in each.best_of]
            if all(tried):
                found.append(_preferred(tool, [job for job in tried if job]))
    return found


def _preferred(tool: str, tried: list[Done]) -> Done:
    """The job with the best dev, the first of equals; it cost them all, which add up on one machine alone."""
    best = max(tried, key=lambda job: job["scores"]["dev"]["nDCG@10"])
    stale = next((job for job in tried if changed(job)), best)
    train: Done = {}
    if len({machine(job) for job in tried}) == 1:
        alike = {key: value for key, value in best["train"].items() if key in ("threads", "load", "others")}
        train = alike | reduce(together, (job["train"] for job in tried))
    return {**best, "tool": tool, "train": train, "measured": stale["measured"]}


def machine(job: Done) -> str:
    """Where a job was measured."""
    by = job["measured"]
    return f"{by['processor']}, {by['cores']} cores, {by['system']}"


def score(which: str, measure: str = "nDCG@10") -> Value:
    return lambda job: job["scores"].get(which, {}).get(measure)


def cost(which: str) -> Value:
    return lambda job: job["train"].get(which)


def page(results: Results) -> str:
    """The whole of RESULTS.md."""
    parts = [
        "# Ours and the peers', measured",
        "Written by `python benchmarks/results.py` from the JSONs in `benchmarks/measured/`; do not edit. A cell is "
        "the mean over the seeds that were run, ± the standard deviation where there are several; — was not run.",
        environment(results),
        "## When, and with which code",
        "The commit is where the sources stood (+: with changes of its own). A tool whose code has changed since (all "
        "but comments) is shown as of its commit; `--again changed` repeats it. Wall times of rows with "
        "other numbers of threads do not compare; — was not recorded.",
        measured(results),
        "## Quality",
        "Test nDCG@10, scored by vectune's evaluation for everybody. Ours train on the train queries and choose on "
        "dev, and so do peers that can; those without a use for dev train on both. `vectune blend, no labels` sees no "
        "query at all. squad is cut to 2,000 train queries for everybody.",
        quality(results, score("test"), score("bm25")),
        "### Gain over the untuned base",
        "Test nDCG@10. In brackets: the mean gain as a multiple of LlamaIndex's fine-tuning, over the sets where both "
        "were run.",
        gains(results),
        "### hit@5",
        quality(results, score("test", "hit@5"), score("bm25", "hit@5")),
        "### With BM25 beside",
        "nDCG@10 of the model fused with BM25, at the weight that dev prefers (dev is cut from train).",
        quality(results, score("hybrid")),
        "### On dev",
        "nDCG@10 of what each tool ended with, among all chunks, for those that use dev to choose alone.",
        quality(results, score("dev")),
        "## General ability",
        "Change of nDCG@10 against the untuned base on the sets that the model was not tuned on, mean over them, first "
        "seed. A column is the set that was tuned on.",
        general(results),
        "## Matryoshka",
        "Share of its own nDCG@10 that a model keeps when its vectors are cut to the first 128 dimensions.",
        table(results, lambda tool, name: matryoshka(results, tool, name), digits="{:.1%}", mean_of=True),
        "## Cost of training",
        "One training in a process of its own, from the start of Python to the saved model. Times on different "
        "machines do not compare, so each has its own tables. \\*: others took more than "
        f"{COMPANY:.0%} of the machine, so that only the CPU seconds say something, which grow little when other "
        "processes want it; ?: how much they took was not recorded.",
        *costs(results),
        "## Failures",
        failures(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def costs(results: Results) -> list[str]:
    """Of each machine, those that ran most jobs first."""
    found = []
    for name, _ in Counter(map(machine, results.jobs)).most_common():
        own = results.on(name)
        found += [
            f"### On {name}",
            "Wall time, seconds:",
            quality(own, cost("wall"), digits="{:.0f}", averaged=False, mark=company),
            "CPU seconds:",
            quality(own, cost("cpu"), digits="{:.0f}", averaged=False),
            "Peak memory, MiB:",
            quality(own, cost("peak_mib"), digits="{:.0f}", averaged=False),
            "Stages, seconds:",
            stages(own),
        ]
    return found


def environment(results: Results) -> str:
    """Where and with what; more than one machine or version is said so."""
    known = [job["measured"] for job in results.jobs]
    if not known:
        return ""
    machines = sorted({machine(job) for job in results.jobs})
    ours, theirs = (
        sorted({listed(job["measured"]["versions"]) for job in results.jobs if bool(TOOLS[job["tool"]].peer) == peer})
        for peer in (False, True)
    )
    seeds = sorted({job["seed"] for job in results.jobs})
    note = results.folder / "note.md"
    said = [f"- {line}" for line in note.read_text().splitlines()] if note.exists() else []
    lines = [*(f"- Machine: {each}" for each in machines), *(f"- Ours: {each}" for each in ours)]
    return "\n".join(
        [*lines, *(f"- Peers: {each}" for each in theirs), f"- Seeds: {', '.join(map(str, seeds))}", *said]
    )


def listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items())


def measured(results: Results) -> str:
    """When each row was measured, with which code, and in what company."""
    heads = ["", "sets (seeds)", "date", "commit", "its code today", "processor", "threads", "load before → after"]
    lines = [f"| {' | '.join([*heads, 'taken by others'])} |", "|---" * (len(heads) + 1) + "|"]
    for tool in results.tools:
        found: dict[tuple[str, ...], list[Done]] = {}
        for job in (each for each in results.jobs if each["tool"] == tool):
            by = job["measured"]
            state = "changed" if changed(job) else "the same"
            found.setdefault((by["date"], by["commit"] or "not known", state, by["processor"]), []).append(job)
        for (day, at, state, processor), jobs in sorted(found.items()):
            seeds = {name: [job["seed"] for job in jobs if job["set"] == name] for name in results.sets}
            where = ", ".join(f"{name} ({', '.join(map(str, each))})" for name, each in seeds.items() if each)
            cells = [TOOLS[tool].title, where, day, at, state, processor, threads(jobs), loads(jobs), others(jobs)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def threads(jobs: list[Done]) -> str:
    known = sorted({job["train"]["threads"] for job in jobs if "threads" in job.get("train", {})})
    return " or ".join(map(str, known)) or "—"


def loads(jobs: list[Done]) -> str:
    """Medians of the load averages around the trainings."""
    known = [job["train"]["load"] for job in jobs if job.get("train", {}).get("load")]
    return " → ".join(f"{median(each):.1f}" for each in zip(*known, strict=True)) or "—"


def company(jobs: list[Done]) -> str:
    """A mark for wall times that others made longer, or may have."""
    shares = [job["train"].get("others") for job in jobs if job["state"] == "ok"]
    if any(share is not None and share > COMPANY for share in shares):
        return "\\*"
    return "?" if None in shares else ""


def others(jobs: list[Done]) -> str:
    """The span of what other processes took of the machine."""
    shares = [job["train"]["others"] for job in jobs if "others" in job.get("train", {})]
    if not shares:
        return "—"
    return " to ".join(sorted({f"{min(shares):.0%}", f"{max(shares):.0%}"}, key=lambda text: int(text[:-1])))


def spread(values: list[float], digits: str) -> str:
    """Mean, and the standard deviation of several."""
    text = short(digits.format(mean(values)))
    return text if len(values) == 1 else f"{text} ± {short(digits.format(stdev(values)))}"


def short(number: str) -> str:
    return re.sub(r"^([+-]?)0\.", r"\1.", number)


def quality(
    results: Results,
    value: Value,
    bm25: Value | None = None,
    digits: str = "{:.3f}",
    averaged: bool = True,
    mark: Callable[[list[Done]], str] = lambda jobs: "",
) -> str:
    """Tools by sets, each cell with a mark from its jobs; with BM25 beside the base where asked for."""

    def cell(tool: str, name: str) -> tuple[str, float | None]:
        found = results.values(tool, name, value)
        return (
            (spread(found, digits) + mark(results.of(tool, name)), mean(found))
            if found
            else (why(results, tool, name), None)
        )

    extra = []
    if bm25 is not None:
        found = {name: results.base(name, bm25) for name in results.sets}
        numbers = [short(digits.format(v)) if v is not None else "—" for v in found.values()]
        known = [v for v in found.values() if v is not None]
        whole = short(digits.format(mean(known))) if known and len(known) == len(results.sets) else "—"
        extra = [f"| BM25 | {' | '.join(numbers)} | {whole} |"]
    return table(results, cell, digits=digits, mean_of=averaged, extra=extra)


def table(
    results: Results,
    cell: Callable[[str, str], tuple[str, float | None]],
    digits: str = "{:.3f}",
    mean_of: bool = True,
    extra: Iterable[str] = (),
    note: Callable[[str], str] = lambda tool: "",
) -> str:
    """A Markdown table: rows in the order of ``TOOLS``, those without any figure left out; a note behind the mean."""
    lines = ["| | " + " | ".join(results.sets) + (" | mean |" if mean_of else " |")]
    lines.append("|---" * (1 + len(results.sets) + mean_of) + "|")
    lines += extra
    for tool in results.tools:
        cells = [cell(tool, name) for name in results.sets]
        numbers = [number for _, number in cells if number is not None]
        if all(text == "—" for text, _ in cells):
            continue
        whole = short(digits.format(mean(numbers))) if len(numbers) == len(cells) else "—"
        texts = [TOOLS[tool].title, *(text for text, _ in cells), *([whole + note(tool)] if mean_of else [])]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines) if len(lines) > 2 else "Not run yet."


def why(results: Results, tool: str, name: str) -> str:
    """Why a cell has no figure."""
    states = {job["state"] for job in results.of(tool, name)} - {"ok"}
    return {"timeout": "too slow", "failed": "failed"}.get(next(iter(sorted(states)), ""), "—")


def gains(results: Results) -> str:
    """What each tool added to the untuned base, and how many times what LlamaIndex's engine added."""

    def gain(tool: str, name: str) -> float | None:
        base, found = results.base(name, score("test")), results.values(tool, name, score("test"))
        return mean(found) - base if base is not None and found and tool != "base" else None

    def cell(tool: str, name: str) -> tuple[str, float | None]:
        found = gain(tool, name)
        return ("—", None) if found is None else (short(f"{found:+.3f}"), found)

    def times(tool: str) -> str:
        both = [(gain(tool, name), gain("llama-model", name)) for name in results.sets]
        known = [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]
        theirs = sum(theirs for _, theirs in known)
        if tool == "llama-model" or theirs <= 0:
            return ""
        return f" ({sum(ours for ours, _ in known) / theirs:.2f} × on {len(known)})"

    return table(results, cell, digits="{:+.3f}", note=times)


def general(results: Results) -> str:
    """Mean change on the sets that were not tuned on."""

    def cell(tool: str, name: str) -> tuple[str, float | None]:
        changes = []
        for job in results.of(tool, name):
            for other, measures in job.get("others", {}).items():
                base = results.base(other, score("test"))
                if base is not None and tool != "base":
                    changes.append(measures["nDCG@10"] - base)
        return (short(f"{mean(changes):+.3f}"), mean(changes)) if changes else ("—", None)

    return table(results, cell, digits="{:+.3f}")


def matryoshka(results: Results, tool: str, name: str) -> tuple[str, float | None]:
    pairs = zip(results.values(tool, name, score("test@128")), results.values(tool, name, score("test")), strict=False)
    shares = [cut / whole for cut, whole in pairs if whole]
    return (spread(shares, "{:.1%}"), mean(shares)) if shares else ("—", None)


def stages(results: Results) -> str:
    """Each stage of each tool, first seed that worked."""
    lines = ["| | set | stages | within ours |", "|---|---|---|---|"]
    for tool in results.tools:
        for name in results.sets:
            done = [job for job in results.of(tool, name) if job["state"] == "ok" and "stages" in job["train"]]
            if done:
                train = done[0]["train"]
                parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in train.get("parts", {}).items())
                whole = ", ".join(f"{part} {seconds:.1f}" for part, seconds in train["stages"].items())
                lines.append(f"| {TOOLS[tool].title} | {name} | {whole} | {parts} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def failures(results: Results) -> str:
    """What failed or took too long, with the message."""
    lines = [
        f"- {TOOLS[job['tool']].title}, {job['set']}, seed {job['seed']}: {job['state']}: {job.get('message', '')}"
        for job in results.jobs
        if job["state"] != "ok"
    ]
    return "\n".join(lines) or "None."


def readme_table(results: Results) -> str:
    """What the README quotes: mean nDCG@10 for each tool and set, and the CPU time of one training."""
    return "\n\n".join(
        [
            MARKS[0],
            quality(results, score("test"), score("bm25")),
            "Test nDCG@10 on real questions; more measures, costs, spread and versions: "
            "[benchmarks/RESULTS.md](benchmarks/RESULTS.md).",
            MARKS[1],
        ]
    )


def main() -> None:
    results = Results(Path(sys.argv[1]))
    (HERE / "RESULTS.md").write_text(page(results), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    if MARKS[0] in text:
        pattern = re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1])
        README.write_text(re.sub(pattern, lambda _: readme_table(results), text, flags=re.DOTALL), encoding="utf-8")
    print(f"{HERE / 'RESULTS.md'}: {len(results.jobs)} jobs")


if __name__ == "__main__":
    main()
