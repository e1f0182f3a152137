"""Facts and tensors on disk: NAME.safetensors, and NAME.json with the facts and the hashes of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune.adapters import read_json
from vectune.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN = ("format", "sha256", "facts_sha256")  # of the card, beside the facts
AGAIN = "Tune again, or take the folder from where it was first written."


@dataclass(frozen=True)
class Carded:
    """What a fitted thing is made of.

    Attributes:
        facts: what JSON can hold.
        tensors: by name.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]

    @property
    def fingerprint(self) -> str:
        """Hash of all of it."""
        digest = hashlib.sha256(json.dumps(dict(self.facts), ensure_ascii=False).encode("utf-8", "surrogatepass"))
        for tensor in self.tensors.values():
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()

    def save(self, folder: Path, name: str) -> None:
        """Write both files into an existing folder."""
        from safetensors.numpy import save

        content = save(dict(self.tensors))
        (folder / f"{name}.safetensors").write_bytes(content)
        hashes = {"sha256": hashlib.sha256(content).hexdigest(), "facts_sha256": _hash(self.facts)}
        card = {"format": 1, **hashes, **self.facts}
        (folder / f"{name}.json").write_text(json.dumps(card, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, name: str) -> Carded:
        """Read what ``save`` wrote.

        Raises:
            ModelError: a file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        card, weights = read_json(folder / f"{name}.json"), folder / f"{name}.safetensors"
        facts = {key: value for key, value in card.items() if key not in OWN}
        if card.get("facts_sha256", _hash(facts)) != _hash(facts):
            raise ModelError(f"{folder / name}.json: was edited after it was written.", AGAIN)
        try:
            content = weights.read_bytes()
            if hashlib.sha256(content).hexdigest() != card["sha256"]:
                raise ModelError(f"{weights}: was changed after it was written.", AGAIN)
            return cls(facts, load(content))
        except FileNotFoundError:
            raise ModelError(f"{weights}: the file is missing.") from None
        except (OSError, KeyError, SafetensorError) as error:
            raise ModelError(f"{folder}: holds no whole {name} ({error}).") from None


def _hash(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(facts), ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
