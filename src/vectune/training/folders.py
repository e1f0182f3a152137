"""Artifact folders of adapters and query encoders, such that sentence-transformers opens them where the base is local.

Over a local base the folder is a sentence-transformers model whose last module is a Router: queries go through the
adapter (as its stock Dense modules), documents past it. The encoder before it is stored once. Over any other base the
folder holds the adapter alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectune import __version__
from vectune.adapters import Adapter, StoredAdapter, save_adapter
from vectune.embedders.loading import without_bars
from vectune.embedders.models import ARTIFACT_FILE
from vectune.errors import ModelError
from vectune.runs import Json, check_output, write_json, writing

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from vectune.protocols import Embedder
    from vectune.training.result import TuneResult


def write_adapter(out: Path, stored: StoredAdapter, embedder: Embedder, result: TuneResult) -> None:
    """Write the artifact folder of an adapter, whole or not at all.

    Raises:
        OutputError: ``out`` holds something that vectune did not write, or cannot be written.
    """
    check_output(out, ARTIFACT_FILE)
    with writing(out) as beside, without_bars():
        beside.mkdir(parents=True)
        model = local_model(embedder)
        if (
            model is not None
            and embedder.dim == model.get_embedding_dimension()
            and stored.adapter.dim_in == embedder.dim
        ):
            routed(model, stored.adapter, stored.document, prompts_of(embedder)).save(
                str(beside), create_model_card=False
            )
        save_adapter(beside, stored)
        write_json(beside / ARTIFACT_FILE, marker("adapter", result))


def write_query_encoder(
    out: Path, model: SentenceTransformer, stored: StoredAdapter, embedder: Embedder, result: TuneResult
) -> None:
    """Write the artifact folder of a tuned query encoder: a Router, queries to ``model``, documents to the base.

    Both routes hold an encoder: sentence-transformers stores a module once where two routes share it, but the tuned
    transformer shares no tensor with the base's.

    Raises:
        OutputError: ``out`` holds something that vectune did not write, or cannot be written.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    check_output(out, ARTIFACT_FILE)
    base = local_model(embedder)
    if base is None:
        raise ModelError(f"'{embedder.name}' is not a local model.")
    plain = stored.adapter.kind == "identity"
    top = [] if plain else [*dense_modules(stored.adapter), Normalize()]
    route = Router.for_query_document(query_modules=[*_normalized(model), *top], document_modules=_normalized(base))
    found = SentenceTransformer(modules=[route], device=str(base.device), similarity_fn_name="cosine")
    found.prompts = {**(base.prompts or {}), **prompts_of(embedder)}
    with writing(out) as beside, without_bars():
        beside.mkdir(parents=True)
        found.save(str(beside), create_model_card=False)
        save_adapter(beside, stored)
        write_json(beside / ARTIFACT_FILE, marker("query", result))


def _normalized(model: SentenceTransformer) -> list[Any]:
    """The model's modules, ending in unit norm."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    modules = list(model.children())
    return modules if isinstance(modules[-1], Normalize) else [*modules, Normalize()]


def marker(kind: str, result: TuneResult) -> Json:
    """What ``vectune.json`` says of an artifact; written last."""
    return {
        "kind": kind,
        "base": result.model,
        "base_fingerprint": result.base_fingerprint,
        "vectune": __version__,
        "method": result.method,
        "options": result.chosen,
        "dev": {"before": result.dev_before, "after": result.dev_after},
        "notes": list(result.notes),
    }


def local_model(embedder: Embedder) -> SentenceTransformer | None:
    """The sentence-transformers model that an embedder is, apart from a cache around it; None where it is none.

    An artifact over a model is more than that: what is tuned over the artifact does not fit the model alone.
    """
    model = getattr(embedder, "model", None)
    return model if hasattr(model, "encode_query") else None


def prompts_of(embedder: Embedder) -> dict[str, str]:
    """The prompts that a local embedder puts before texts."""
    return dict(getattr(embedder, "prompts", None) or {})


def routed(
    model: SentenceTransformer, query: Adapter, document: Adapter | None = None, prompts: dict[str, str] | None = None
) -> SentenceTransformer:
    """A model that shares the given one's modules and ends in a Router: queries pass the adapter, documents do not."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    modules = _normalized(model)  # an adapter takes unit vectors
    route = Router.for_query_document(
        query_modules=[*dense_modules(query), Normalize()],
        document_modules=[*(dense_modules(document) if document else []), Normalize()],
    )
    found = SentenceTransformer(modules=[*modules, route], device=str(model.device), similarity_fn_name="cosine")
    found.prompts = {**(model.prompts or {}), **(prompts or {})}
    found.max_seq_length = model.max_seq_length
    return found


def dense_modules(adapter: Adapter) -> list[Any]:
    """The adapter as stock Dense modules, without the scaling to unit norm.

    ``skip x + up relu(down x + b)`` has a branch; Dense has none. Since x = relu(x) − relu(−x), the first layer's rows
    are ``down``, I and −I, and the second one's columns ``up``, skip and −skip. That is exact.
    """
    dim = adapter.dim_in
    if adapter.is_linear:
        return [_dense(adapter.matrix(), adapter.bias)]
    if adapter.activation != "relu" or adapter.down is None or adapter.up is None:
        raise ValueError(f"no stock modules for the activation '{adapter.activation}'.")
    eye = np.eye(dim, dtype=np.float32)
    skip = eye if adapter.skip is None else adapter.skip
    shift = np.zeros(len(adapter.down), np.float32) if adapter.down_bias is None else adapter.down_bias
    first = _dense(
        np.concatenate([adapter.down, eye, -eye]), np.concatenate([shift, np.zeros(2 * dim, np.float32)]), relu=True
    )
    return [first, _dense(np.concatenate([adapter.up, skip, -skip], axis=1), adapter.bias)]


def _dense(weight: NDArray[np.float32], bias: NDArray[np.float32] | None, relu: bool = False) -> Any:
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    return Dense(
        in_features=weight.shape[1],
        out_features=weight.shape[0],
        bias=bias is not None,
        activation_function=torch.nn.ReLU() if relu else torch.nn.Identity(),
        init_weight=torch.from_numpy(np.ascontiguousarray(weight)),
        init_bias=None if bias is None else torch.from_numpy(np.ascontiguousarray(bias)),
    )
