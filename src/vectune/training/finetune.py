"""finetune: from a dataset to a tuned model that is never worse on dev than the one it started from."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from vectune import bulk
from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import open_embedder
from vectune.embedders.machine import activation_bytes, crowded_note, fast_bf16
from vectune.embedders.models import ARTIFACT_FILE, is_static
from vectune.embedders.options import EmbedOptions
from vectune.embedders.settings import decisive
from vectune.errors import ModelError, TrainingError, UsageError
from vectune.progress import SILENT, Progress
from vectune.runs import check_output, hash_of, remove
from vectune.splits import with_dev
from vectune.training.anchor import Anchor, general_texts
from vectune.training.axes import SAMPLE, by_dimension, check_lengths, principal_axes, turn
from vectune.training.batches import Batches
from vectune.training.blend import BlendOptions, tail_behind
from vectune.training.choice import choose
from vectune.training.data import TrainingData
from vectune.training.defaults import Reason, Settings, settle
from vectune.training.dev import MANY, whole_dev
from vectune.training.distributed import World
from vectune.training.encoder import Encoder
from vectune.training.ground import Ground, prepare, truncation_notes
from vectune.training.length import FURTHER, LOST, further
from vectune.training.loop import Loop
from vectune.training.losses import Teacher, make_loss
from vectune.training.opening import add_lora, dropout_at, merge_lora, open_model, repeatable, settled_precision
from vectune.training.options import Method, TuneOptions
from vectune.training.problem import spread
from vectune.training.result import TuneResult
from vectune.training.saving import read_result, retell, save_artifact
from vectune.training.schedule import Schedule
from vectune.training.teachers import open_teacher
from vectune.training.tracking import TrackedProgress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from vectune.embedders.local import LocalEmbedder
    from vectune.protocols import Embedder

METHODS: tuple[Method, ...] = ("lora", "full")  # that auto tries, the cheapest first
TaughtBy: TypeAlias = "tuple[Teacher | None, Mapping[str, EmbedOptions]]"  # a teacher, or how the named one is asked
FEW = 50  # queries below which a result is told to be thin
FEWER = 5000  # chunks that decide between methods where time is limited


def finetune(
    dataset: RetrievalDataset,
    out: Path,
    options: TuneOptions = TuneOptions(),
    progress: Progress = SILENT,
    work: Path | None = None,
    teacher: Teacher | None = None,
    models: Mapping[str, EmbedOptions] = MappingProxyType({}),
) -> TuneResult:
    """Fine-tune a local model on a dataset's train split.

    Args:
        dataset: with a train split; dev is cut from it by document where there is none.
        out: the artifact folder to write.
        options: what a person chose; the rest follows from the data. ``method`` is ``full``, ``lora`` or ``auto``.
        progress: where steps and looks at dev are told.
        work: folder for checkpoints; a killed run goes on from there. None: beside ``out``.
        teacher: scores of queries and chunks to learn from besides the judgments, instead of the one options name.
        models: settings of models behind an API, by name; the options' teacher may be one.

    Raises:
        DatasetError: too little to train on.
        ModelError: the model cannot be opened or is none that can be trained.
        OutputError: ``out`` holds something else.
        TrainingError: memory ran out, or the loss diverged before anything was better than the base.
        UsageError: ``dimensions`` that the model's vectors do not have.
    """
    check_output(out, marker="vectune.json")
    work = work or out.with_name(f".{out.name}.work")
    world = World.joined()
    dataset = with_dev(dataset, options.seed)
    with ExitStack() as stack:
        if options.track and world.first:
            tracked = TrackedProgress(progress, options.track, out, dataclasses.asdict(options))
            stack.callback(tracked.close)
            progress = tracked
        progress = progress if world.first else SILENT
        whole = _Whole(Tuning(dataset, options, progress, work, (teacher, models), world))
        result = whole.with_tail(out) if options.tail else whole.into(out)
    if world.first:
        remove(work)
    world.wait()
    return result


def explain(dataset: RetrievalDataset, options: TuneOptions = TuneOptions()) -> list[Reason]:
    """What would be chosen for this dataset, and why: (what, value, reason). Opens no model.

    Raises:
        DatasetError: too little to train on.
    """
    data = TrainingData.of(with_dev(dataset, options.seed))
    static = is_static(options.model)
    settings = _settle(data, options, static)
    every = _settle(data, dataclasses.replace(options, method="full"), static)
    arithmetic = options.precision if options.precision != "auto" else "bf16" if fast_bf16(_device()) else "fp32"
    return [
        *settings.why,
        *([("rate, all weights", f"{every.rate:g}", "after LoRA")] * (options.method == "auto")),
        ("precision", arithmetic, "as asked" if options.precision != "auto" else "measured on this machine"),
        *([] if static else [("max_length", *_length(options))]),
        ("dev", f"{len(data.dev_queries)} queries", f"cut by document; {len(data.queries)} queries are left to train"),
        ("pool", f"{int(data.pool.sum())} chunks", f"of {len(data.chunks)}: none of dev's and test's documents"),
        *([("tail", f"{BlendOptions().dimensions} at most", "behind the vectors, where dev gains")] * options.tail),
    ]


def _length(options: TuneOptions) -> tuple[str, str]:
    if options.max_length:
        return f"{options.max_length}", "as asked"
    return "the model's own", f"up to {FURTHER} times it where over {LOST:.0%} of the text lies beyond"


@dataclass(frozen=True)
class _Whole:
    """One or two tunings, and the lexical tail where it is asked for; what a killed start had finished is kept."""

    plan: Tuning

    def with_tail(self, out: Path) -> TuneResult:
        """The tuned model with a lexical tail behind its vectors."""
        folder, plan = self._folder("tuned"), self.plan
        result = _finished(folder) or self.into(folder)
        if not plan.world.first:
            return result
        base, tuned = (self._opened(name) for name in (plan.options.model, str(folder)))
        return tail_behind(plan.dataset, result, out, (base, tuned), plan.options.seed, progress=plan.progress)

    def into(self, out: Path) -> TuneResult:
        """By the method of the options."""
        return self._auto(out) if self.plan.options.method == "auto" else self.plan.into(out)

    def _auto(self, out: Path) -> TuneResult:
        """LoRA first; where dev gains by it, every weight, and what dev prefers is kept."""
        options, work = self.plan.options, self.plan.work
        share = options.max_minutes / 2 if options.max_minutes else None
        results: list[TuneResult] = []
        failures: list[str] = []
        for method in METHODS:
            own = dataclasses.replace(options, method=method, max_minutes=share)
            folder = self._folder(method)
            if (result := _finished(folder)) is not None:
                results.append(result)
                continue
            if results and results[-1].dev_after <= results[-1].dev_before:
                break
            try:
                plan = dataclasses.replace(self.plan, options=own, work=work / f"{method}.work")
                results.append(plan.into(folder))
            except (ModelError, TrainingError) as error:  # no transformer, so no LoRA; or the loss diverged
                if method == METHODS[-1] and not results:
                    raise
                failures.append(f"{method} failed: {error}")
        values, among = self._on_dev(results)
        best = results[values.index(max(values))]
        note = "; ".join(f"{result.method} {value:.3f}" for result, value in zip(results, values, strict=True))
        note = " ".join((f"auto kept {best.method}: nDCG@10 on dev{among} was {note}.", *failures))
        if results[-1].method == "lora" and not failures:
            note += " LoRA gained nothing there, so training every weight was not tried."
        took = sum(result.seconds for result in results)
        result = dataclasses.replace(best, path=out, notes=(*best.notes, note), seconds=round(took, 1))
        if self.plan.world.first:
            out.parent.mkdir(parents=True, exist_ok=True)
            remove(out)
            best.path.rename(out)
            retell(result)
        return result

    def _on_dev(self, results: list[TuneResult]) -> tuple[list[float], str]:
        """What decides between methods, and among what: dev among all chunks, where they are in memory.

        Training's samples rank states of one run as the whole corpus does, and runs of different settings badly: on
        covid_qa a sample of 364 has LoRA ahead by .005 (test: behind by .034), the corpus has it behind by .012.
        Where time is limited it is a larger sample: the looks are not in the plan that fills the time.
        """
        world, dataset = self.plan.world, self.plan.dataset
        if len(results) < 2 or bulk.is_bulk(dataset):
            return [result.dev_after for result in results], ""
        most = FEWER if self.plan.options.max_minutes else MANY
        looks = (whole_dev(dataset, self._opened(str(result.path)), most) for result in results)
        values = world.from_first(list(looks) if world.first else [])
        return values, f" among {'all' if len(dataset.corpus) <= most else f'{most:,}'} chunks"

    def _folder(self, name: str) -> Path:
        """Where a finished tuning waits; another one for other data or options."""
        return self.plan.work / f"{name}-{self._key}"

    @cached_property
    def _key(self) -> str:
        dataset, options = self.plan.dataset, self.plan.options
        models = [decisive(name, {}) for name in (options.model, options.teacher or "")]
        if bulk.is_bulk(dataset):  # judgments on disk have no content to hash, and texts would take hours
            return hash_of([options.decisive(), models, TrainingData.of(dataset).key])[:12]
        found = hashlib.blake2b(hash_of([options.decisive(), models, dataset.qrels]).encode(), digest_size=6)
        for text in (query.text for query in dataset.queries.values()):
            found.update(text.encode("utf-8", "surrogatepass"))
        for text in (chunk.content for chunk in dataset.corpus.values()):
            found.update(text.encode("utf-8", "surrogatepass"))
        return found.hexdigest()

    def _opened(self, name: str) -> Embedder:
        """A model as training read it, with the cache of vectors."""
        told = self.plan.options
        options = EmbedOptions(
            max_length=told.max_length, precision=told.precision, trust_remote_code=told.trust_remote_code
        )
        return open_embedder(name, options, progress=self.plan.progress)


def _finished(folder: Path) -> TuneResult | None:
    """The result of a tuning that an earlier start finished."""
    return read_result(folder) if (folder / ARTIFACT_FILE).exists() else None


@dataclass
class Tuning:
    """One model, one method, from opening to saving."""

    dataset: RetrievalDataset
    options: TuneOptions
    progress: Progress
    work: Path
    taught_by: TaughtBy
    world: World

    def into(self, out: Path) -> TuneResult:
        """Train, choose and save."""
        started = time.perf_counter()
        torch.manual_seed(self.options.seed)
        precision = settled_precision(self.options, self.work / "precision.json") if self.world.first else "auto"
        self.options = dataclasses.replace(self.options, precision=self.world.from_first(precision))
        model, base, own = open_model(self.options)
        if self.options.dimensions:
            check_lengths(self.options.dimensions, base.dim)
        fingerprint = base.fingerprint  # before the weights change
        with dropout_at(model, self.options.dropout), repeatable():
            dtype = torch.bfloat16 if self.options.precision == "bf16" else torch.float32
            encoder = Encoder(model, dtype, checkpoints=self.options.gradient_checkpointing)
            encoder.fit_pieces(activation_bytes(self.options.memory_gib, encoder.device.type))
            held = general_texts(self.options.anchor_texts)
            ground, settings = self._prepare(encoder, base, own)
            notes = _truths(encoder, ground)
            for note in filter(None, (*notes, crowded_note())):
                self.progress.warn(note)
            anchor = Anchor(encoder, base, held, self.options.anchor, self.options.seed) if held else None
            # now that the base has embedded all: with additions its vectors would have another place in the cache
            lora = add_lora(model, self.options) if self.options.method == "lora" else None
            loop = self._loop(encoder, ground, settings, [fingerprint, *held])
            loop.anchor = anchor
            start = loop.weights()
            loop.run(ground.dev_before, ground.check_seconds, time.perf_counter() - started)
            weights, dev_after, kept = choose(loop, start, ground.dev_base, self.progress)
            if loop.state.diverged and kept == "base":
                remove(self.work)  # a second start would only stop at the same step
                raise TrainingError(
                    f"training diverged before it was any better than the base: {loop.state.stopped}.",
                    "Set tune.rate to a third of what it is (--explain shows it) or tune.warmup to 0.3 in --config.",
                )
            loop.put(weights)
            if ground.reach and kept == "base":
                model.max_seq_length = ground.reach.own
                notes[0] = ground.reach.given_up(ground.dev_before, ground.dev_reaching)
                if self.options.dimensions:
                    loop.read_again(ground.data)
            shorter = _turned(loop, self.options.dimensions) if self.world.first else {}
        result = TuneResult(
            path=out,
            method=self.options.method or "full",
            model=self.options.model,
            base_fingerprint=fingerprint,
            dev_before=round(ground.dev_before, 5),
            dev_after=round(dev_after, 5),
            chosen={**_chosen(loop, ground, settings, kept), **({"dev_by_dimension": shorter} if shorter else {})},
            seconds=round(loop.state.seconds_before + time.perf_counter() - started, 1),
            notes=(*notes, *_notes(loop, kept), *_shorter_note(shorter)),
        )
        if self.world.first:
            self._save(model, lora, result)
        self.world.wait()
        return result

    def _prepare(self, encoder: Encoder, base: LocalEmbedder, own: int | None) -> tuple[Ground, Settings]:
        data = TrainingData.of(self.dataset)
        settings = _settle(data, self.options, encoder.static)
        reach = None if self.options.max_length == own else further(encoder, data.chunks, own)
        if reach:
            encoder.model.max_seq_length = reach.now
        vectors = open_embedder(base, progress=self.progress)
        if not self.world.first:
            self.world.wait()  # the first process fills the cache of vectors, the others read it
        kept = self.work / "dev.json"
        ground = prepare(data, encoder, vectors, self.options, settings, self.progress, kept, reach)
        if self.world.first:
            self.world.wait()
        return ground, settings

    def _loop(self, encoder: Encoder, ground: Ground, settings: Settings, depends: list[str]) -> Loop:
        options, data = self.options, ground.data
        batches = Batches(data, settings.batch, ground.negatives, settings.negatives, options.seed)
        steps = max(1, round(settings.epochs * len(batches)))
        checks = options.checks or _checks(ground, steps, settings)
        schedule = Schedule(steps, steps, settings.rate, options.warmup, checks)
        told = [options.decisive(), *depends, data.key]
        teacher, models = self.taught_by
        return Loop(
            encoder,
            make_loss(options, ground, teacher or open_teacher(options, ground, models, self.progress)),
            batches,
            (ground.queries, ground.chunks, ground.dev_queries),
            ground.dev,
            self.world.from_first(schedule),
            self.work,
            hash_of([*told, str(encoder.dtype), self.world.size]),
            options,
            self.progress,
            self.world,
            ground.miner if options.refresh else None,
        )

    def _save(self, model: SentenceTransformer, lora: Any, result: TuneResult) -> None:
        adapter = self.work / "adapter"
        if lora is not None:
            merge_lora(lora, adapter)
        save_artifact(model, result, self.options, adapter if lora is not None else None)


def _settle(data: TrainingData, options: TuneOptions, static: bool) -> Settings:
    """The settings; nothing that needs vectors of everything where the data stay on disk.

    Raises:
        UsageError: the options ask for it.
    """
    if data.on_disk:
        asked = {
            "anchor": 0.0 if options.anchor_texts else options.anchor,
            "negatives": options.negatives,
            "refresh": options.refresh,
            "tail": options.tail,
        }
        for name in (name for name, value in asked.items() if value):
            raise UsageError(
                f"tune.{name}: {len(data.queries):,} queries stay on disk, and the base's vectors of all are needed.",
                f"Set {name} to 0, or train on fewer queries.",
            )
        options = dataclasses.replace(options, negatives=0)
    return settle(
        options,
        queries=len(data.queries),
        pairs=len(data.positives.values),
        pool=int(data.pool.sum()),
        lora=options.method in ("lora", "auto"),
        static=static,
    )


def _truths(encoder: Encoder, ground: Ground) -> list[str]:
    """What is known about the data before training; first how far the model reads, if further than it is set to."""
    reach = ground.reach
    notes = [reach.note(ground.dev_before, ground.dev_reaching)] if reach else []
    notes += truncation_notes(encoder, ground.data, ground.chunks)
    return [*notes, *[f"{bulk.NOTE} No hard negatives are mined."] * ground.data.on_disk]


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _checks(ground: Ground, steps: int, settings: Settings) -> int:
    """Two to eight looks at dev that together take about a fifth of the time the steps take."""
    texts, rows = ground.chunks.at(ground.chunks.sample())
    mean = float(texts.lengths[rows].mean())
    texts, rows = ground.chunks.at(ground.dev.chunks)
    look = float(texts.lengths[rows].sum())
    positives = np.unique(ground.data.same[ground.data.positives.values])
    # a forward pass each; a step goes back as well, which takes twice as long
    trained = 3 * settings.epochs * len(positives) * (1 + settings.negatives) * mean
    return int(np.clip(0.25 * trained / max(look, 1.0), 2, min(8, max(2, steps))))


def _chosen(loop: Loop, ground: Ground, settings: Settings, kept: str) -> dict[str, Any]:
    return {
        **{what: float(value) for what, value, _ in settings.why},
        "steps": loop.state.step,
        "planned_steps": loop.schedule.steps,
        "kept": kept,
        "best_step": loop.state.best_step,
        "precision": "bf16" if loop.encoder.dtype == torch.bfloat16 else "fp32",
        "curve": loop.state.curve,
        "dev_queries": len(ground.dev.queries),
        "dev_chunks": len(ground.dev.chunks),
        **({"max_length": loop.encoder.model.max_seq_length} if ground.reach else {}),
    }


def _turned(loop: Loop, dimensions: tuple[int, ...]) -> dict[int, float]:
    """Turn the model's space to its principal axes where it is to be cut; gives nDCG@10 on dev of each length."""
    if not dimensions:
        return {}
    rows = spread(len(loop.chunks), SAMPLE)
    axes = principal_axes(loop.encoder.embed(*loop.chunks.at(rows)))
    found = by_dimension(loop.dev, *loop.dev_vectors(), axes, tuple(dim for dim in dimensions if dim < len(axes)))
    turn(loop.encoder.model, axes)
    return found


def _shorter_note(by_length: dict[int, float]) -> list[str]:
    told = ", ".join(f"{dim}: {value:.3f}" for dim, value in by_length.items())
    return [f"nDCG@10 on dev of vectors cut to their first dimensions: {told}."] if by_length else []


def _notes(loop: Loop, kept: str) -> list[str]:
    notes = []
    if (count := len(loop.queries)) < FEW:
        notes.append(f"Only {count} queries to train on: expect little, and trust dev little. {FEW} show a gain.")
    if loop.state.stopped:
        notes.append(f"Stopped after {loop.state.step} of {loop.schedule.steps} steps: {loop.state.stopped}.")
    if loop.schedule.steps < loop.schedule.wanted:
        notes.append(
            f"The time limit allowed {loop.schedule.steps} of the {loop.schedule.wanted} steps the data ask for."
        )
    if kept == "base":
        result = "the result is the base model"
        if loop.options.tail:
            result = "its weights stay as they are"
        elif loop.options.dimensions:
            result += ", turned to its principal axes: its cosines, but other vectors than those an index of it holds"
        notes.append(f"Nothing beat the base model on dev, so {result}.")
    return notes
