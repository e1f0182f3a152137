"""``vectune bridge``: serve a new model's queries from the index that holds the old model's vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bridge(
    old: Annotated[str, typer.Argument(help="The model whose vectors the index holds.", show_default=False)],
    new: Annotated[str, typer.Argument(help="The model that is to answer queries.", show_default=False)],
    sample: Annotated[Path, typer.Option(help="A dataset folder with chunks of the index and judged queries.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    share: Annotated[float, typer.Option(help="Share of the chunks that the new model embeds.", min=0, max=1)] = 0.05,
    most: Annotated[int, typer.Option(help="But no more chunks than this.", min=10)] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the sample and of training.", min=0, max=2**32 - 1)] = 0,
    config: Annotated[Path | None, typer.Option(help="A TOML file; its [models] say how APIs are asked.")] = None,
) -> None:
    """A map between two models' spaces, learnt from a sample: no need to embed everything again before serving."""
    from vectune.bridge import MOVED, BridgeOptions, build_bridge
    from vectune.config import read_config
    from vectune.embedders.factory import open_embedder
    from vectune.embedders.settings import keep_settings
    from vectune.formats import open_dataset
    from vectune.progress import Progress

    progress = Progress()
    models = read_config(config).models
    embedders = [open_embedder(name, models, progress=progress) for name in (old, new)]
    options = BridgeOptions(sample=share, most=most)
    found = build_bridge(embedders[0], embedders[1], open_dataset(sample), out, seed, options, progress)
    keep_settings(out, *embedders)
    print(f"{out}: learnt from {found.sampled} chunks that both models embedded, in {found.seconds:.0f} s")
    labels = {
        "old": "old queries on old vectors",
        "bridge": "new queries on old vectors",
        "moved": "new queries on moved vectors",
        "new": "everything embedded again",
    }
    for which, label in labels.items():
        if which in found.dev:
            kept = found.kept(which) if which in ("bridge", "moved") else None
            print(f"  {label:<30} {found.dev[which]:.3f}" + ("" if kept is None else f"  keeps {kept:.0%} of the gain"))
    served = {"old": "old queries on the whole index", "bridge": "new queries on it", "words": "and their words"}
    for which in found.index:
        print(f"  {served[which]:<30} {found.index[which]:.3f}")
    print(f"  to move the index instead: {out / MOVED} maps stored vectors, and queries to search them")
    for note in found.notes:
        print(f"  {note}")
