"""The anchor on general text: what the model makes of texts that are not its new subject stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vectune.errors import InputError
from vectune.training.encoder import Encoder
from vectune.training.objectives import drift

if TYPE_CHECKING:
    from vectune.protocols import Embedder

A_STEP = 32  # texts held at each step


def general_texts(path: str | None) -> list[str]:
    """The lines of a file that are not empty; none where there is no file.

    Raises:
        InputError: the file cannot be read or holds no text.
    """
    if path is None:
        return []
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error}).", path=Path(path)) from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError("holds no text.", path=Path(path))
    return found


class Anchor:
    """Adds ``weight · (1 − cosine to the base)`` over a draw of general texts to each step's loss.

    Args:
        encoder: the model in training.
        base: the model as it was.
        texts: general texts, read as documents.
        weight: of the drift in the loss.
        seed: of the draws; step ``n`` always holds the same texts.
    """

    def __init__(self, encoder: Encoder, base: Embedder, texts: list[str], weight: float, seed: int) -> None:
        self.encoder, self.weight, self.seed = encoder, weight, seed
        self.tokens, self.vectors = encoder.tokenize(texts, "document"), base.embed_documents(texts)

    def backward(self, step: int) -> None:
        """Add this step's gradients."""
        draw = np.random.default_rng([self.seed, 17, step])
        rows = draw.choice(len(self.tokens), min(A_STEP, len(self.tokens)), replace=False)
        found = self.encoder.vectors(self.tokens, rows)
        before = torch.from_numpy(self.vectors[rows]).to(found.device)
        (self.weight * drift(found, before)).backward()  # type: ignore[no-untyped-call]
