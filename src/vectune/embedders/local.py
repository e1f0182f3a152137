"""LocalEmbedder: a sentence-transformers model on this machine, encoded faster than by its own ``encode``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from vectune.embedders.encoding import Encoding
from vectune.embedders.fingerprint import kept_fingerprint, model_fingerprint
from vectune.embedders.loading import load_model
from vectune.embedders.machine import fast_bf16
from vectune.embedders.options import DEFAULTS, PRECISIONS, EmbedOptions
from vectune.embedders.tokenizing import BulkTokenizer
from vectune.embedders.vectors import gathered, unit_rows
from vectune.errors import ModelError, UsageError

if TYPE_CHECKING:
    from vectune.protocols import Vectors

Role = Literal["query", "document"]
BLOCK = 8192  # texts that are tokenised and sorted by length together
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "mpnet", "camembert")  # their first two positions are not used


class LocalEmbedder:
    """A sentence-transformers model.

    Prompts, routes (Router), pooling and normalisation are the model's own, as in ``encode_query`` and
    ``encode_document``; the vectors are those of fp32 up to the rounding of bf16 where that is faster here.

    Args:
        model: a name (folder, hub id, short name), or a loaded model, whose weights may change between calls.
        options: see ``EmbedOptions``.
        name: what to call it; the given name by default.

    Raises:
        ModelError: the model cannot be loaded.
    """

    paid = False  # its vectors can be made again for nothing: the cache may remove them

    def __init__(
        self, model: str | SentenceTransformer, options: EmbedOptions = DEFAULTS, name: str | None = None
    ) -> None:
        if options.precision not in PRECISIONS:
            raise UsageError(f"precision is '{options.precision}', expected one of {', '.join(PRECISIONS)}.")
        self.options = options
        self._named = isinstance(model, str)
        if isinstance(model, str):
            self.name = name or model
            self.model = load_model(model, device=options.device, trust_remote_code=options.trust_remote_code)
        else:
            self.name = name or "model in memory"
            self.model = model
        if options.max_length is not None:
            self._set_max_length(options.max_length)

    def _set_max_length(self, tokens: int) -> None:
        limit = longest_input(self.model)
        if limit is not None and tokens > limit:
            raise ModelError(
                f"{self.name}: max_length is {tokens}, but the model has {limit} positions.",
                f"Set max_length to {limit} or less.",
            )
        if tokens < 4:
            raise ModelError(f"{self.name}: max_length is {tokens}; expected at least 4 tokens.")
        self.model.max_seq_length = tokens

    @cached_property
    def dim(self) -> int:
        return int(self.embed_documents(["a"]).shape[1])

    @property
    def max_length(self) -> int | None:
        """Tokens that the model reads of a text, special tokens and prompt included; None = no limit."""
        length = self.model.max_seq_length
        return int(length) if length is not None and length < 1_000_000 else None

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """The arithmetic in use."""
        if self.options.precision == "auto":
            return "bf16" if fast_bf16(self.model.device.type) else "fp32"
        return self.options.precision

    @property
    def fingerprint(self) -> str:
        if not self._named:  # its weights may have changed
            return model_fingerprint(self.model, self.prompts, self.options.dimensions)
        return self._kept_fingerprint

    @cached_property
    def _kept_fingerprint(self) -> str:
        return kept_fingerprint(self.model, self.prompts, self.options.dimensions)

    @property
    def cache_key(self) -> str:
        """The fingerprint and the arithmetic: vectors are kept apart by it, while an adapter fits both."""
        return f"{self.fingerprint[:32]}-{self.precision}"

    @property
    def prompts(self) -> dict[str, str]:
        """The prompt of each role."""
        own = {role: prompt or "" for role, prompt in (self.model.prompts or {}).items()}
        fallback = own.get(self.model.default_prompt_name or "", "")
        chosen = {"query": self.options.query_prompt, "document": self.options.document_prompt}
        names = {"query": ("query",), "document": ("document", "passage", "corpus")}
        return {
            role: given if given is not None else next((own[n] for n in names[role] if n in own), fallback)
            for role, given in chosen.items()
        }

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "query")

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, "document")

    def truncated(self, texts: Sequence[str], role: Role = "document") -> int:
        """How many of the texts are longer than the model reads."""
        limit = self.max_length
        if limit is None or not len(texts):
            return 0
        return int((self.token_lengths(texts, role) > limit).sum())

    def token_lengths(self, texts: Sequence[str], role: Role = "document") -> NDArray[np.int64]:
        """Tokens of each text, with prompt and special tokens, not cut: shape (len(texts),)."""
        prompt = self.prompts[role]
        if not hasattr(self.tokenizer, "backend_tokenizer"):
            counted = (self.tokenizer.encode(prompt + text) for text in texts)
            return np.array([len(getattr(ids, "ids", ids)) for ids in counted], dtype=np.int64)
        found: list[int] = []
        for start in range(0, len(texts), BLOCK):
            found += BulkTokenizer(self.model, None).lengths(texts[start : start + BLOCK], prompt)
        return np.array(found, dtype=np.int64)

    def stream(self, texts: Sequence[str], role: Role) -> Iterator[tuple[list[int], Vectors]]:
        """(places, vectors) of each batch as it is ready, longest texts first within a block.

        Raises:
            ModelError: a text has a zero vector, or one that is not finite.
        """
        encoding = Encoding.of(
            self.model,
            role,
            self.prompts[role],
            self.precision,
            self.options.batch_tokens,
            may_change=not self._named,
        )
        for start in range(0, len(texts), BLOCK):
            block = texts[start : start + BLOCK]
            for places, found in encoding.batches(self.model, block):
                vectors = found[:, : self.options.dimensions].numpy()
                yield [start + place for place in places], unit_rows(vectors, [block[p] for p in places], self.name)

    def _embed(self, texts: Sequence[str], role: Role) -> Vectors:
        if not len(texts):
            return np.zeros((0, self.dim), dtype=np.float32)
        return gathered(self.stream(texts, role), len(texts))


def longest_input(model: SentenceTransformer) -> int | None:
    """Tokens that the model's position embeddings allow; None where there is no fixed limit."""
    config: Any = getattr(model.transformers_model, "config", None)
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        return None
    return int(limit) - (2 if getattr(config, "model_type", "") in OFFSET_POSITIONS else 0)
