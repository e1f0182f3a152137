"""``vectune cache``: look at the vector cache and make room."""

from __future__ import annotations

from typing import Annotated

import typer

from vectune.errors import InputError, UsageError

app = typer.Typer(help="Look at the cache of vectors, and make room in it.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """Whose vectors are kept, how many, their size and when they were last used."""
    import time

    from vectune.embedders.cache import cached_models, vectors_folder

    models = cached_models()
    for model in models:
        days = (time.time() - model.used) / 86400
        used = "today" if days < 1 else f"{days:.0f} days ago" if model.used else "never"
        print(
            f"{model.key[:12]}  {_size(model.size):>9}  {model.count:>10,} vectors × {model.dim}  {used}  {model.name}"
        )
    print(f"{_size(sum(model.size for model in models))} in {vectors_folder()}")


@app.command()
def prune(
    keys: Annotated[
        list[str] | None, typer.Argument(help="Remove these: first digits of a fingerprint as listed, or a name.")
    ] = None,
    max_gib: Annotated[
        float | None, typer.Option(min=0, help="Keep at most this much, least recently used go first.")
    ] = None,
    older_than: Annotated[float, typer.Option(min=0, help="Only what was not used for this many days.")] = 0.0,
    all_: Annotated[bool, typer.Option("--all", help="Remove everything.")] = False,
) -> None:
    """Remove vectors; they are computed again when they are needed. What a running process uses is left."""
    from vectune.embedders.cache import prune as prune_cache

    if keys and (all_ or older_than or max_gib is not None):
        raise UsageError("keys name what goes; --max-gib, --older-than and --all choose it. Give one of the two.")
    if keys:
        removed, wanted = _remove(keys)
    elif all_ or older_than or max_gib is not None:
        before = _models()
        limit = 0.0 if max_gib is None else max_gib * (1 << 30)
        removed, wanted = [model.key for model in prune_cache(limit, older_than=older_than * 86400)], len(before)
    else:
        raise InputError("what shall be removed?", "Give --max-gib, --older-than, --all, or fingerprints as listed.")
    print(f"removed {len(removed)} of {wanted}")


def _models() -> list[tuple[str, str]]:
    from vectune.embedders.cache import cached_models

    return [(model.key, model.name) for model in cached_models()]


def _remove(keys: list[str]) -> tuple[list[str], int]:
    """Remove what the keys name; what was removed, and how many were named."""
    from vectune.embedders.cache import remove_cached

    known = _models()
    chosen: list[str] = []
    for wanted in keys:
        if not wanted:  # a shell variable that is not set; every fingerprint begins with it
            raise UsageError("a key is empty: it would name every model.", "To remove everything: --all")
        found = [key for key, name in known if key.startswith(wanted) or name == wanted]
        if not found:
            raise InputError(f"the cache holds nothing of '{wanted}'.", "See: vectune cache list")
        chosen += found
    chosen = list(dict.fromkeys(chosen))
    return [key for key in chosen if remove_cached(key)], len(chosen)


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
