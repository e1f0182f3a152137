"""Settings of models behind an API, by the models' names: checked, and kept with what was tuned over such a model.

In a configuration they are the tables ``[models."openai:NAME"]``. ``vectune.json`` keeps them under ``models``, so that
the folder opens with the same requests; without the key. An address elsewhere is kept, but not followed: whoever made
the folder would otherwise choose where the key of whoever opens it is sent.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from vectune.embedders.models import API, ARTIFACT_FILE, behind_api
from vectune.embedders.options import DEFAULTS, EmbedOptions
from vectune.errors import ModelError, UsageError, did_you_mean
from vectune.protocols import Embedder
from vectune.queries.endpoint import is_local
from vectune.runs import Json, hash_files, write_json

Settings: TypeAlias = EmbedOptions | Mapping[str, EmbedOptions]

LOCAL_ALONE = ("max_length", "precision", "device", "batch_tokens", "trust_remote_code")
DECISIVE = ("base_url", "dimensions", "query_prompt", "document_prompt", "query_fields", "document_fields")
NAMES = tuple(field.name for field in dataclasses.fields(EmbedOptions))


def settings_of(name: str, settings: Settings) -> EmbedOptions:
    """A model's own settings: those given, or its line in a table; the defaults where it has none."""
    return settings if isinstance(settings, EmbedOptions) else settings.get(name, DEFAULTS)


def check_models(models: Mapping[str, EmbedOptions]) -> None:
    """Check a configuration's table.

    Raises:
        UsageError: a name that is no API model's, a key, or a setting that an API does not heed.
    """
    for name, options in models.items():
        table = f'models."{name}"'
        if not behind_api(name):
            raise UsageError(
                f"{table}: these are settings of models behind an API, whose names begin with {API}.",
                f'Is [models."{API}{name}"] meant? A local model is set up in [tune].',
            )
        if options.api_key is not None:
            raise UsageError(
                f"{table}: api_key: a key is not read from a configuration, which is kept with every run.",
                f"export {options.key_variable}=..., or name another variable with key_variable.",
            )
        for setting in LOCAL_ALONE:
            if getattr(options, setting) != getattr(DEFAULTS, setting):
                raise UsageError(f"{table}: {setting}: is a local model's; a model behind an API does not heed it.")


def decisive(name: str, models: Mapping[str, EmbedOptions]) -> tuple[object, ...]:
    """What vectors depend on beside the model's name: settings, and the files of a folder; empty where it has none."""
    settings = tuple(getattr(models[name], setting) for setting in DECISIVE) if name in models else ()
    folder = Path(name).expanduser()
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if name and folder.is_dir() else []
    return (*settings, hash_files(files)) if files else settings


def to_keep(options: EmbedOptions) -> Json:
    """What differs from the defaults, without the key."""
    values = {name: getattr(options, name) for name in NAMES if name != "api_key"}
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value != getattr(DEFAULTS, name)
    }


def table_of(*embedders: Embedder) -> dict[str, Json]:
    """The settings of those embedders that ask an API and have any, by name."""
    found = {}
    for embedder in embedders:
        options = getattr(embedder, "options", None)
        if behind_api(embedder.name) and isinstance(options, EmbedOptions) and (kept := to_keep(options)):
            found[embedder.name] = kept
    return found


def keep_settings(folder: Path, *embedders: Embedder) -> None:
    """Note in an artifact folder, and in the artifacts inside it, how the models it was made over are asked."""
    if table := table_of(*embedders):
        for marker in sorted(folder.rglob(ARTIFACT_FILE)):
            write_json(marker, {**json.loads(marker.read_text(encoding="utf-8")), "models": table})


def kept_settings(name: str, marker: Json, given: Settings, origin: Path) -> Settings:
    """How to open a base that an artifact names: as ``marker`` keeps it, what is given going first.

    Args:
        name: the base's.
        marker: what ``origin`` holds.
        given: settings of whoever opens the artifact.
        origin: the file, for the error message.

    Raises:
        ModelError: the file was edited, and holds no settings.
        UsageError: the model is at an address that only the folder names.
    """
    table = marker.get("models") or {}
    if not isinstance(table, dict):
        raise ModelError(f"{origin}: models: is no table of settings: was it edited by hand?")
    if name not in table:
        return given
    kept, own = options_from(table[name], f'{origin}: models."{name}"'), settings_of(name, given)
    chosen = {
        setting: getattr(own, setting) for setting in NAMES if getattr(own, setting) != getattr(DEFAULTS, setting)
    }
    if own.base_url is None and kept.base_url is not None and not is_local(kept.base_url):
        if not os.environ.get("OPENAI_BASE_URL"):
            raise UsageError(
                f"{origin.parent} was made over {name} at {kept.base_url}. A key is not sent to an address only "
                "because a folder names it.",
                f'If you trust it: export OPENAI_BASE_URL={kept.base_url}, or --config FILE with [models."{name}"].',
            )
        chosen["base_url"] = None  # where that variable says
    return dataclasses.replace(kept, **chosen)


def options_from(values: object, origin: str) -> EmbedOptions:
    """Options as ``to_keep`` gave them, from a file that a person may have edited.

    Raises:
        ModelError: an unknown name or a value of the wrong type.
    """
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(values, dict):
        raise ModelError(f"{origin}: holds no settings: was it edited by hand?")
    for name in values:
        if name not in NAMES:
            raise ModelError(f"{origin}: there is no setting {name}{did_you_mean(name, NAMES) or '.'}")
    try:
        return TypeAdapter(EmbedOptions).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"{origin}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    except UsageError as error:  # a number that makes no sense
        raise ModelError(f"{origin}: {error}") from None
