"""The model card: README.md in an artifact, saying what it was made from, how good it is, and how to use it.

Its head is the metadata that the Hugging Face hub reads (https://huggingface.co/docs/hub/model-cards); every value is
written as JSON, which is YAML, so that no name can break out of it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from vectune.board import Board, Row, figure, renamed
from vectune.embedders.models import ARTIFACT_FILE, DEFAULT_MODEL
from vectune.errors import InputError
from vectune.runs import Json, writing
from vectune.verdict import KEEPS_DOCUMENTS

CARD_FILE = "README.md"
KINDS = {
    "full": "every weight of the base was tuned",
    "lora": "low-rank updates of the base's weights, merged into them",
    "query": "the query encoder was tuned; documents keep the base's vectors",
    "adapter": "a small map over the base's query vectors; documents keep the base's vectors",
    "words": "queries' vectors get their words added; documents keep the base's vectors",
    "blend": "a lexical part behind the model's vector, in one vector",
}


def write_model_card(run: Path) -> Path:
    """Write ``model/README.md`` of a run from what the run measured.

    Raises:
        InputError: the run has no artifact.
    """
    folder = Path(run) / "model"
    marker = _read(folder / ARTIFACT_FILE)
    if marker is None:
        raise InputError(f"{folder} holds no {ARTIFACT_FILE}: there is no artifact to describe.")
    board = Board.read(Path(run) / "board.json") if (Path(run) / "board.json").exists() else None
    text = model_card(
        marker,
        board=board,
        verdict=_about(folder, _read(Path(run) / "verdict.json")),
        dataset=_read(Path(run) / "dataset" / "dataset.json"),
        loads=(folder / "modules.json").exists(),
    )
    with writing(folder / CARD_FILE) as beside:
        beside.write_bytes(text.encode("utf-8", "replace"))
    return folder / CARD_FILE


def _about(folder: Path, verdict: Json | None) -> Json | None:
    """A run's verdict where it is about this artifact: without labels it is about the blend that is served."""
    return verdict if verdict and Path(str(verdict.get("candidate"))).name == folder.name else None


def model_card(
    marker: Json,
    board: Board | None = None,
    verdict: Json | None = None,
    dataset: Json | None = None,
    loads: bool = True,
) -> str:
    """The card as Markdown.

    Args:
        marker: the artifact's vectune.json.
        board: where the artifact was scored.
        verdict: as verdict.json holds it, about this artifact.
        dataset: as dataset.json holds it.
        loads: whether ``SentenceTransformer(folder)`` opens the folder.
    """
    tuned = None if board is None else _tuned_row(board)
    parts = [_metadata(marker, board, tuned, loads), _title(marker, verdict, tuned)]
    parts += [_use(marker, loads)]
    parts += [_quality(board, tuned)] if board is not None else []
    parts += [_making(marker, dataset), _limits(board, verdict)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _tuned_row(board: Board) -> Row | None:
    """The artifact's row: the last of a folder called ``model``, wherever the run stood; before it may be the base."""
    named = [row for row in board.rows if row.kind == "dense" and Path(row.name).name == "model"]
    return named[-1] if named else None


def _metadata(marker: Json, board: Board | None, tuned: Row | None, loads: bool) -> str:
    base = str(marker.get("base", ""))
    facts: Json = {
        "library_name": "sentence-transformers" if loads else "vectune",
        "pipeline_tag": "sentence-similarity",
        "tags": [
            *(["sentence-transformers"] if loads else []),
            "feature-extraction",
            "information-retrieval",
            "vectune",
        ],
    }
    if base == Path(DEFAULT_MODEL).name:
        facts["base_model"] = f"sentence-transformers/{base}"
    elif base.count("/") == 1 and not Path(base).exists() and ":" not in base:
        facts["base_model"] = base
    if board is not None and tuned is not None:
        facts["model-index"] = [_result(marker, board, tuned)]
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in facts.items()), "---"])


def _result(marker: Json, board: Board, tuned: Row) -> Json:
    metrics = [
        {"type": name.lower().replace("@", "_at_"), "name": name, "value": round(value, 4)}
        for name, value in tuned.measures.items()
    ]
    task = {"type": "information-retrieval", "name": "Information Retrieval"}
    data = {"name": board.title, "type": "custom", "split": board.split}
    return {"name": f"{marker.get('base')}, tuned", "results": [{"task": task, "dataset": data, "metrics": metrics}]}


def _title(marker: Json, verdict: Json | None, tuned: Row | None) -> str:
    lines = [f"# {_plain(marker.get('base', 'model'))}, tuned with vectune", ""]
    if verdict and verdict.get("sentence"):
        sentence = _named(str(verdict["sentence"]), tuned)
        reasons = [f"- {_plain(_named(str(reason), tuned))}" for reason in verdict.get("reasons", ())]
        return "\n".join([*lines, f"**{_plain(sentence)}**", "", *reasons]).rstrip()
    dev = marker.get("dev") or {}
    if "before" in dev and "after" in dev:
        lines.append(f"nDCG@10 on dev: {figure(dev['before'])} before, {figure(dev['after'])} after.")
    return "\n".join(lines).rstrip()


def _named(text: str, tuned: Row | None) -> str:
    """The artifact called by what it is instead of by the path where it was made."""
    if tuned is None:
        return text
    hybrid = text.replace(f"hybrid:{tuned.name}", "the hybrid of BM25 and the tuned model")
    return hybrid.replace(tuned.name, "the tuned model")


def _use(marker: Json, loads: bool) -> str:
    keeps = marker.get("kind") in KEEPS_DOCUMENTS
    note = (
        "Documents' vectors are the base's: an index that exists need not be embedded again."
        if keeps
        else "Documents must be embedded with this model; vectors of the base do not fit its queries."
    )
    code = (
        'from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer("path/to/this/folder")\n'
        'queries = model.encode_query(["how do I reset the clock?"])\ndocuments = model.encode_document(["…"])\n'
        "model.similarity(queries, documents)"
        if loads
        else 'from vectune.embedders.factory import open_embedder\n\nmodel = open_embedder("path/to/this/folder")\n'
        'queries = model.embed_queries(["how do I reset the clock?"])\ndocuments = model.embed_documents(["…"])'
    )
    return f"## Use\n\n```python\n{code}\n```\n\n{note} Queries and documents are separate calls."


def _quality(board: Board, tuned: Row | None) -> str:
    if tuned is not None:
        rows = (replace(row, name=renamed(row.name, tuned.name, "tuned model")) for row in board.rows)
        board = replace(board, rows=tuple(rows))
    return "## How good it is\n\n" + board.to_markdown().rstrip()


def _method(kind: str, method: str) -> str:
    """What was done: to the weights, and then to the vectors where a lexical tail was put behind them."""
    done = [KINDS[part] for part in dict.fromkeys((method, kind)) if part in KINDS]
    return f"{method}: {'; then '.join(done)}" if done else method


def _making(marker: Json, dataset: Json | None) -> str:
    kind = str(marker.get("kind", ""))
    rows = [
        ("base", f"{marker.get('base')} (fingerprint {str(marker.get('base_fingerprint', ''))[:16] or 'unknown'})"),
        ("method", _method(kind, str(marker.get("method", kind)))),
    ]
    counts = (dataset or {}).get("counts") or {}
    if counts:
        rows.append(
            ("data", ", ".join(f"{value:,} {name}" for name, value in counts.items() if isinstance(value, int)))
        )
    dev = marker.get("dev") or {}
    if "before" in dev and "after" in dev:
        rows.append(("nDCG@10 on dev", f"{figure(dev['before'])} → {figure(dev['after'])}"))
    chosen = marker.get("chosen") or {}
    if chosen:
        rows.append(
            (
                "chosen",
                ", ".join(f"{name} {value}" for name, value in chosen.items() if isinstance(value, str | int | float)),
            )
        )
    rows.append(("vectune", str(marker.get("vectune", ""))))
    notes = [f"- {_plain(note)}" for note in marker.get("notes") or ()]
    table = ["| | |", "|---|---|", *(f"| {name} | {_plain(value)} |" for name, value in rows)]
    return "\n".join(["## How it was made", "", *table, *([""] if notes else []), *notes])


def _limits(board: Board | None, verdict: Json | None) -> str:
    lines = ["It was tuned on one set of documents; on others it may be worse than its base."]
    if board is not None and board.generated:
        lines.append("Its queries were generated, in training and in the test: people's queries may differ.")
    if verdict is None:
        lines.append("Whether it is better than its base was not tested for significance.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _plain(text: object) -> str:
    """Text that stays text in Markdown, also in a table."""
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'").split())


def _read(path: Path) -> Json | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"is not valid JSON ({error}).", path=path) from None
    return value if isinstance(value, dict) else None
