"""Loading a sentence-transformers model, with one clear error for each way in which that fails.

Weights are read from safetensors only, and code that comes with a model runs only when asked for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from vectune.embedders.models import TRUST_HINT, check_code, check_task, check_weights, local_folder
from vectune.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

# Weights that an encoder's vectors do not pass through; many published models lack them.
UNUSED = ("pooler.", "position_ids", "lm_head", "cls.predictions")


def load_model(name: str, *, device: str = "auto", trust_remote_code: bool = False) -> SentenceTransformer:
    """The model in fp32, in eval mode.

    Args:
        name: a folder, a hub id or a short name.
        device: a torch device, or ``auto``.
        trust_remote_code: run code that comes with the model.

    Raises:
        ModelError: no such model, pickled weights, foreign code, weights that do not match the config.
    """
    folder = _safe_folder(name, trust_remote_code)
    check_task(folder, name)
    reports: list[str] = []
    with _loading_reports(reports), _translated(name, reports):
        model = _open(folder, None if device == "auto" else device, trust_remote_code)
    _check_reports(name, reports)
    _check_words(name, model.tokenizer)
    return model.eval()


def _safe_folder(name: str, trust_remote_code: bool) -> Path:
    """Where the model is, once it is known that loading it runs no code that nobody asked for."""
    folder = local_folder(name)
    check_weights(folder, name)
    if not trust_remote_code:
        check_code(folder, name)
    return folder


def _open(folder: Path, device: str | None, trust_remote_code: bool) -> SentenceTransformer:
    import torch
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        str(folder),
        device=device,
        trust_remote_code=trust_remote_code,
        local_files_only=True,
        model_kwargs={"use_safetensors": True, "dtype": torch.float32},
    )


def load_cross_encoder(name: str, *, trust_remote_code: bool = False) -> CrossEncoder:
    """A reranker in fp32 that gives its raw score of each pair.

    Raises:
        ModelError: no such model, pickled weights, foreign code, weights that do not match the config.
    """
    import torch
    from sentence_transformers import CrossEncoder

    folder = _safe_folder(name, trust_remote_code)
    reports: list[str] = []
    with _loading_reports(reports), _translated(name, reports):
        model: CrossEncoder = CrossEncoder(
            str(folder),
            num_labels=1,
            activation_fn=torch.nn.Identity(),
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": torch.float32},
        )
    _check_reports(name, reports)
    return model


@contextmanager
def _translated(name: str, reports: list[str]) -> Iterator[None]:
    """Turn what the libraries below raise into one ModelError; ``reports`` hold what they only logged until then."""
    try:
        yield
    except ModelError:
        raise
    except SafetensorError as error:
        raise ModelError(
            f"{name}: a file of weights is damaged ({error}).", "Copy or download the model again."
        ) from error
    except (ValueError, OSError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        text = str(error)
        if "trust_remote_code" in text:
            raise ModelError(
                f"{name}: the model brings Python code of its own, which is not run.", TRUST_HINT
            ) from error
        if "size mismatch" in text or "mismatched" in text or "shape" in text:
            some = re.findall(r"([\w.{}, ]+?) *\| MISMATCH \| Reinit due to (.*?) *$", "\n".join(reports), re.MULTILINE)
            told = f"{some[0][0].strip()}: {some[0][1]}" if some else _first_lines(text)
            raise ModelError(
                f"{name}: the weights do not match the config: {told}",
                "config.json and the weights must be of the same model; copy or download both again.",
            ) from error
        raise ModelError(f"{name}: the model cannot be loaded: {_first_lines(text)}") from error


def _first_lines(text: str, limit: int = 400) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[:limit] + " …"


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the libraries' progress bars off the terminal while a model is loaded or saved."""
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def _loading_reports(reports: list[str]) -> Iterator[None]:
    """Catch what transformers only logs while it loads: weights it had to invent."""

    def catch(record: logging.LogRecord) -> bool:
        reports.append(record.getMessage())
        return False

    logger: Any = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(catch)
    try:
        with without_bars():
            yield
    finally:
        logger.removeFilter(catch)


def _check_reports(name: str, reports: list[str]) -> None:
    missing = [key for report in reports for key in _invented(report) if not any(part in key for part in UNUSED)]
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ModelError(
            f"{name}: the weights do not match the config: the file lacks {some}, which would be random.",
            "Is it an embedding model, and is the download or copy complete?",
        )


def _check_words(name: str, tokenizer: Any) -> None:
    """Refuse a tokenizer that was made up because its files are missing: every word would be the unknown one."""
    special = getattr(tokenizer, "all_special_tokens", None)
    if special and hasattr(tokenizer, "__len__") and len(tokenizer) <= len(special):
        raise ModelError(
            f"{name}: the tokenizer knows no words: its files (tokenizer.json) are missing.",
            "Is the download or copy complete?",
        )


def _invented(report: str) -> list[str]:
    """Names of weights that a report calls newly initialised (a table in transformers 5, a sentence in 4)."""
    table = [row.split("|") for row in report.splitlines() if row.count("|") >= 2]
    found = [row[0].strip() for row in table if "MISSING" in row[1] or "MISMATCH" in row[1]]
    if "newly initialized" in report and not table:
        found += re.findall(r"'([^']+)'", report.partition("newly initialized")[2])
    return found
