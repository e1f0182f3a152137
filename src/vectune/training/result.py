"""What tuning hands back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from vectune.runs import Json


@dataclass(frozen=True)
class TuneResult:
    """A finished artifact folder and how it came about.

    Attributes:
        path: the artifact folder.
        method: ``full``, ``lora``, ``adapter``, ``query``, ``words`` or ``blend``.
        model: the base model's name, or the folder of an artifact: what ``open_embedder`` opens it by.
        base_fingerprint: the base model's.
        dev_before: the base's nDCG@10 on dev.
        dev_after: the result's, on the same queries and chunks; never below ``dev_before``.
        chosen: what was derived or chosen: epochs, rate, batch, the state that was kept, its share in a mixture …
        seconds: how long it took, over all starts.
        notes: what a person should read: truncation, fallbacks, early stops.
    """

    path: Path
    method: str
    model: str
    base_fingerprint: str
    dev_before: float
    dev_after: float
    chosen: Json = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def to_json(self) -> Json:
        """Plain values, as a run's manifest keeps them."""
        return {**asdict(self), "path": self.path.name}
