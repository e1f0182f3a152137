"""open_embedder: from a name, an embedder or a pair of functions to an Embedder, with the vector cache around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vectune.embedders.cached import CachedEmbedder
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
    if isinstance(source, str | Path) and is_artifact(source):
        return _open_artifact(Path(source).expanduser(), options, cache, progress)
    embedder = _open(source, options)
    if not cache or hasattr(embedder, "inner"):
        return embedder
    return CachedEmbedder(embedder, progress, options.cache_gib)


def is_artifact(name: str | Path) -> bool:
    """Whether this is a folder that ``tune`` wrote."""
    return (Path(name).expanduser() / ARTIFACT_FILE).is_file()


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
    if name == "bm25" or name.startswith("hybrid:"):
        raise ModelError(f"'{name}' has no vectors: it is only for evaluation.")
    from vectune.embedders.local import LocalEmbedder

    return LocalEmbedder(name, options)


def _open_artifact(folder: Path, options: EmbedOptions, cache: bool, progress: Progress) -> Embedder:
    """A folder that ``tune`` wrote: a model of its own, or an adapter over its base, whose vectors are cached."""
    try:
        kind = json.loads((folder / ARTIFACT_FILE).read_text(encoding="utf-8"))["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / ARTIFACT_FILE}: is not what vectune wrote ({error}).") from error
    if kind in ("full", "lora"):
        embedder = _open(str(folder), options)
        return CachedEmbedder(embedder, progress, options.cache_gib) if cache else embedder
    if kind == "blend":
        from vectune.blend import open_blend

        return open_blend(folder, lambda name: open_embedder(name, options, cache, progress))
    if kind == "words":
        from vectune.words import open_words

        return open_words(
            folder,
            lambda name: open_embedder(name, options, cache, progress),
            lambda inner: open_embedder(inner, options, cache, progress),
        )
    from vectune.adapters import open_artifact

    return open_artifact(folder, lambda name: open_embedder(name, options, cache, progress))
