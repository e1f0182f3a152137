"""open_embedder: from a name, an embedder or a pair of functions to an Embedder, with the vector cache around it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from vectune.embedders.cached import CachedEmbedder
from vectune.embedders.models import API, ARTIFACT_FILE, MODEL_FILES, behind_api
from vectune.embedders.options import DEFAULTS, EmbedOptions
from vectune.embedders.settings import Settings, kept_settings, settings_of
from vectune.errors import ModelError
from vectune.progress import SILENT, Progress
from vectune.protocols import Embedder
from vectune.runs import Json

EmbedFunction: TypeAlias = Callable[[Sequence[str]], Any]
Source: TypeAlias = "str | Path | Embedder | tuple[EmbedFunction, EmbedFunction]"


def open_embedder(
    source: Source, options: Settings = DEFAULTS, cache: bool = True, progress: Progress = SILENT
) -> Embedder:
    """The embedder that ``source`` names.

    Args:
        source: ``all-MiniLM-L6-v2``, a hub id, a model folder, a folder that ``tune`` wrote, ``openai:NAME``, an
            Embedder (given back as it is, with the cache around it), or two functions (queries, documents).
        options: see ``EmbedOptions``; or a table of them by models' names, as a configuration has it. An artifact's
            base is opened as the artifact keeps it, but for what is given here.
        cache: look vectors up in the cache on disk, and keep new ones there.
        progress: counts the texts that are embedded.

    Raises:
        ModelError: there is no such model, or it cannot be loaded.
        EndpointError: the API refuses.
    """
    if isinstance(source, str | Path) and is_artifact(source):
        return _open_artifact(Path(source).expanduser(), options, cache, progress)
    own = settings_of(str(source) if isinstance(source, str | Path) else "", options)
    embedder = _open(source, own)
    if not cache or hasattr(embedder, "inner"):
        return embedder
    return CachedEmbedder(embedder, progress, own.cache_gib)


def name_to_open(embedder: Embedder) -> str:
    """What ``open_embedder`` opens the embedder by; what is tuned over it keeps that as its base.

    An artifact is named after its folder, or its base and its kind; what opens it is where that folder is. A folder's
    path is absolute: the artifact over it is opened from other working directories.
    """
    name = str(getattr(embedder, "source", "") or embedder.name)
    folder = Path(name).expanduser()
    return os.path.abspath(folder) if folder.is_dir() else name


def tuned_seed(embedder: Embedder, seed: int) -> int:
    """The seed by which an artifact's dev was cut where its dataset had none; ``seed`` for all other embedders.

    Cut by another one, dev would hold queries that the artifact was trained on.
    """
    file = Path(name_to_open(embedder), ARTIFACT_FILE)
    options = _marker(file).get("options") if file.is_file() else None
    kept = options.get("seed") if isinstance(options, dict) else None
    return kept if isinstance(kept, int) else seed


def is_artifact(name: str | Path) -> bool:
    """Whether this is a folder that ``tune`` wrote."""
    return (Path(name).expanduser() / ARTIFACT_FILE).is_file()


def _moved_along(name: str, artifact: Path) -> str:
    """Where a base is whose folder is gone from its place: below a folder that holds the artifact, if both were moved.

    The longest end of its path at which a model is decides; who opens it compares fingerprints.

    Raises:
        ModelError: it is nowhere.
    """
    folder = Path(name).expanduser()
    if folder.exists() or not name.startswith((".", "/", "~")):
        return name
    here = artifact.resolve()
    ends = [folder.parts[start:] for start in range(int(folder.is_absolute()), len(folder.parts))]
    for place in (above.joinpath(*end) for end in ends for above in here.parents):
        if place.resolve() != here and any((place / file).is_file() for file in (ARTIFACT_FILE, *MODEL_FILES)):
            return str(place)
    raise ModelError(
        f"{artifact / ARTIFACT_FILE}: its base, {name}, is gone: there is no such model folder.",
        "Put the folder back, or beside the artifact as it was when that was made.",
    )


def _open(source: Source, options: EmbedOptions) -> Embedder:
    if isinstance(source, tuple):
        from vectune.embedders.callables import CallableEmbedder

        return CallableEmbedder(*source)
    if isinstance(source, Embedder):
        return source
    name = str(source)
    if behind_api(name):
        from vectune.embedders.http import HTTPEmbedder

        return HTTPEmbedder(name.removeprefix(API), options)
    if name == "bm25" or name.startswith("hybrid:"):
        raise ModelError(f"'{name}' has no vectors: it is only for evaluation.")
    from vectune.embedders.local import LocalEmbedder

    return LocalEmbedder(name, options)


def _marker(file: Path) -> Json:
    """What ``tune`` wrote about an artifact; its kind is there."""
    try:
        found: Json = json.loads(file.read_text(encoding="utf-8"))
        found["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: is not what vectune wrote ({error}).") from error
    return found


def _open_artifact(folder: Path, options: Settings, cache: bool, progress: Progress) -> Embedder:
    """A folder that ``tune`` wrote: a model of its own, or an adapter over its base, whose vectors are cached."""
    marker = _marker(folder / ARTIFACT_FILE)
    kind = marker["kind"]
    if kind in ("full", "lora"):
        if not (folder / "modules.json").is_file():
            raise ModelError(f"{folder}: modules.json is missing, which says what the model is made of.")
        own = settings_of(str(folder), options)
        embedder = _open(str(folder), own)
        return CachedEmbedder(embedder, progress, own.cache_gib) if cache else embedder

    def open_base(name: str) -> Embedder:
        kept = kept_settings(name, marker, options, folder / ARTIFACT_FILE)
        try:
            return open_embedder(_moved_along(name, folder), kept, cache, progress)
        except RecursionError:
            raise ModelError(f"{folder / ARTIFACT_FILE}: the base '{name}' leads back to the folder itself.") from None

    def open_inner(inner: Path) -> Embedder:
        return open_embedder(inner, options, cache, progress)

    if kind == "blend":
        from vectune.blend import open_blend

        return open_blend(folder, open_base, open_inner)
    if kind == "words":
        from vectune.words import open_words

        return open_words(folder, open_inner)
    from vectune.adapters import open_artifact

    if kind == "bridge" and not isinstance(marker.get("document_base"), str):
        raise ModelError(f"{folder / ARTIFACT_FILE}: document_base is missing: the file was edited.")
    found = open_artifact(folder, open_base, settings_of(str(folder), options))
    if kind == "bridge" and marker.get("words"):
        from vectune.words import WordEmbedder, WordMap

        return WordEmbedder(found, WordMap.load(folder), folder.name, str(folder.resolve()))
    return found
