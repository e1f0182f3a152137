"""Texts → vectors by a sentence-transformers model: sorted by length, in batches of tokens, without padding where the
architecture allows.

Three ways, the first that fits: packed (BERT and its kin on a CPU, see ``fast.py``), padded batches from the bulk
tokenizer, and the model's own ``preprocess`` for everything else (StaticEmbedding, chat templates).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor

from vectune.embedders.fast import FastBert
from vectune.embedders.packed import can_pack
from vectune.embedders.tokenizing import BulkTokenizer

CPU_TOKENS = 2048  # of a packed batch: its widest activations stay in the processor's cache
PADDED_TOKENS = 8192  # of a padded batch
GPU_TOKENS = 65_536
STATIC_TEXTS = 1024  # of a batch where there is no transformer
OWN_TEXTS = 32

Batch = tuple[list[int], Tensor]


class Encoding:
    """How one model encodes one role; made once and kept while the model's weights stay as they are.

    Args:
        model: the model.
        role: ``query`` or ``document``; chooses a Router's route.
        prompt: put before each text.
        precision: ``fp32`` or ``bf16``.
        batch_tokens: tokens of a batch; None = from the device.
    """

    def __init__(
        self, model: SentenceTransformer, role: str, prompt: str, precision: str, batch_tokens: int | None
    ) -> None:
        self.role, self.prompt, self.precision = role, prompt, precision
        self.modules = route(model, role)
        length = model.max_seq_length
        limit = int(length) if length is not None and length < 1_000_000 else None
        self.tokenizer = None
        if self.modules is not None and isinstance(self.modules[0], Transformer):
            self.tokenizer = BulkTokenizer.of(model, limit, prompt, role)
        self.fast = self._fast()
        self.copied: int | None = None  # checksum of the weights that ``fast`` copied, where they may change
        usual = CPU_TOKENS if self.fast else PADDED_TOKENS if model.device.type == "cpu" else GPU_TOKENS
        self.batch_tokens = batch_tokens or usual
        self.texts = OWN_TEXTS if self.modules and isinstance(self.modules[0], Transformer) else STATIC_TEXTS

    @classmethod
    def of(
        cls,
        model: SentenceTransformer,
        role: str,
        prompt: str,
        precision: str,
        batch_tokens: int | None,
        may_change: bool = True,
    ) -> Encoding:
        """The encoding of the model as it is now.

        Args:
            model, role, prompt, precision, batch_tokens: see the class.
            may_change: whether the weights may be others than at the last call. torch does not count every change
                (fused optimizers, ``.data``), so that they are read to tell.
        """
        state = tuple((id(weight), weight._version) for weight in model.parameters())
        known_state, known = _KEPT.get(model, ((), {}))
        if known_state != state:
            known = {}
            _KEPT[model] = (state, known)
        key = (role, prompt, precision, batch_tokens, model.max_seq_length, str(model.device))
        found = known.get(key)
        if found is None or (may_change and found.copied != found.checksum()):
            found = known[key] = cls(model, role, prompt, precision, batch_tokens)
            found.copied = found.checksum() if may_change else None
        return found

    def checksum(self) -> int | None:
        """Of the weights that were copied, as the model has them now; None where none were."""
        return self.fast[0].checksum() if self.fast else None

    def _fast(self) -> tuple[FastBert, str] | None:
        """The packed way and its pooling, where every module allows it."""
        if self.tokenizer is None or self.modules is None or len(self.modules) < 2:
            return None
        transformer, pooling = self.modules[:2]
        if not isinstance(pooling, Pooling) or not can_pack(transformer.model):
            return None
        mode = pooling.pooling_mode if isinstance(pooling.pooling_mode, str) else "+".join(pooling.pooling_mode)
        whole = pooling.include_prompt or not self.prompt
        on_cpu = all(weight.device.type == "cpu" for weight in transformer.model.parameters())
        if mode not in ("mean", "cls") or not whole or not on_cpu:
            return None
        return FastBert(transformer.model, torch.bfloat16 if self.precision == "bf16" else torch.float32), mode

    def batches(self, model: SentenceTransformer, texts: Sequence[str]) -> Iterator[Batch]:
        """(places, float32 vectors on the CPU) of each batch, as the model gives them."""
        model.eval()
        if self.tokenizer is None:
            yield from self._own_batches(model, texts)
            return
        ids = self.tokenizer.ids(texts, self.prompt)
        for places in _by_tokens([len(part) for part in ids], self.batch_tokens, padded=self.fast is None):
            batch = [ids[place] for place in places]
            with torch.inference_mode():
                found = self._packed(batch) if self.fast else self._padded(model, batch)
            yield places, found

    def _packed(self, ids: list[list[int]]) -> Tensor:
        assert self.fast is not None and self.modules is not None
        transformer, mode = self.fast
        lengths = np.array([len(part) for part in ids], dtype=np.int64)
        states = transformer(torch.from_numpy(np.concatenate(ids)), lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        if mode == "cls":
            pooled = states[torch.from_numpy(starts)]
        else:
            pooled = torch.segment_reduce(states, "mean", lengths=torch.from_numpy(lengths), axis=0)
        features: dict[str, Any] = {"sentence_embedding": pooled}
        for module in self.modules[2:]:
            features = module(features)
        vectors: Tensor = features["sentence_embedding"]
        return vectors.float()

    def _padded(self, model: SentenceTransformer, ids: list[list[int]]) -> Tensor:
        assert self.tokenizer is not None
        return self._forward(model, self.tokenizer.features(ids))

    def _own_batches(self, model: SentenceTransformer, texts: Sequence[str]) -> Iterator[Batch]:
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        for start in range(0, len(order), self.texts):
            places = order[start : start + self.texts]
            features = model.preprocess([texts[place] for place in places], prompt=self.prompt, task=self.role)
            with torch.inference_mode():
                found = self._forward(model, features)
            yield places, found

    def _forward(self, model: SentenceTransformer, features: dict[str, Any]) -> Tensor:
        on_device = {
            key: value.to(model.device) if isinstance(value, Tensor) else value for key, value in features.items()
        }
        with self._arithmetic(model.device.type):
            vectors: Tensor = model(on_device, task=self.role)["sentence_embedding"]
        return vectors.float().cpu()

    def _arithmetic(self, device: str) -> AbstractContextManager[Any]:
        return torch.autocast(device, dtype=torch.bfloat16) if self.precision == "bf16" else nullcontext()


_KEPT: WeakKeyDictionary[SentenceTransformer, tuple[Any, dict[Any, Encoding]]] = WeakKeyDictionary()


def route(model: SentenceTransformer, role: str) -> list[Any] | None:
    """The modules that texts of a role pass; None where that cannot be told."""
    modules: list[Any] = list(model.children())
    if isinstance(modules[0], Router):
        if role not in modules[0].sub_modules:
            return None
        chosen: Any = modules[0].sub_modules[role]
        modules = [*chosen, *modules[1:]]
    return None if any(isinstance(module, Router) for module in modules) else modules


def _by_tokens(lengths: Sequence[int], budget: int, padded: bool) -> Iterator[list[int]]:
    """Places in batches of about ``budget`` tokens, padding counted where there is any; the longest first."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    batch: list[int] = []
    tokens = 0
    for place in order:
        cost = lengths[batch[0]] if padded and batch else lengths[place]
        if batch and tokens + cost > budget:
            yield batch
            batch, tokens, cost = [], 0, lengths[place]
        batch.append(place)
        tokens += cost
    if batch:
        yield batch
