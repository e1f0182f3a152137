"""Tokens as a model counts them, without loading the model: its tokenizer, how much it reads, and a fast counter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vectune.embedders.models import model_path
from vectune.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_WORDS = 300_000  # in the table of counts: a corpus of numbers must not fill the memory
LONG_WORD = 100  # WordPiece's own limit
_WORD_OR_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^ \t\n\r\u3400-\u4dbf\u4e00-\u9fff]+")
_WORD = re.compile(r"[^ \t\n\r]+")
_SPACED_WORD = re.compile(r"\s*\S+|\s+")


def load_tokenizer(model: str | Path) -> Tokenizer:
    """The model's tokenizer without torch, and without the truncation and padding that its file may ask for.

    Raises:
        ModelError: there is no such model, or it has no ``tokenizer.json``.
    """
    file = _model_file(str(model), "tokenizer.json")
    if file is None:
        hint = "Chunks are counted in the model's tokens; name a model that has the file."
        raise ModelError(f"{model}: the model has no tokenizer.json.", hint)
    return read_tokenizer(file)


def read_tokenizer(file: Path) -> Tokenizer:
    """A ``tokenizer.json``, without the truncation and padding that it may ask for.

    Raises:
        ModelError: it is not a tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises a bare Exception
        raise ModelError(f"{file}: not a tokenizer ({error}).") from error
    tokenizer.no_truncation()  # or every long text would count as the 128 tokens that all-MiniLM's file cuts at
    tokenizer.no_padding()
    return tokenizer


def model_reads(model: str | Path) -> int:
    """How many tokens of a text the model reads, prompt and special tokens included; the rest is cut off silently.

    Raises:
        ModelError: there is no such model.
    """
    for name, keys in (
        ("sentence_bert_config.json", ("max_seq_length",)),
        ("tokenizer_config.json", ("model_max_length",)),
        ("config.json", ("max_position_embeddings", "n_positions")),
    ):
        file = _model_file(str(model), name)
        found = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
        for key in keys:
            if isinstance(found.get(key), int) and 0 < found[key] < 10**6:
                return int(found[key])
    return 512  # a model without positions (StaticEmbedding) reads everything; a chunk should still be one thought


def document_prompt(model: str | Path) -> str:
    """What the model's authors want in front of every document (``passage: ``); empty for most.

    Raises:
        ModelError: there is no such model.
    """
    file = _model_file(str(model), "config_sentence_transformers.json")
    config = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
    prompts = config.get("prompts") or {}
    for role in ("document", "passage", "corpus", config.get("default_prompt_name")):
        if role in prompts:
            return str(prompts[role] or "")
    return ""


def _model_file(model: str, name: str) -> Path | None:
    where = Path(model_path(model))
    if where.is_dir():
        return next((file for file in (where / name, *sorted(where.glob(f"0_*/{name}"))) if file.exists()), None)
    return _hub_file(where.as_posix(), name)


def _hub_file(hub_id: str, name: str) -> Path | None:
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(hub_id, name)
    if isinstance(cached, str):
        return Path(cached)
    try:
        files = HfApi().model_info(hub_id, timeout=10).siblings or []
        if name not in {file.rfilename for file in files}:
            return None
        return Path(hf_hub_download(hub_id, name))
    except Exception as error:  # the hub has many ways to say no, or to be out of reach
        said = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{hub_id}: not on this machine, and the hub does not give it ({said}).",
            "Check the name and the network, or name a folder that holds the model.",
        ) from error


class TokenCounter:
    """Counts tokens of a text, special tokens left out.

    The tokenizer of most embedding models cuts at white space first, so a text's count is the sum of its words' counts,
    each tokenized once. Others get the white space in front of a word as part of it, which may be off by a token here
    and there; ``exact`` tells. A word of over a hundred letters (WordPiece gives up on it and counts one token) counts
    as at least one token for 16 letters, so that a megabyte of base64 is not one small chunk.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.special_tokens = int(tokenizer.num_special_tokens_to_add(is_pair=False))
        pattern = next((pattern for pattern in (_WORD_OR_HAN, _WORD) if _cuts_at(pattern, tokenizer)), None)
        self.exact = pattern is not None
        self._pieces = (pattern or _SPACED_WORD).findall
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        pieces = self._pieces(text)
        try:
            return sum(map(self._known.__getitem__, pieces))
        except KeyError:
            return self._learn(pieces)

    def _learn(self, pieces: list[str]) -> int:
        if len(self._known) > MOST_WORDS:
            self._known.clear()
        new = [piece for piece in set(pieces) if piece not in self._known]
        encodings = self.tokenizer.encode_batch(new, add_special_tokens=False)
        counts = {piece: len(encoding.ids) for piece, encoding in zip(new, encodings, strict=True)}
        for piece in [piece for piece in counts if len(piece) > LONG_WORD]:  # hardly met again: not worth the memory
            counts[piece] = max(counts[piece], len(piece) // 16)
        self._known.update((piece, count) for piece, count in counts.items() if len(piece) <= LONG_WORD)
        return sum(counts[piece] if piece in counts else self._known[piece] for piece in pieces)


def _cuts_at(pattern: re.Pattern[str], tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer takes the pattern's matches apart from each other; tried out on a text with many kinds."""

    def pieces(text: str) -> list[str]:
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        return [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]

    if tokenizer.pre_tokenizer is None:
        return False
    trial = "Ab  c,d\n\n e\tf . g汉字h 国."
    return pieces(trial) == [piece for word in pattern.findall(trial) for piece in pieces(word)]
