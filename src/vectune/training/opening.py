"""The model, opened for training: dropout as asked for, low-rank additions where wanted, and all of it undone after."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vectune.embedders.loading import load_model
from vectune.embedders.local import LocalEmbedder
from vectune.embedders.machine import fast_bf16
from vectune.embedders.options import EmbedOptions
from vectune.errors import MissingExtraError, ModelError
from vectune.runs import decided_once

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from vectune.embedders.options import Precision
    from vectune.training.options import TuneOptions

ATTRIBUTES = ("attention_dropout", "dropout_prob", "dropout")  # where attention modules keep a probability of their own


def settled_precision(options: TuneOptions, kept: Path) -> Precision:
    """The arithmetic of a run: as asked, else by a short measurement whose outcome is kept.

    A second start must not measure anew: on a loaded machine the clock may say otherwise, and the base's vectors, the
    mined negatives and the steps would be others.

    Args:
        options: a person's choices.
        kept: file of the outcome, beside the checkpoints.
    """
    from sentence_transformers.util import get_device_name

    if options.precision != "auto":
        return options.precision

    def faster() -> Precision:
        return "bf16" if fast_bf16(get_device_name()) else "fp32"

    return decided_once(kept, "precision", faster)


def open_model(options: TuneOptions) -> tuple[SentenceTransformer, LocalEmbedder, int | None]:
    """The model, the embedder that it is before training, and how many tokens it is set to read by itself.

    Raises:
        ModelError: it does not exist, cannot be opened safely, has nothing that can be trained, or is two encoders.
    """
    from sentence_transformers.base.modules import Router

    model = load_model(options.model, trust_remote_code=options.trust_remote_code)
    if isinstance(model[0], Router):
        raise ModelError(
            f"{options.model}: queries and documents take different ways through it, and one is all that is tuned.",
            "Tune the model that it was made over, or use --method adapter, which works over any embedder.",
        )
    for module in _behind_norm(model):
        module.requires_grad_(False)  # an earlier tuning's turn (axes.py): trained, it would undo the unit norm
    if not any(p.requires_grad for p in model.parameters()):
        raise ModelError(f"{options.model}: the model has no weights that can be trained.")
    own = model.max_seq_length
    embedder = LocalEmbedder(
        model, EmbedOptions(max_length=options.max_length, precision=options.precision), options.model
    )
    if options.gradient_checkpointing and hasattr(model[0], "auto_model"):
        transformer: Any = model[0].auto_model
        enable = getattr(transformer, "activation_checkpointing_enable", None)  # its name since transformers 5
        (enable or transformer.gradient_checkpointing_enable)()
    return model, embedder, own


def _behind_norm(model: SentenceTransformer) -> list[torch.nn.Module]:
    """The modules behind the one that brings vectors to unit norm."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    modules = list(model)
    norm = next((place for place, module in enumerate(modules) if isinstance(module, Normalize)), len(modules))
    return modules[norm + 1 :]


@contextmanager
def dropout_at(model: SentenceTransformer, value: float) -> Iterator[None]:
    """All dropout at one value; what the model came with is put back at the end."""
    before: list[tuple[Any, str, float]] = []
    for module in model.modules():
        for attribute in ("p",) if isinstance(module, torch.nn.Dropout) else ATTRIBUTES:
            if isinstance(found := getattr(module, attribute, None), float):
                before.append((module, attribute, found))
                setattr(module, attribute, value)
    try:
        yield
    finally:
        for module, attribute, found in before:
            setattr(module, attribute, found)


@contextmanager
def repeatable() -> Iterator[None]:
    """Sums in one order on CPUs: torch's threads add up the gradients of an index as they come (``index_put_``).

    What is left uninitialised is not filled, which would cost time and change nothing.
    """
    wanted = not torch.cuda.is_available()  # there, some kernels of every model have no such form
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    if wanted:
        torch.use_deterministic_algorithms(True)
        settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]


def add_lora(model: SentenceTransformer, options: TuneOptions) -> Any:
    """Freeze the model and add trainable low-rank matrices to every linear map (Hu et al., arXiv 2106.09685).

    Returns:
        peft's wrapper of the transformer, for ``merge_lora``.

    Raises:
        ModelError: the model has no transformer.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtraError("peft", "train", "LoRA") from None
    if not hasattr(model[0], "auto_model"):
        raise ModelError(f"{options.model}: LoRA needs a transformer, and this model has none.", "Use --method full.")
    model.requires_grad_(False)
    torch.manual_seed(options.seed)  # what the additions begin with must not depend on what else has been drawn
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha or 2 * options.lora_rank,
        target_modules="all-linear",
        lora_dropout=0.0,
        task_type="FEATURE_EXTRACTION",
    )
    transformer: Any = model[0].auto_model
    with warnings.catch_warnings():  # peft asks transformers for what it has renamed
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(transformer, config)


def merge_lora(wrapper: Any, folder: Path) -> None:
    """Save the additions as peft's adapter, then add them to the weights for good."""
    wrapper.save_pretrained(str(folder))
    wrapper.merge_and_unload()
