"""How far texts are read: what a model does not see of its texts it cannot learn to find.

Many models are set to read fewer tokens than their positions allow (all-MiniLM-L6-v2: 256 of 512). Where much of the
corpus lies beyond, tuning teaches them to read on; before it, reading on gains little, as they have not learnt to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vectune.embedders.local import longest_input
from vectune.training.problem import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vectune.training.encoder import Encoder

LOST = 0.25  # share of the text beyond what a model reads from which it is taught to read on
FURTHER = 2  # times its own setting, at most: what a text costs grows as much
SAMPLE = 2000  # chunks that tell


@dataclass(frozen=True)
class Reach:
    """How far a model reads from now on.

    Attributes:
        own: tokens that it is set to read.
        now: tokens that it reads now.
        lost: share of the text beyond ``own``; None where a person chose ``now``.
    """

    own: int
    now: int
    lost: float | None = None

    def note(self, before: float, after: float) -> str:
        """What it means; nDCG@10 on dev of the untuned model, reading as it is set and as it reads now."""
        if self.lost is None:
            return (
                f"The tuned model reads {self.now} tokens, as asked for; the untuned one, with which it is compared, "
                f"{self.own}. {self._untuned(before, after)}"
            )
        return (
            f"{self.lost:.0%} of the text lies beyond the {self.own} tokens that the model is set to read, so the "
            f"tuned model reads {self.now}: embedding a text may take {self.now / self.own:g} times as long. Set "
            f"max_length to {self.own} to keep the setting. {self._untuned(before, after)}"
        )

    def given_up(self, before: float, after: float) -> str:
        """What it means where the untuned model is kept after all; arguments as for ``note``."""
        if self.lost is None:
            return (
                f"The model reads {self.own} tokens, as it is set: tuned to read {self.now}, as asked for, it was no "
                f"better. {self._untuned(before, after)}"
            )
        return (
            f"The model reads {self.own} tokens, as it is set, and {self.lost:.0%} of the text lies beyond. Tuning it "
            f"to read {self.now} gained nothing. {self._untuned(before, after)} Smaller chunks lose nothing."
        )

    def _untuned(self, before: float, after: float) -> str:
        return f"On dev the untuned model has {after:.3f} reading {self.now}, {before:.3f} reading {self.own}."


def further(encoder: Encoder, chunks: Sequence[str], own: int | None = None) -> Reach | None:
    """How far to read instead of the model's own setting; None where that is enough, or all that it can read.

    Args:
        encoder: with the model as it is set, or as a person has chosen.
        chunks: contents of the corpus.
        own: tokens that the model is set to read; None where that has not been changed.
    """
    now, limit = encoder.model.max_seq_length, longest_input(encoder.model)
    own = now if own is None else own
    if own is not None and now is not None and now != own:
        return Reach(int(own), int(now))
    if own is None or limit is None or limit <= own:
        return None
    lengths = encoder.full_lengths([chunks[int(row)] for row in spread(len(chunks), SAMPLE)])
    lost = float((lengths - own).clip(min=0).sum() / lengths.sum())
    return Reach(int(own), min(limit, FURTHER * int(own)), lost) if lost > LOST else None
