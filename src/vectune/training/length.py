"""How far texts are read: what a model does not see of its texts it cannot learn to find.

Many models are set to read fewer tokens than their positions allow (all-MiniLM-L6-v2: 256 of 512). Where much of the
corpus lies beyond, tuning teaches them to read on; before it, reading on gains little, as they have not learnt to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vectune.embedders.local import longest_input
from vectune.training.problem import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vectune.training.encoder import Encoder

LOST = 0.25  # share of the text beyond what a model reads from which it is taught to read on
FURTHER = 2  # times its own setting, at most: what a text costs grows as much
SAMPLE = 2000  # chunks that tell


def further(encoder: Encoder, chunks: Sequence[str]) -> int | None:
    """Tokens to read instead of the model's own setting; None where that is enough, or all that it can read.

    Args:
        encoder: with the model as it is set.
        chunks: contents of the corpus.
    """
    own, limit = encoder.model.max_seq_length, longest_input(encoder.model)
    if own is None or limit is None or limit <= own:
        return None
    lengths = encoder.full_lengths([chunks[int(row)] for row in spread(len(chunks), SAMPLE)])
    lost = (lengths - own).clip(min=0).sum() / lengths.sum()
    return min(limit, FURTHER * int(own)) if lost > LOST else None


def further_notes(own: int | None, now: int | None, before: float, further: float | None) -> list[str]:
    """What reading on means, where it is done.

    Args:
        own: tokens that the model is set to read.
        now: tokens that it reads now.
        before: nDCG@10 on dev of the untuned model, as it is set.
        further: the same, reading on; None where it does not.
    """
    if further is None:
        return []
    return [
        f"Over {LOST:.0%} of the text lies beyond the {own} tokens that the model is set to read, so the tuned model "
        f"reads {now}: embedding a text may take twice the time. Set max_length to {own} to keep the setting. "
        f"On dev the untuned model has {further:.3f} reading {now}, {before:.3f} reading {own}."
    ]
