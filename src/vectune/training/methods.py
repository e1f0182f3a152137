"""The methods by name: what ``tune`` does for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from vectune.dataset import RetrievalDataset
from vectune.embedders.factory import is_artifact, open_embedder
from vectune.embedders.models import behind_api
from vectune.embedders.options import EmbedOptions
from vectune.embedders.settings import Settings, keep_settings
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
    method = method_for(dataset, options)
    tune = over_vectors(method, options)
    if tune is None:
        from vectune.training.finetune import finetune

        return finetune(dataset, out, replace(options, method=method), progress, work, models=models)
    if ignored := unread(method, options):
        names = ", ".join(f"tune.{name}" for name in ignored)
        progress.warn(f"{names}: not read by the method '{method}', which works over the base's vectors.")
    base = open_embedder(options.model, _settings(options, models), progress=progress)
    result = tune(dataset, out, base, options.seed, progress=progress)
    keep_settings(out, base)
    return result


def _settings(options: TuneOptions, models: Mapping[str, EmbedOptions]) -> Settings:
    """How the base is opened: an API as the table says, also where an artifact is over it; a local one as asked."""
    if behind_api(options.model):
        return models
    own = EmbedOptions(precision=options.precision, trust_remote_code=options.trust_remote_code)
    return {options.model: own, **models} if models and is_artifact(options.model) else own


def method_for(dataset: RetrievalDataset, options: TuneOptions) -> Method:
    """The method of the options, or what to do where nobody says.

    Queries cut from the chunks themselves teach that a query shares its chunk's words, which harms where people's do
    not (docs/unlabelled.md); the blend learns from the corpus alone.

    Raises:
        UsageError: the model is behind an API, and the method trains its weights; or a tail behind a blend's.
    """
    train = dataset.qrels.get("train", {})
    cut = all(dataset.queries[query].writer == "extractive" for query in train) if train else not dataset.queries
    if not cut or options.method is not None or options.keep_index:
        return checked_method(options)
    if options.tail:
        _check_tail("blend", options)
    return "blend"


def checked_method(options: TuneOptions) -> Method:
    """The method for labelled queries: as asked; else every weight, or an adapter where the weights are behind an API.

    Raises:
        UsageError: the method trains weights that are behind an API, or documents' vectors that are to be kept.
    """
    method = options.method or ("auto" if options.keep_index or behind_api(options.model) else "full")
    if options.keep_index and method not in ("auto", "adapter", "query", "lora"):
        raise UsageError(
            f"--keep-index: the method '{method}' needs every document embedded again.",
            "Use --method auto, adapter, query, or lora, which then trains the queries' side alone.",
        )
    if options.both_sides and (method != "adapter" or options.keep_index):
        raise UsageError(
            "--both-sides: stored vectors pass through a map that an adapter has; no other method has one.",
            "Use it with --method adapter, and without --keep-index.",
        )
    if options.tail:
        _check_tail(method, options)
    if not behind_api(options.model):
        return method
    if method in ("full", "lora", "query"):
        raise UsageError(
            f"--method {method} trains weights, and those of '{options.model}' are behind an API.",
            "Use --method adapter: it works over any embedder, and documents keep their vectors.",
        )
    return "adapter" if method == "auto" and not options.keep_index else method


def _check_tail(method: Method, options: TuneOptions) -> None:
    """Raises UsageError where no lexical tail can stand behind what is tuned."""
    api = behind_api(options.model)
    if method not in ("full", "lora", "auto") or options.keep_index or api:
        raise UsageError(
            "--tail: a lexical tail stands behind the vectors of a model that was tuned whole, not with "
            f"'{options.model if api else method}'{' while the index is kept' * options.keep_index}.",
            "Use it with --method full, lora or auto; --method blend puts one behind the untuned model's vectors.",
        )
    if options.dimensions:
        raise UsageError(
            "tune.dimensions: vectors with a lexical tail cannot be cut to their first dimensions.",
            "Leave out one of --tail and dimensions.",
        )


def over_vectors(method: Method, options: TuneOptions) -> Callable[..., TuneResult] | None:
    """The function of a method that works over an embedder's vectors; None for those that train the whole model."""
    from vectune.training.adapter import LadderOptions, tune_adapter
    from vectune.training.blend import tune_blend
    from vectune.training.query import QueryOptions, tune_keeping_index, tune_query_encoder

    own = QueryOptions(precision=options.precision)
    if options.max_minutes is not None:
        own = replace(own, seconds=min(own.seconds, 60 * options.max_minutes))
    found: dict[Method, Callable[..., TuneResult]] = {
        "adapter": partial(tune_adapter, options=LadderOptions(both_sides=options.both_sides)),
        "query": partial(tune_query_encoder, options=own),
        "blend": tune_blend,
    }
    if options.keep_index:
        low_rank = replace(own, lora_rank=options.lora_rank)
        found |= {
            "auto": partial(tune_keeping_index, options=own),
            "lora": partial(tune_query_encoder, options=low_rank),
        }
    return found.get(method)


# What the methods over vectors read beside the method; the others' defaults say nothing about a person's wish.
_READ = ("method", "keep_index", "model", "seed", "precision", "trust_remote_code")
_READ_TOO: dict[Method, tuple[str, ...]] = {
    "adapter": ("both_sides",),
    "query": ("max_minutes",),
    "auto": ("max_minutes",),
    "lora": ("max_minutes", "lora_rank"),
}


def unread(method: Method, options: TuneOptions) -> list[str]:
    """Options that somebody has set and that a method over vectors does not read."""
    read = {*_READ, *_READ_TOO.get(method, ())}
    return [
        field.name
        for field in fields(TuneOptions)
        if field.name not in read and getattr(options, field.name) != field.default
    ]


_STEPS = {
    "adapter": "identity → ridge, Procrustes → low rank, linear, MLP",
    "lora": "low-rank additions to the query side against the stored document vectors",
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
    method = method_for(dataset, options)
    why = "the model's weights are behind an API" if behind_api(options.model) else "from where the queries come"
    found = [("method", str(method), "as asked" if options.method == method else why)]
    if over_vectors(method, options) is None:
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
    if options.both_sides:
        after += "; their vectors may have to pass through a matrix"
    return [*found, ("documents", "embedded once", f"by the base, or taken from the cache of vectors; {after}")]
