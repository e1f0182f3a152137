"""The artifact folder: what the neighbours load, and vectune.json beside it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from vectune.embedders.loading import without_bars
from vectune.embedders.models import ARTIFACT_FILE
from vectune.runs import Json, versions, write_json, writing

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from vectune.training.options import TuneOptions
    from vectune.training.result import TuneResult


def save_artifact(
    model: SentenceTransformer, result: TuneResult, options: TuneOptions, adapter: Path | None = None
) -> None:
    """Write the folder whole or not at all; ``SentenceTransformer(folder)`` opens it.

    Args:
        model: the tuned model, low-rank additions merged.
        result: where to, and what to tell.
        options: kept in vectune.json.
        adapter: a folder that goes in as ``adapter/``: the low-rank additions alone, as peft reads them.
    """
    with writing(result.path) as beside, without_bars():
        model.save(str(beside), safe_serialization=True, create_model_card=False)
        if adapter is not None:
            shutil.copytree(adapter, beside / "adapter")
        (beside / ARTIFACT_FILE).write_text(json.dumps(_marker(result, options), indent=2) + "\n", encoding="utf-8")
        (beside / "README.md").write_text(_card(result), encoding="utf-8")


def told(result: TuneResult) -> Json:
    """What vectune.json says of how it went."""
    return {
        "dev": {"before": result.dev_before, "after": result.dev_after},
        "chosen": result.chosen,
        "notes": list(result.notes),
        "seconds": result.seconds,
    }


def retell(result: TuneResult) -> None:
    """Put what is known by now into a finished folder."""
    file = result.path / ARTIFACT_FILE
    write_json(file, {**json.loads(file.read_text(encoding="utf-8")), **told(result)})


def _marker(result: TuneResult, options: TuneOptions) -> Json:
    return {
        "kind": result.method,
        "base": result.model,
        "base_fingerprint": result.base_fingerprint,
        "vectune": versions().get("vectune", ""),
        "method": result.method,
        "options": dataclasses.asdict(options),
        **told(result),
    }


def read_result(folder: Path) -> TuneResult:
    """The result as its folder tells it."""
    from vectune.training.result import TuneResult

    marker = json.loads((folder / ARTIFACT_FILE).read_text(encoding="utf-8"))
    return TuneResult(
        path=folder,
        method=marker["method"],
        model=marker["base"],
        base_fingerprint=marker["base_fingerprint"],
        dev_before=marker["dev"]["before"],
        dev_after=marker["dev"]["after"],
        chosen=marker["chosen"],
        seconds=marker["seconds"],
        notes=tuple(marker["notes"]),
    )


def _card(result: TuneResult) -> str:
    notes = "".join(f"- {note}\n" for note in result.notes)
    measured = f"nDCG@10 on dev: {result.dev_before:.3f} before, {result.dev_after:.3f} after."
    if result.dev_before == result.dev_after == 0:  # LlamaIndex's way without a validation set
        measured = "Not measured: there was no dev split, or nothing was found on it."
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
        "tags: [sentence-transformers, feature-extraction, vectune]\n---\n\n"
        f"# {result.model}, tuned with vectune\n\n"
        f"Method: {result.method}. {measured}\n\n"
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer("this folder")\n'
        'model.encode_query("…")\nmodel.encode_document("…")\n```\n' + (f"\n{notes}" if notes else "")
    )
