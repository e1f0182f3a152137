"""Texts to token ids in bulk, exactly as sentence-transformers would, or not at all.

``BulkTokenizer.of`` compares its own features of a few awkward texts with those of the model's ``preprocess`` and gives
None where they differ (chat templates, images, processors of other kinds): the model's own way is taken then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PROBES = ("  a first TEXT, with spaces  ", "b", "zürich\n\n日本 — №5", "word " * 3000)


class BulkTokenizer:
    """The fast tokenizer of a model, without padding.

    Args:
        model: see ``of``.
        max_length: tokens to cut at; None = none.
    """

    def __init__(self, model: SentenceTransformer, max_length: int | None) -> None:
        from tokenizers import Tokenizer

        self._own: Any = model.tokenizer
        self._fast = Tokenizer.from_str(self._own.backend_tokenizer.to_str())  # a copy: settings are not shared
        self._fast.no_padding()
        if max_length is None:
            self._fast.no_truncation()
        else:
            self._fast.enable_truncation(max_length, direction=self._own.truncation_side)
        self._whole = Tokenizer.from_str(self._fast.to_str())
        self._whole.no_truncation()
        self.constant: dict[str, Any] = {"modality": "text"}

    @classmethod
    def of(cls, model: SentenceTransformer, max_length: int | None, prompt: str, role: str) -> BulkTokenizer | None:
        """A tokenizer that is known to agree with the model's own, or None."""
        if not hasattr(model.tokenizer, "backend_tokenizer"):
            return None
        bulk = cls(model, max_length)
        theirs = model.preprocess(list(PROBES), prompt=prompt, task=role)
        if "prompt_length" in theirs:  # for pooling that leaves the prompt out
            bulk.constant["prompt_length"] = theirs["prompt_length"]
        ours = bulk.features(bulk.ids(PROBES, prompt))
        agree = set(theirs) == set(ours) and all(_same(ours[key], theirs[key]) for key in ours)
        return bulk if agree else None

    def ids(self, texts: Sequence[str], prompt: str) -> list[list[int]]:
        """Token ids of each text with its prompt, cut at the maximum."""
        return [encoding.ids for encoding in self._encode(self._fast, texts, prompt)]

    def lengths(self, texts: Sequence[str], prompt: str) -> list[int]:
        """Tokens of each text with its prompt, not cut."""
        return [len(encoding.ids) for encoding in self._encode(self._whole, texts, prompt)]

    def features(self, ids: Sequence[list[int]]) -> dict[str, Any]:
        """A padded batch as the transformer takes it."""
        padded = self._own.pad({"input_ids": list(ids)}, padding=True, return_tensors="pt")
        features: dict[str, Any] = dict(padded)
        if "token_type_ids" in self._own.model_input_names:
            features["token_type_ids"] = torch.zeros_like(features["input_ids"])
        return {**features, **self.constant}

    @staticmethod
    def _encode(tokenizer: Any, texts: Sequence[str], prompt: str) -> Any:
        prompted = [prompt + text for text in texts]
        try:
            return tokenizer.encode_batch_fast(prompted)
        except (UnicodeEncodeError, TypeError):  # half a surrogate pair, as broken PDFs have them
            clean = [text.encode("utf-8", "replace").decode("utf-8") for text in prompted]
            return tokenizer.encode_batch_fast(clean)


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Tensor):
        return isinstance(theirs, Tensor) and torch.equal(ours, theirs)
    return bool(ours == theirs)
