"""The methods by name: what ``tune`` does for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import open_embedder
from vectune.embedders.options import EmbedOptions
from vectune.embedders.settings import keep_settings
from vectune.errors import UsageError
from vectune.progress import SILENT, Progress
from vectune.splits import train_pool
from vectune.training.options import Method, TuneOptions
from vectune.training.result import TuneResult


def tune_with(
    dataset: RetrievalDataset,
    out: Path,
    options: TuneOptions = TuneOptions(),
    progress: Progress = SILENT,
    work: Path | None = None,
    models: Mapping[str, EmbedOptions] = MappingProxyType({}),
) -> TuneResult:
    """Tune by the method that the options name; arguments, result and errors as in ``finetune``.

    Args:
        models: settings of models behind an API, by name; kept in the artifact, without the key.
    """
    method = options.method or default_method(dataset)
    tune = over_vectors(method, options.keep_index)
    if tune is None:
        from vectune.training.finetune import finetune

        return finetune(dataset, out, replace(options, method=method), progress, work)
    base = open_embedder(options.model, models, progress=progress)
    result = tune(dataset, out, base, options.seed, progress=progress)
    keep_settings(out, base)
    return result


def default_method(dataset: RetrievalDataset) -> Method:
    """What to do where nobody says.

    Queries cut from the chunks themselves teach that a query shares its chunk's words, which harms where people's do
    not (docs/unlabelled.md); the blend learns from the corpus alone.
    """
    cut = all(query.writer == "extractive" for query in dataset.queries.values())
    return "blend" if cut else "full"


def over_vectors(method: Method, keep_index: bool) -> Callable[..., TuneResult] | None:
    """The function of a method that works over an embedder's vectors; None for those that train the whole model.

    Raises:
        UsageError: the index is to be kept, and the method needs every document embedded again.
    """
    from vectune.training.adapter import tune_adapter
    from vectune.training.blend import tune_blend
    from vectune.training.query import tune_keeping_index, tune_query_encoder

    keeping: dict[Method, Callable[..., TuneResult]] = {"adapter": tune_adapter, "query": tune_query_encoder}
    if not keep_index:
        return {**keeping, "blend": tune_blend}.get(method)
    if method != "auto" and method not in keeping:
        raise UsageError(
            f"--keep-index: the method '{method}' needs every document embedded again.",
            "Use --method auto, adapter or query.",
        )
    return {**keeping, "auto": tune_keeping_index}[method]


_STEPS = {
    "adapter": "identity → ridge, Procrustes → low rank, linear, MLP",
    "query": "every weight of the query side against the stored document vectors",
    "auto": "identity → adapter → query encoder → words",
    "blend": "a lexical tail behind every vector, fitted to the corpus",
}


def explain(dataset: RetrievalDataset, options: TuneOptions) -> list[tuple[str, str, str]]:
    """What would be chosen for this dataset: what, its value, and why; trains nothing.

    Raises:
        DatasetError: too little to train on.
        UsageError: the index is to be kept, and the method cannot.
    """
    method = options.method or default_method(dataset)
    found = [("method", str(method), "as asked" if options.method else "from where the queries come")]
    if over_vectors(method, options.keep_index) is None:
        from vectune.training.finetune import explain as explain_finetuning

        return [*found, *explain_finetuning(dataset, options)]
    held_out = "held-out documents decide how far; without a gain there the base is the result"
    found.append(("steps", _STEPS[method], "no label is used" if method == "blend" else held_out))
    if method != "blend":
        train = dataset.split("train")
        found.append(("queries", f"{len(train)}", "of the train split"))
        found.append(
            (
                "negatives",
                f"{len(train_pool(dataset))} chunks",
                f"of {len(dataset.corpus)}: none of dev's and test's documents",
            )
        )
    after = "they get a lexical tail" if method == "blend" else "never again"
    return [*found, ("documents", "embedded once", f"by the base, or taken from the cache of vectors; {after}")]
