"""What a person may choose about tuning a model. Everything that is None is derived from the data; see defaults.py.

Loads no torch: the command line and the configuration read it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from vectune.embedders.models import DEFAULT_MODEL
from vectune.embedders.options import PRECISIONS, Precision
from vectune.errors import UsageError, check_bounds
from vectune.runs import hash_files

Method = Literal["full", "lora", "auto", "adapter", "query", "blend"]
BOUNDS = {
    "seed": (0, inf), "batch": (2, inf), "negatives": (0, inf), "negative_margin": (0, inf), "refresh": (0, inf),
    "remember": (0, inf), "anchor": (0, inf), "teacher_weight": (0, 1), "dropout": (0, 0.99), "weight_decay": (0, inf),
    "warmup": (0, 1), "memory_gib": (0, inf), "dev_chunks": (1, inf), "checks": (1, inf), "patience": (0, inf),
    "checkpoint_seconds": (0, inf), "lora_rank": (1, inf), "lora_alpha": (1, inf),
    "max_length": (4, inf),
}  # fmt: skip
CHOICES = {"method": get_args(Method), "precision": PRECISIONS}
ABOVE_NOTHING = ("epochs", "rate", "temperature", "max_minutes")
INDECISIVE = ("memory_gib", "checkpoint_seconds", "track")


@dataclass(frozen=True)
class TuneOptions:
    """How a model is tuned.

    Attributes:
        method: ``full`` trains every weight, ``lora`` low-rank additions, ``auto`` both as far as dev asks for it;
            ``adapter`` and ``query`` leave the documents' vectors as they are; ``blend`` adds a lexical tail to every
            vector. None: ``blend`` for queries that were cut from the chunks themselves, else ``full``.
        keep_index: never ask for a document to be embedded again: ``auto`` climbs from an adapter to the query encoder.
        tail: with ``full``, ``lora`` and ``auto``: put a lexical tail behind the tuned model's vectors, as ``blend``
            does behind the base's, at the weight that dev prefers.
        both_sides: with ``adapter``: map stored vectors, too, where that leads the query side alone.
        model: the model to start from; docs/reference/options.md has the names that there are.
        seed: seeds the order of the data and everything else that is drawn. Same seed, same machine: same weights.
        epochs: passes over the training pairs. None: from the number of pairs.
        batch: queries in a step. None: from the number of pairs.
        rate: peak learning rate. None: from the method, the batch and the negatives.
        negatives: mined hard negatives of each query; 0 trains on in-batch negatives alone. None: from the data.
        negative_margin: a mined chunk that scores above this share of the positive's score is taken for a positive.
        refresh: times that negatives are mined anew with the model as it is by then, evenly over the run.
        remember: chunks of the last steps that stay further negatives, with the vectors they had; 0 for none.
        temperature: cosines are divided by it before the softmax.
        symmetric: let each chunk find its query among the queries as well.
        dimensions: lengths that vectors shall be cut to (Matryoshka), largest first: these prefixes are trained besides
            the whole, in the basis of the documents' principal axes, and the model's space is turned to these axes at
            the end. Empty: the whole vector alone.
        anchor: weight that holds queries' and chunks' vectors near the base model's; 0 lets them go.
        anchor_texts: a file of general texts, one a line, that the anchor holds instead of the queries and chunks.
        teacher: who scores queries and chunks besides the judgments: ``lexical`` (BM25 and the untuned model fused),
            ``cross-encoder:NAME`` (slow: a step asks it queries × chunks times), or any embedder's name.
        teacher_weight: share of the teacher's distribution in the loss; the rest is the judgments'.
        dropout: of hidden states and attention while training. Above 0 attention is several times slower on CPUs.
        weight_decay: AdamW's, on matrices.
        warmup: share of the steps over which the rate rises.
        max_minutes: plan the run so that it ends in about this time; None takes the time it takes.
        max_length: tokens the model reads. None keeps the model's own setting; where over a quarter of the text lies
            beyond it, and the model's positions allow more, a model that is tuned whole reads up to twice as far.
        precision: ``auto`` takes bfloat16 where a short measurement finds it faster.
        memory_gib: activations of a step may take about this much; larger batches go through in pieces (GradCache).
            None: an eighth of the memory, from 1 to 3 GiB; a quarter of a GPU's.
        gradient_checkpointing: recompute activations in the backward pass; for large models.
        dev_chunks: chunks that the dev queries are searched among while training. None: 200 to 1,000, so that looks
            at dev take about a third of the time that the steps take.
        checks: looks at dev during the run. None: from the length of the run.
        patience: looks at dev without a gain until the run stops; 0 never stops early.
        checkpoint_seconds: a killed run loses at most about this much work.
        lora_rank: rank of the low-rank additions.
        lora_alpha: their scale, divided by the rank. None: twice the rank.
        trust_remote_code: run code that comes with the model.
        track: experiment trackers to log to: ``tensorboard``, ``wandb``, ``mlflow``, ``trackio``.
    """

    method: Method | None = None
    keep_index: bool = False
    tail: bool = False
    both_sides: bool = False
    model: str = DEFAULT_MODEL
    seed: int = 0
    epochs: float | None = None
    batch: int | None = None
    rate: float | None = None
    negatives: int | None = None
    negative_margin: float = 0.95
    refresh: int = 0
    remember: int = 0
    temperature: float = 0.05
    symmetric: bool = True
    dimensions: tuple[int, ...] = ()
    anchor: float = 0.0
    anchor_texts: str | None = None
    teacher: str | None = None
    teacher_weight: float = 0.5
    dropout: float = 0.0
    weight_decay: float = 0.01
    warmup: float = 0.1
    max_minutes: float | None = None
    max_length: int | None = None
    precision: Precision = "auto"
    memory_gib: float | None = None
    gradient_checkpointing: bool = False
    dev_chunks: int | None = None
    checks: int | None = None
    patience: int = 4
    checkpoint_seconds: float = 60.0
    lora_rank: int = 32
    lora_alpha: int | None = None
    trust_remote_code: bool = False
    track: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UsageError: one that makes no sense, with what is allowed.
        """
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UsageError(f"tune.{name}: '{value}': expected one of {', '.join(choices)}.")
        check_bounds("tune", self, BOUNDS, ABOVE_NOTHING)
        if self.refresh and self.negatives == 0:
            raise UsageError("tune.refresh: no negatives are mined that could be mined anew.", "Leave out one of both.")
        if self.anchor_texts is not None and not self.anchor:
            raise UsageError("tune.anchor_texts: the anchor has no weight.", "Set tune.anchor too, to 0.1 for example.")

    def decisive(self) -> dict[str, Any]:
        """What the weights depend on: all but what may change between a killed run and its next start."""
        found = {name: value for name, value in asdict(self).items() if name not in INDECISIVE}
        if self.anchor_texts is not None:
            found["anchor_texts"] = hash_files([Path(self.anchor_texts).expanduser()])
        return found
