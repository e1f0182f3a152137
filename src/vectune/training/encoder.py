"""The model as the training loop sees it: texts tokenised once, and vectors with gradients from token lists.

A batch's texts are sorted by length and go through the model in pieces of about equal token counts: little padding,
and pieces that stay in a processor's cache. Any module stack of sentence-transformers works, since the pieces are
given to the stack itself; what a text is turned into (prompt, truncation, special tokens) is its own preprocessing.
On CPUs the transformer of BERT's kin is replaced by ``embedders.packed.PackedBert``: the same without padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from vectune.embedders.packed import PackedBert, can_pack

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    Ints = NDArray[np.int64]

Role = Literal["query", "document"]
GPU_PIECES = (512, 65_536)  # tokens of a piece there


@dataclass
class Texts:
    """Tokenised texts: ids of row ``i`` are ``ids[starts[i]:starts[i + 1]]``.

    Attributes:
        ids: all token ids, one after another; int32.
        starts: offsets into ``ids``, shape (n + 1,).
        types: token types where the model has them, same shape as ``ids``.
        extras: what the preprocessing told besides, such as the length of the prompt; the same for every text.
    """

    ids: NDArray[np.int32]
    starts: Ints
    types: NDArray[np.int32] | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def at(self, rows: Ints) -> tuple[Texts, Ints]:
        """Tokens of some rows, and where these rows are among them; ``streamed.StreamedTexts`` makes them now."""
        return self, rows

    def sample(self) -> Ints:
        """Rows whose lengths stand for all: all of them."""
        return np.arange(len(self))

    @property
    def lengths(self) -> Ints:
        """Tokens of each text; shape (n,)."""
        return np.diff(self.starts)


class Encoder:
    """A sentence-transformers model with batching of its own.

    Args:
        model: the model; its parameters are what is trained.
        dtype: the type of matrix products; parameters stay in float32.
        piece_tokens: tokens, padding included, that go through the model at a time.
        checkpoints: whether the transformer computes its layers again in the backward pass.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        dtype: torch.dtype = torch.float32,
        piece_tokens: int = 2048,
        checkpoints: bool = False,
    ) -> None:
        self.model, self.dtype, self.piece_tokens = model, dtype, piece_tokens
        self.device = model.device
        self.static = not hasattr(model[0], "auto_model")
        self.padding = _padding(model)
        transformer = getattr(model[0], "auto_model", None)
        # a packed transformer has layers of its own, which keep what they computed
        packs = self.device.type == "cpu" and not (checkpoints or any(_dropouts(model))) and can_pack(transformer)
        self.packed = PackedBert(transformer, dtype) if packs and transformer is not None else None
        self.token_bytes = _token_bytes(model, dtype, numbers=11 if packs else 23)

    def fit_pieces(self, room: float) -> None:
        """On a GPU pieces as large as ``room`` bytes of activations allow: small ones leave it idle.

        A processor's pieces stay as they are, so that they fit its cache.
        """
        if self.device.type != "cpu":
            self.piece_tokens = int(np.clip(room / self.token_bytes, *GPU_PIECES))

    # Texts → tokens

    def tokenize(self, texts: Sequence[str], role: Role) -> Texts:
        """The texts as the model reads them in this role, with its prompt and cut to its length."""
        prompt = prompt_of(self.model, role)
        ids: list[NDArray[np.int32]] = []
        types: list[NDArray[np.int32]] = []
        extras: dict[str, Any] = {}
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of one length are padded little
        for start in range(0, len(order), 256):
            features = preprocess(self.model, [texts[i] for i in order[start : start + 256]], prompt)
            rows, row_types = _rows(features)
            ids.extend(rows)
            types.extend(row_types)
            extras.update({key: value for key, value in features.items() if not isinstance(value, Tensor)})
        back = np.argsort(np.array(order, dtype=np.int64), kind="stable")
        ids = [ids[i] for i in back]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
        flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
        return Texts(flat, starts, np.concatenate([types[i] for i in back]) if types else None, extras)

    @contextmanager
    def reading(self, length: int) -> Iterator[None]:
        """Texts are cut to this length for a while."""
        before = self.model.max_seq_length
        self.model.max_seq_length = length
        try:
            yield
        finally:
            self.model.max_seq_length = before

    def full_lengths(self, texts: Sequence[str]) -> Ints:
        """Tokens of each text as a document, special tokens included, without truncation; shape (n,)."""
        prompt = prompt_of(self.model, "document") or ""
        tokenizer = self.model.tokenizer
        if not callable(tokenizer):  # StaticEmbedding has a bare tokenizer and no limit
            return np.array([len(tokenizer.encode(prompt + text).ids) for text in texts], dtype=np.int64)
        found = tokenizer([prompt + text for text in texts], truncation=False, padding=False, verbose=False)
        return np.array([len(ids) for ids in found["input_ids"]], dtype=np.int64)

    # Tokens → vectors

    def vectors(self, texts: Texts, rows: Ints) -> Tensor:
        """Unit vectors of these rows, with gradients where they are enabled; float32 of shape (len(rows), dim)."""
        pieces = list(self.pieces(texts, rows))
        return self.in_order([self.piece(texts, rows[piece]) for piece in pieces], pieces)

    def pieces(self, texts: Texts, rows: Ints) -> Iterator[Ints]:
        """Positions within ``rows``, longest texts first, cut so that a piece with its padding fits the budget."""
        lengths = texts.lengths[rows]
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            rest = lengths[order[start:]]
            full = np.cumsum(rest) if self.packed else rest[0] * np.arange(1, len(rest) + 1)
            count = max(1, int(np.searchsorted(full, self.piece_tokens, side="right")))
            yield order[start : start + count]
            start += count

    def piece(self, texts: Texts, rows: Ints) -> Tensor:
        """One pass through the model, longest text first; unit vectors, float32 of shape (len(rows), dim)."""
        if self.packed is not None:
            return self._packed_piece(self.packed, texts, rows)
        features = {key: _moved(value, self.device) for key, value in self._collate(texts, rows).items()}
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            vectors: Tensor = self.model(features)["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    def _packed_piece(self, packed: PackedBert, texts: Texts, rows: Ints) -> Tensor:
        """The transformer without padding; the modules behind it (pooling, dense layers) get its padded output."""
        lengths = texts.lengths[rows]
        where = np.concatenate([np.arange(texts.starts[row], texts.starts[row + 1]) for row in rows])
        ids = torch.from_numpy(texts.ids[where].astype(np.int64))
        types = None if texts.types is None else torch.from_numpy(texts.types[where].astype(np.int64))
        states = packed(ids, types, lengths).float()
        width = int(lengths[0])
        mask = np.arange(width) < lengths[:, None]
        table = states.new_zeros(mask.size, states.shape[1])
        table = table.index_copy(0, torch.from_numpy(np.flatnonzero(mask)), states)
        features: dict[str, Any] = {
            **texts.extras,
            "token_embeddings": table.view(*mask.shape, -1),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        }
        for module in list(self.model)[1:]:
            features = module(features)
        return torch.nn.functional.normalize(features["sentence_embedding"].float(), dim=-1)

    def in_order(self, parts: list[Tensor], pieces: list[Ints]) -> Tensor:
        """The pieces' vectors in the order of the rows that the pieces were cut from; of no rows, shape (0, dim)."""
        if not parts:
            return torch.zeros(0, int(self.model.get_embedding_dimension() or 0), device=self.device)
        back = np.argsort(np.concatenate(pieces), kind="stable")
        return torch.cat(parts)[torch.from_numpy(back).to(parts[0].device)]

    def embed(self, texts: Texts, rows: Ints | None = None) -> NDArray[np.float32]:
        """Unit vectors without gradients; float32 of shape (rows, dim)."""
        rows = np.arange(len(texts)) if rows is None else rows
        training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            found: NDArray[np.float32] = self.vectors(texts, rows).cpu().numpy()
        self.model.train(training)
        return found

    def _collate(self, texts: Texts, rows: Ints) -> dict[str, Any]:
        lengths = texts.lengths[rows]
        if self.static:
            offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            flat = np.concatenate([texts.ids[texts.starts[row] : texts.starts[row + 1]] for row in rows])
            return {"input_ids": torch.from_numpy(flat.astype(np.int64)), "offsets": torch.from_numpy(offsets)}
        pad, left = self.padding
        width = int(lengths.max())
        columns = np.arange(width)
        mask = columns >= width - lengths[:, None] if left else columns < lengths[:, None]
        features: dict[str, Any] = {**texts.extras, "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        where = np.concatenate([np.arange(texts.starts[row], texts.starts[row + 1]) for row in rows])
        for key, values, fill in (("input_ids", texts.ids, pad), ("token_type_ids", texts.types, 0)):
            if values is not None:
                table = np.full((len(rows), width), fill, dtype=np.int64)
                table[mask] = values[where]
                features[key] = torch.from_numpy(table)
        return features


def _token_bytes(model: SentenceTransformer, dtype: torch.dtype, numbers: int) -> int:
    """About what one token's activations take until the backward pass, at so many numbers a hidden unit and layer."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    hidden, layers = getattr(config, "hidden_size", 64), getattr(config, "num_hidden_layers", 0)
    return int(hidden * layers * numbers * (4 if dtype == torch.float32 else 2)) + 64


def _dropouts(model: SentenceTransformer) -> Iterator[float]:
    return (module.p for module in model.modules() if isinstance(module, torch.nn.Dropout))


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _padding(model: SentenceTransformer) -> tuple[int, bool]:
    """The padding token's id, and whether padding stands on the left, as for some decoders."""
    tokenizer = model.tokenizer
    return int(getattr(tokenizer, "pad_token_id", 0) or 0), getattr(tokenizer, "padding_side", "right") == "left"


def preprocess(model: SentenceTransformer, texts: list[str], prompt: str | None) -> dict[str, Any]:
    """What the model takes for these texts, padded; with the prompt's length, which some models' pooling leaves out."""
    own = getattr(model, "preprocess", None)
    if own is not None:  # sentence-transformers 6
        return dict(own(texts, prompt=prompt))
    if prompt:
        texts = [prompt + text for text in texts]
    return dict(model.tokenize(texts))


def prompt_of(model: SentenceTransformer, role: Role) -> str | None:
    """The prompt that ``encode_query`` or ``encode_document`` would put before a text."""
    names = ("query",) if role == "query" else ("document", "passage", "corpus")
    for name in names:
        if name in model.prompts:
            return model.prompts[name] or None
    default = model.default_prompt_name
    return model.prompts.get(default) if default is not None else None


def _rows(features: dict[str, Any]) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
    """The padded tensors of one call as one array for each text, without padding."""
    ids = features["input_ids"].numpy().astype(np.int32)
    if "offsets" in features:  # StaticEmbedding: already flat
        return np.split(ids, features["offsets"].numpy()[1:]), []
    mask = features["attention_mask"].numpy().astype(bool)
    rows = [row[kept] for row, kept in zip(ids, mask, strict=True)]
    types = features.get("token_type_ids")
    if types is None:
        return rows, []
    table = types.numpy().astype(np.int32)
    return rows, [row[kept] for row, kept in zip(table, mask, strict=True)]
