"""finetune: from a dataset to a tuned model that is never worse on dev than the one it started from."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vectune.dataset import RetrievalDataset
from vectune.embedders.fingerprint import model_fingerprint
from vectune.embedders.loading import load_model
from vectune.embedders.local import LocalEmbedder, longest_input
from vectune.embedders.machine import fast_bf16
from vectune.embedders.options import EmbedOptions
from vectune.lexical import BM25
from vectune.negatives import mine
from vectune.progress import SILENT, Progress
from vectune.runs import check_output, hash_of, remove
from vectune.splits import with_dev
from vectune.training.batches import Batch, Batches
from vectune.training.data import TrainingData
from vectune.training.defaults import Settings, settle
from vectune.training.dev import DevSample, dev_sample
from vectune.training.encoder import Encoder, Texts
from vectune.training.loop import Loop, Loss, Weights
from vectune.training.objectives import info_nce, matryoshka
from vectune.training.options import TuneOptions
from vectune.training.result import TuneResult
from vectune.training.saving import save_artifact
from vectune.training.schedule import Schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

    Floats = NDArray[np.float32]

DEPTH = 8  # mined chunks kept for each query; later epochs use later ones
MIXTURES = (0.8, 0.6)  # shares of the tuned weights that are tried in a mixture with the base's


@dataclass
class Ground:
    """What is known before the first step: the base's vectors, tokens, negatives and the dev sample."""

    data: TrainingData
    queries: Texts
    chunks: Texts
    dev_queries: Texts
    negatives: NDArray[np.int64]
    dev: DevSample
    dev_before: float
    check_seconds: float


def finetune(
    dataset: RetrievalDataset,
    out: Path,
    options: TuneOptions = TuneOptions(),
    progress: Progress = SILENT,
    work: Path | None = None,
) -> TuneResult:
    """Fine-tune a local model on a dataset's train split.

    Args:
        dataset: with a train split; dev is cut from it by document where there is none.
        out: the artifact folder to write.
        options: what a person chose; the rest follows from the data.
        progress: where steps and looks at dev are told.
        work: folder for checkpoints; a killed run goes on from there. None: beside ``out``.

    Raises:
        DatasetError: too little to train on.
        ModelError: the model cannot be opened or is none that can be trained.
        OutputError: ``out`` holds something else.
        TrainingError: the loss diverged before anything was learnt.
    """
    started = time.perf_counter()
    check_output(out, marker="vectune.json")
    work = work or out.with_name(f".{out.name}.work")
    torch.manual_seed(options.seed)
    dataset = with_dev(dataset, options.seed)
    model, dropout = open_for_training(options)
    encoder = Encoder(model, torch.bfloat16 if _bf16(options, model.device) else torch.float32)
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    fingerprint = model_fingerprint(model, LocalEmbedder(model).prompts)
    data = TrainingData.of(dataset)
    pairs = sum(map(len, data.positives))
    settings = settle(options, len(data.queries), pairs, int(data.pool.sum()))
    ground = prepare(data, encoder, options, settings, progress)
    notes = truncation_notes(encoder, data, ground.chunks)
    for note in notes:
        progress.warn(note)

    batches = Batches(data, settings.batch, ground.negatives, settings.negatives, options.seed)
    steps = max(1, round(settings.epochs * len(batches)))
    schedule = Schedule(steps, steps, settings.rate, options.warmup, options.checks or _checks(ground, steps, settings))
    key = hash_of([dataclasses.asdict(options), fingerprint, data.queries, data.positives, data.dev_queries])
    loop = Loop(
        encoder, make_loss(options), batches, (ground.queries, ground.chunks, ground.dev_queries), ground.dev,
        schedule, work, key, options, progress,
    )  # fmt: skip
    state = loop.run(ground.dev_before, ground.check_seconds, time.perf_counter() - started)
    if state.stopped:
        notes.append(f"Stopped after {state.step} of {loop.schedule.steps} steps: {state.stopped}.")
    weights, dev_after, kept = choose(loop, base, ground.dev_before, progress)
    if kept == "base":
        notes.append("Nothing beat the base model on dev, so the result is the base model.")
    loop.put(weights)
    restore_dropout(model, dropout)
    chosen = {
        **{what: float(value) for what, value, _ in settings.why},
        "steps": state.step,
        "planned_steps": loop.schedule.steps,
        "kept": kept,
        "best_step": state.best_step,
        "precision": "bf16" if encoder.dtype == torch.bfloat16 else "fp32",
        "curve": state.curve,
        "dev_queries": len(ground.dev.queries),
        "dev_chunks": len(ground.dev.chunks),
    }
    seconds = round(state.seconds + time.perf_counter() - started, 1)
    result = TuneResult(
        out, "full", options.model, fingerprint, round(ground.dev_before, 5), round(dev_after, 5), chosen, seconds,
        tuple(notes),
    )  # fmt: skip
    save_artifact(model, result, options)
    remove(work)
    return result


def open_for_training(options: TuneOptions) -> tuple[SentenceTransformer, dict[str, float]]:
    """The model with dropout as asked for, and the dropout it came with."""
    model = load_model(options.model, trust_remote_code=options.trust_remote_code)
    if options.max_length is not None:
        LocalEmbedder(model, EmbedOptions(max_length=options.max_length), name=options.model)
    before = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            before[name] = module.p
            module.p = options.dropout
        elif hasattr(module, "attention_dropout") or hasattr(module, "dropout_prob"):
            for attribute in ("attention_dropout", "dropout_prob"):
                if isinstance(getattr(module, attribute, None), float):
                    before[f"{name}:{attribute}"] = getattr(module, attribute)
                    setattr(module, attribute, options.dropout)
    return model, before


def restore_dropout(model: SentenceTransformer, before: dict[str, float]) -> None:
    """Give the modules back the dropout they came with."""
    modules = dict(model.named_modules())
    for place, value in before.items():
        name, _, attribute = place.partition(":")
        setattr(modules[name], attribute or "p", value)


def _bf16(options: TuneOptions, device: torch.device) -> bool:
    return options.precision == "bf16" or (options.precision == "auto" and fast_bf16(device.type))


def prepare(
    data: TrainingData, encoder: Encoder, options: TuneOptions, settings: Settings, progress: Progress
) -> Ground:
    """Tokenise everything once, embed it with the base, mine negatives, choose the dev sample and measure the base."""
    with progress.task("tokenise", total=len(data.chunks), unit="chunks") as task:
        chunks = encoder.tokenize(data.chunks, "document")
        queries, dev_queries = encoder.tokenize(data.queries, "query"), encoder.tokenize(data.dev_queries, "query")
        task.advance(len(data.chunks))
    corpus = _embed(encoder, chunks, progress)
    lexical = BM25(data.chunks)
    dev_vectors = encoder.embed(dev_queries)
    dev = dev_sample(data, dev_vectors, corpus, lexical, options.dev_chunks, options.seed)
    negatives = np.full((len(data.queries), 0), -1, dtype=np.int64)
    if settings.negatives:
        negatives = _mine(data, encoder.embed(queries), corpus, options, progress)
    before = dev.score(dev_vectors[dev.queries], corpus[dev.chunks])
    progress.event("dev", step=0, value=round(before, 5))
    started = time.perf_counter()
    encoder.embed(chunks, dev.chunks[:: max(1, len(dev.chunks) // 64)])
    share = len(dev.chunks) / max(1, len(dev.chunks[:: max(1, len(dev.chunks) // 64)]))
    return Ground(data, queries, chunks, dev_queries, negatives, dev, before, (time.perf_counter() - started) * share)


def _embed(encoder: Encoder, chunks: Texts, progress: Progress) -> Floats:
    """The base's vectors of all chunks."""
    parts = []
    with progress.task("embed with the base", total=len(chunks), unit="chunks") as task:
        for start in range(0, len(chunks), 1024):
            rows = np.arange(start, min(start + 1024, len(chunks)))
            parts.append(encoder.embed(chunks, rows))
            task.advance(len(rows))
    return np.concatenate(parts)


def _mine(
    data: TrainingData, queries: Floats, corpus: Floats, options: TuneOptions, progress: Progress
) -> NDArray[np.int64]:
    """Mined chunks of each train query as chunk indices, -1 for none; shape (queries, DEPTH)."""
    pool = np.flatnonzero(data.pool)
    at = {int(chunk): place for place, chunk in enumerate(pool)}
    positives = [[at[chunk] for chunk in chunks if chunk in at] for chunks in data.positives]
    excluded = [
        np.flatnonzero(data.answers(query, pool) | data.neighbours(query, pool)).tolist()
        for query in range(len(data.queries))
    ]
    with progress.task("mine negatives", total=len(data.queries), unit="queries") as task:
        found = mine(
            queries, data.queries, corpus[pool], BM25([data.chunks[chunk] for chunk in pool]), positives, excluded,
            DEPTH, margin=options.negative_margin, advance=task.advance,
        )  # fmt: skip
    mined: NDArray[np.int64] = np.where(found >= 0, pool[found], -1)
    return mined


def make_loss(options: TuneOptions) -> Loss:
    """The loss of a batch as the options ask for it."""

    def loss(queries: Tensor, chunks: Tensor, batch: Batch) -> Tensor:
        masked = torch.from_numpy(batch.masked).to(queries.device)

        def objective(q: Tensor, d: Tensor) -> Tensor:
            return info_nce(q, d, masked, options.temperature, options.symmetric)

        return (matryoshka(objective, options.dimensions) if options.dimensions else objective)(queries, chunks)

    return loss


def _checks(ground: Ground, steps: int, settings: Settings) -> int:
    """Two to ten looks at dev that together take about a fifth of the time the steps take."""
    lengths = ground.chunks.lengths
    look = float(lengths[ground.dev.chunks].sum())
    step = 3 * settings.batch * (1 + settings.negatives) * float(lengths.mean())  # the backward pass takes two thirds
    return int(np.clip(0.2 * steps * step / max(look, 1.0), 2, 10))


def choose(loop: Loop, base: Weights, base_score: float, progress: Progress) -> tuple[Weights, float, str]:
    """Of the best state, the mean of the later ones and mixtures with the base: what dev likes best.

    Mixing weights with the base's (Wortsman et al., arXiv 2109.01903; LM-Cocktail, arXiv 2311.13534) keeps more of
    what the base knew; on equal dev values more of the base is preferred.
    """
    found: list[tuple[float, str, Weights]] = [(base_score, "base", base)]
    if loop.best:
        found.append((loop.state.best, "best", loop.best))
    if loop.state.averaged > 1:
        found.append((_score(loop, loop.average), "average", loop.average))
    tuned = max(found[1:], key=lambda item: item[0], default=None)
    if tuned is not None:
        for share in MIXTURES:
            mixed = {name: base[name].lerp(value, share) for name, value in tuned[2].items()}
            found.append((_score(loop, mixed), f"{tuned[1]} mixed {share:g}", mixed))
    score, name, weights = max(found, key=lambda item: item[0])
    for value, kept, _ in found:
        progress.event("choice", state=kept, value=round(value, 5))
    return weights, score, name


def _score(loop: Loop, weights: Weights) -> float:
    loop.put(weights)
    return loop.measure()


def truncation_notes(encoder: Encoder, data: TrainingData, chunks: Texts) -> list[str]:
    """What is lost because the model reads only so many tokens, and what helps."""
    limit = encoder.model.max_seq_length
    full = np.flatnonzero(chunks.lengths == limit) if limit else []
    if not len(full):
        return []
    lengths = encoder.full_lengths([data.chunks[chunk] for chunk in full])
    cut = lengths[lengths > limit]
    if not len(cut):
        return []
    lost = float((cut - limit).sum() / (chunks.lengths.sum() + (cut - limit).sum()))
    longest = longest_input(encoder.model)
    more = (
        f" The model can read {longest}: set max_length, at more time for each chunk." if (longest or 0) > limit else ""
    )
    return [
        f"{len(cut)} of {len(chunks)} chunks are longer than the {limit} tokens the model reads; {lost:.0%} of the text "
        f"is not seen.{more} Smaller chunks lose nothing."
    ]
