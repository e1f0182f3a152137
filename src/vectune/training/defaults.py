"""Defaults that follow from the data: how many pairs there are, how long they are, and what the machine can do."""

from __future__ import annotations

from dataclasses import dataclass

from vectune.training.options import TuneOptions

Reason = tuple[str, str, str]  # what, value, why


@dataclass(frozen=True)
class Settings:
    """What the loop uses, nothing left open."""

    epochs: float
    batch: int
    rate: float
    negatives: int
    why: tuple[Reason, ...] = ()


def settle(
    options: TuneOptions, queries: int, pairs: int, pool: int, lora: bool = False, static: bool = False
) -> Settings:
    """Fill in what the options leave open.

    Args:
        options: a person's choices; they always win.
        queries: train queries.
        pairs: train judgments.
        pool: chunks that may serve as negatives.
        lora: whether low-rank additions are trained instead of all weights.
        static: whether the model is a table of word vectors.
    """
    why: list[Reason] = []

    def choose(what: str, given: float | None, value: float, reason: str) -> float:
        why.append((what, f"{value if given is None else given:g}", reason if given is None else "as asked"))
        return value if given is None else given

    negatives = int(choose("negatives", options.negatives, *_negatives(pool)))
    batch = int(choose("batch", options.batch, *_batch(queries, negatives)))
    epochs = choose("epochs", options.epochs, *_epochs(pairs))
    rate = choose("rate", options.rate, *_rate(negatives, batch, lora, static))
    return Settings(epochs, batch, rate, negatives, tuple(why))


def _negatives(pool: int) -> tuple[int, str]:
    if pool < 20:
        return 0, f"only {pool} chunks to choose from"
    return 1, "one mined chunk a query taught as much as several in the time of one"


def _batch(queries: int, negatives: int) -> tuple[int, str]:
    if queries < 64:
        return max(2, min(16, queries // 2)), f"{queries} queries: several steps an epoch matter more than negatives"
    if not negatives:
        return 32, "without mined negatives smaller steps learnt more"
    return 64, f"{queries} queries with mined negatives"


def _epochs(pairs: int) -> tuple[float, str]:
    epochs = 10 if pairs < 200 else 6 if pairs < 1000 else 4 if pairs < 3000 else 2 if pairs < 10_000 else 1
    return epochs, f"{pairs} pairs; dev decides which state is kept"


def _rate(negatives: int, batch: int, lora: bool, static: bool) -> tuple[float, str]:
    if static:
        return 5e-3, "a table of word vectors: a step reaches only the words in it"
    rate = 1e-4 if negatives and batch >= 32 else 5e-5
    return (rate * 10, "low-rank additions start at nothing") if lora else (rate, "by batch and negatives")
