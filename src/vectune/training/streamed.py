"""Texts that are tokenised when a batch asks for them: of ten million, all tokens would fill the memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectune.training.encoder import Encoder, Role, Texts
from vectune.training.problem import spread

if TYPE_CHECKING:
    from vectune.training.data import Ints

SAMPLE = 2000  # texts whose lengths stand for all


class StreamedTexts:
    """As ``Texts``, over texts on disk. Tokenising a batch takes a few milliseconds, a step a hundred and more.

    Args:
        encoder: whose tokens are wanted.
        texts: read when they are asked for.
        role: of the texts.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str], role: Role) -> None:
        self.encoder, self.texts, self.role = encoder, texts, role

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, rows: Ints) -> tuple[Texts, Ints]:
        """Tokens of some rows, and where these rows are among them."""
        return self.encoder.tokenize([self.texts[row] for row in rows], self.role), np.arange(len(rows))

    def sample(self) -> Ints:
        """Rows, evenly spread, whose lengths stand for all."""
        return spread(len(self), SAMPLE)
