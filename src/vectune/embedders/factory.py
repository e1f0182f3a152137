"""open_embedder: from a name, an embedder or a pair of functions to an Embedder, with the vector cache around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vectune.embedders.models import ARTIFACT_FILE
from vectune.embedders.options import DEFAULTS, EmbedOptions
from vectune.errors import ModelError
from vectune.progress import SILENT, Progress
from vectune.protocols import Embedder

EmbedFunction: TypeAlias = Callable[[Sequence[str]], Any]
Source: TypeAlias = "str | Path | Embedder | tuple[EmbedFunction, EmbedFunction]"


def open_embedder(
    source: Source, options: EmbedOptions = DEFAULTS, cache: bool = True, progress: Progress = SILENT
) -> Embedder:
    """The embedder that ``source`` names.

    Args:
        source: ``all-MiniLM-L6-v2``, a hub id, a model folder, a folder that ``tune`` wrote, ``openai:NAME``, an
            Embedder (given back as it is, with the cache around it), or two functions (queries, documents).
        options: see ``EmbedOptions``.
        cache: look vectors up in the cache on disk, and keep new ones there.
        progress: counts the texts that are embedded.

    Raises:
        ModelError: there is no such model, or it cannot be loaded.
        EndpointError: the API refuses.
    """
    return _open(source, options)


def _open(source: Source, options: EmbedOptions) -> Embedder:
    if isinstance(source, tuple):
        from vectune.embedders.callables import CallableEmbedder

        return CallableEmbedder(*source)
    if isinstance(source, Embedder):
        return source
    name = str(source)
    if name.startswith("openai:"):
        from vectune.embedders.http import HTTPEmbedder

        return HTTPEmbedder(name.removeprefix("openai:"), options)
    if (Path(name).expanduser() / ARTIFACT_FILE).is_file():
        return _open_artifact(Path(name).expanduser(), options)
    if name == "bm25" or name.startswith("hybrid:"):
        raise ModelError(f"'{name}' has no vectors: it is only for evaluation.")
    return _local(name, options)


def _local(name: str, options: EmbedOptions) -> Embedder:
    from vectune.embedders.local import LocalEmbedder

    return LocalEmbedder(name, options)


def _open_artifact(folder: Path, options: EmbedOptions) -> Embedder:
    """A folder that ``tune`` wrote: a model of its own, or an adapter over its base."""
    try:
        kind = json.loads((folder / ARTIFACT_FILE).read_text(encoding="utf-8"))["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / ARTIFACT_FILE}: is not what vectune wrote ({error}).") from error
    if (folder / "modules.json").is_file():  # full, lora, query: a complete sentence-transformers folder
        return _local(str(folder), options)
    from vectune.adapters import open_artifact

    if kind != "adapter":
        raise ModelError(f"{folder}: holds an artifact of the unknown kind '{kind}'.")
    return open_artifact(folder, lambda name: _open(name, options))
