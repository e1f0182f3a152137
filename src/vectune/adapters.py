"""Adapters: small maps over an embedder's vectors, applied with NumPy alone and stored as safetensors and JSON.

Every kind is the same formula with some parts absent, so that there is one way to apply, store and load them::

    y = skip · x  +  bias  +  up · activation(down · x + down_bias),   then scaled to unit norm

An absent ``skip`` is the identity. Unit norm keeps the ranking by cosine for stores that only know the dot product.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vectune.embedders.models import ARTIFACT_FILE
from vectune.embedders.options import DEFAULTS, EmbedOptions
from vectune.errors import FingerprintError, ModelError
from vectune.runs import Json, hash_of, write_json, writing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectune.protocols import Embedder, Vectors

Kind = Literal["identity", "ridge", "procrustes", "low-rank", "linear", "mlp"]
Activation = Literal["none", "relu", "tanh", "sigmoid", "leaky_relu"]

WEIGHTS, CARD = "adapter.safetensors", "adapter.json"
FORMAT = 1
BLOCK = 1 << 12  # rows adapted at a time: 6 MB at 384 dimensions, near the processor's cache
TENSORS = ("skip", "bias", "down", "down_bias", "up")

ACTIVATIONS: Mapping[str, Callable[[Vectors], Vectors]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: (1 / (1 + np.exp(-x))).astype(np.float32),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x).astype(np.float32),
}


@dataclass(frozen=True, eq=False)
class Adapter:
    """A map from one vector space into another (or the same), ending in unit norm.

    Attributes:
        kind: which rung of the ladder made it; for people, it changes nothing about how it is applied.
        dim_in, dim_out: dimensions of the vectors it takes and returns.
        skip: (dim_out, dim_in); None is the identity, possible where both dimensions are equal.
        bias: (dim_out,) or None.
        down: (rank, dim_in) or None; ``down_bias`` (rank,) or None; ``up`` (dim_out, rank) or None.
        activation: between ``down`` and ``up``.
    """

    kind: Kind
    dim_in: int
    dim_out: int
    skip: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None
    down: NDArray[np.float32] | None = None
    down_bias: NDArray[np.float32] | None = None
    up: NDArray[np.float32] | None = None
    activation: Activation = "none"

    def __post_init__(self) -> None:
        problem = _problem_of(self)
        if problem:
            raise ModelError(f"adapter of kind '{self.kind}': {problem}")

    def apply(self, vectors: Vectors) -> Vectors:
        """Map vectors of shape (dim_in,) or (n, dim_in) to float32 vectors of unit norm, same leading shape.

        Raises:
            ModelError: the last dimension is not ``dim_in``.
        """
        vectors = np.asarray(vectors) if np.ndim(vectors) == 2 else np.asarray(vectors, dtype=np.float32)
        if vectors.shape[-1:] != (self.dim_in,) or vectors.ndim > 2:
            raise ModelError(
                f"the adapter takes vectors of {self.dim_in} dimensions, these have shape {vectors.shape}."
            )
        if vectors.ndim == 1:
            return self._one(vectors)
        mapped = np.empty((len(vectors), self.dim_out), dtype=np.float32)
        for start in range(0, len(vectors), BLOCK):
            self._into(mapped[start : start + BLOCK], np.asarray(vectors[start : start + BLOCK], dtype=np.float32))
        return mapped

    def _one(self, x: Vectors) -> Vectors:
        y = x if self.skip is None else x @ self.skip.T
        y = self._changed(x, y.copy() if y is x else y)
        length = float(y @ y) ** 0.5  # np.linalg.norm alone would take longer than the map
        return y / np.float32(length) if length > 0 else y

    def _into(self, y: Vectors, x: Vectors) -> None:
        """Map a block of rows into ``y``: no temporaries of its size, whose fresh pages cost more than the products."""
        if self.skip is None:
            y[:] = x
        else:
            np.matmul(x, self.skip.T, out=y)
        self._changed(x, y)
        lengths = np.sqrt(np.einsum("ij,ij->i", y, y))
        y /= np.maximum(lengths, np.finfo(np.float32).tiny)[:, None]

    def _changed(self, x: Vectors, y: Vectors) -> Vectors:
        """``y`` with bias and hidden layer added in place."""
        if self.bias is not None:
            y += self.bias
        if self.down is not None and self.up is not None:
            hidden = x @ self.down.T
            if self.down_bias is not None:
                hidden += self.down_bias
            y += ACTIVATIONS[self.activation](hidden) @ self.up.T
        return y

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The parts that are present, by name."""
        return {name: value for name in TENSORS if (value := getattr(self, name)) is not None}

    @property
    def is_linear(self) -> bool:
        """True where the map, before the scaling to unit norm, is a matrix and a bias."""
        return self.down is None or self.activation == "none"

    def matrix(self) -> NDArray[np.float32]:
        """The (dim_out, dim_in) matrix of a linear adapter, without its bias."""
        if not self.is_linear:
            raise ModelError(f"an adapter of kind '{self.kind}' is not linear: it has no single matrix.")
        whole = np.eye(self.dim_out, self.dim_in, dtype=np.float32) if self.skip is None else self.skip
        return whole if self.down is None or self.up is None else whole + self.up @ self.down

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that its results depend on."""
        parts = {
            name: hashlib.sha256(np.ascontiguousarray(t).tobytes()).hexdigest() for name, t in self.tensors().items()
        }
        return hash_of([FORMAT, self.dim_in, self.dim_out, self.activation, parts])


def identity(dim: int) -> Adapter:
    """The adapter that changes nothing."""
    return Adapter("identity", dim, dim)


def composed(adapter: Adapter, before: NDArray[np.float32]) -> Adapter:
    """The adapter over vectors that a (dim_in, d) matrix has mapped, without unit norm between, as one over (n, d)."""
    skip = before if adapter.skip is None else adapter.skip @ before
    down = None if adapter.down is None else np.ascontiguousarray(adapter.down @ before)
    kind: Kind = "ridge" if adapter.kind == "identity" else adapter.kind
    return replace(adapter, kind=kind, dim_in=before.shape[1], skip=np.ascontiguousarray(skip), down=down)


def _problem_of(adapter: Adapter) -> str | None:
    """What is wrong with the parts' shapes and values; None when nothing is."""
    if adapter.activation not in ACTIVATIONS:
        return f"unknown activation '{adapter.activation}' (known: {', '.join(ACTIVATIONS)})."
    if (adapter.down is None) != (adapter.up is None):
        return "'down' and 'up' must both be there, or neither."
    if adapter.skip is None and adapter.dim_in != adapter.dim_out:
        return f"{adapter.dim_in} dimensions cannot become {adapter.dim_out} without the matrix 'skip'."
    rank = 0 if adapter.down is None else len(adapter.down)
    shapes = {
        "skip": (adapter.dim_out, adapter.dim_in),
        "bias": (adapter.dim_out,),
        "down": (rank, adapter.dim_in),
        "down_bias": (rank,),
        "up": (adapter.dim_out, rank),
    }
    for name, tensor in adapter.tensors().items():
        if tensor.shape != shapes[name]:
            return f"'{name}' has shape {tensor.shape}, expected {shapes[name]}."
        if tensor.dtype != np.float32:
            return f"'{name}' is {tensor.dtype}, expected float32."
        if not np.isfinite(tensor).all():
            return f"'{name}' holds NaN or infinite values."
    return None


# Embedders with an adapter


@dataclass(frozen=True)
class AdaptedEmbedder:
    """An embedder whose queries (and, for both-sided adapters, stored vectors) pass through an adapter.

    Wrap the cache inside (``AdaptedEmbedder(CachedEmbedder(base), …)``): then vectors that are already stored serve on.

    Attributes:
        base: what makes the vectors.
        query: what queries pass through.
        document: what stored vectors pass through; None leaves them as they are.
        name: as a person would name it.
        source: the folder that it was opened from; empty where it was made in memory.
    """

    base: Embedder
    query: Adapter
    document: Adapter | None = None
    name: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"{self.base.name} + {self.query.kind} adapter")
        for side in (self.query, self.document):
            if side is not None and side.dim_in != self.base.dim:
                raise ModelError(
                    f"the adapter takes vectors of {side.dim_in} dimensions, {self.base.name} makes {self.base.dim}."
                )

    @property
    def dim(self) -> int:
        return self.query.dim_out

    @property
    def untuned(self) -> Embedder | None:
        """What queries were embedded with before the adapter; None where documents pass through one of their own."""
        return self.base if self.document is None else None

    @cached_property
    def fingerprint(self) -> str:
        document = self.document.fingerprint if self.document else None
        return hash_of(["adapted", self.base.fingerprint, self.query.fingerprint, document])

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.query.apply(self.base.embed_queries(texts))

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        vectors = self.base.embed_documents(texts)
        return vectors if self.document is None else self.document.apply(vectors)


@dataclass(frozen=True)
class SplitEmbedder:
    """Queries from one embedder, documents from another: a tuned query encoder over vectors that stay as they are.

    Attributes:
        query: embeds queries.
        document: embeds documents.
        name: as a person would name it.
        untuned: what queries were embedded with before tuning (or a bridge); None where judged queries tuned nothing.
        source: the folder that it was opened from; empty where it was made in memory.
    """

    query: Embedder
    document: Embedder
    name: str = ""
    untuned: Embedder | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.query.name)
        if self.query.dim != self.document.dim:
            raise ModelError(
                f"{self.query.name} makes {self.query.dim} dimensions, {self.document.name} {self.document.dim}."
            )

    @property
    def dim(self) -> int:
        return self.document.dim

    @cached_property
    def fingerprint(self) -> str:
        return hash_of(["split", self.query.fingerprint, self.document.fingerprint])

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.query.embed_queries(texts)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        return self.document.embed_documents(texts)


def fitted_on_dev(embedder: Embedder) -> bool:
    """Whether an adapter, query encoder or bridge was in the end fitted on dev as well: there it looks too good."""
    return getattr(embedder, "untuned", None) is not None or isinstance(embedder, AdaptedEmbedder)


# On disk


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter folder's contents.

    Attributes:
        adapter: for queries (or for whatever the bridge's direction says).
        document: for stored vectors of a both-sided adapter, else None.
        base: the base embedder's name; empty where unknown (imported from elsewhere).
        base_fingerprint: the base embedder's; empty where unknown.
        card: all of ``adapter.json``.
    """

    adapter: Adapter
    document: Adapter | None = None
    base: str = ""
    base_fingerprint: str = ""
    card: Json = field(default_factory=dict)

    def over(self, base: Embedder) -> AdaptedEmbedder:
        """The adapter over its base.

        Raises:
            FingerprintError: this is another base than the adapter was made for.
        """
        check_base(base, self.base, self.base_fingerprint, "adapter")
        return AdaptedEmbedder(base, self.adapter, self.document)


def check_base(base: Embedder, name: str, fingerprint: str, what: str) -> None:
    """Refuse a base whose vectors are not those that something was made for.

    Raises:
        FingerprintError: says which names and fingerprints differ.
    """
    if not fingerprint or base.fingerprint == fingerprint:
        return
    names = "" if base.name == name else f" (it was made for '{name}')"
    raise FingerprintError(
        f"the {what} does not fit '{base.name}'{names}: it was made for vectors with the fingerprint "
        f"{fingerprint[:12]}…, this base makes {base.fingerprint[:12]}…. Weights, prompts, pooling, sequence length or "
        f"truncation differ.",
        f"Open it over '{name}' with the settings it was made with, or tune again over this base.",
    )


def save_adapter(folder: Path, stored: StoredAdapter) -> None:
    """Write ``adapter.safetensors`` and ``adapter.json`` into an existing folder; the card goes last."""
    from safetensors.numpy import save

    sides = {"query": stored.adapter, **({"document": stored.document} if stored.document else {})}
    flat = {
        f"{side}.{name}": np.ascontiguousarray(tensor)
        for side, a in sides.items()
        for name, tensor in a.tensors().items()
    }
    content = save(flat)
    with writing(folder / WEIGHTS) as beside:
        beside.write_bytes(content)
    card = {
        **stored.card,
        "format": FORMAT,
        "base": stored.base,
        "base_fingerprint": stored.base_fingerprint,
        "sha256": hashlib.sha256(content).hexdigest(),
        **{
            side: {"kind": a.kind, "dim_in": a.dim_in, "dim_out": a.dim_out, "activation": a.activation}
            for side, a in sides.items()
        },
    }
    write_json(folder / CARD, card)


def load_adapter(folder: str | Path) -> StoredAdapter:
    """Read an adapter folder: vectune's own, or one that LlamaIndex saved.

    Raises:
        ModelError: a file is missing, was edited by hand, or does not fit the other.
    """
    folder = Path(folder)
    if not (folder / CARD).exists() and (folder / "pytorch_model.bin").exists():
        return StoredAdapter(import_llama_index(folder))
    card = read_json(folder / CARD)
    if card.get("format") != FORMAT:
        raise ModelError(f"{folder / CARD}: format {card.get('format')!r} is not known; this version reads {FORMAT}.")
    tensors = _read_tensors(folder / WEIGHTS, card.get("sha256"))
    sides = {side: _side(folder / CARD, card, side, tensors) for side in ("query", "document") if side in card}
    if "query" not in sides:
        raise ModelError(f"{folder / CARD}: 'query' is missing: the file was edited, or is not an adapter's.")
    unknown = [name for name in tensors if name.split(".")[0] not in sides]
    if unknown:
        raise ModelError(f"{folder / WEIGHTS}: holds '{unknown[0]}', which {CARD} does not mention.")
    base, fingerprint = (str(card.get(key) or "") for key in ("base", "base_fingerprint"))
    return StoredAdapter(sides["query"], sides.get("document"), base, fingerprint, card)


def _read_tensors(path: Path, sha256: object) -> dict[str, NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not path.exists():
        raise ModelError(f"{path}: the file is missing.")
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ModelError(
            f"{path}: the content is not what {CARD} was written with (SHA-256 differs): damaged or edited.",
            "Tune again, or take the folder from where it was first written.",
        )
    try:
        return dict(load(content))
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file ({error}).") from None


def _side(path: Path, card: Json, side: str, tensors: Mapping[str, NDArray[np.float32]]) -> Adapter:
    """One side's adapter as the card and the tensors tell it together."""
    about = card[side]
    own: dict[str, Any] = {
        name.split(".", 1)[1]: tensor for name, tensor in tensors.items() if name.startswith(f"{side}.")
    }
    stray = set(own) - set(TENSORS)
    try:
        if stray:
            raise ModelError(f"unknown tensor '{side}.{sorted(stray)[0]}'.")
        dims = {name: about[name] for name in ("dim_in", "dim_out")}
        if not all(isinstance(dim, int) and dim > 0 for dim in dims.values()):
            raise ModelError(f"dim_in and dim_out must be positive whole numbers, found {dims}.")
        dim_in, dim_out, activation = dims["dim_in"], dims["dim_out"], about.get("activation", "none")
        return Adapter(about["kind"], dim_in, dim_out, **own, activation=activation)
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path}: '{side}' lacks or breaks a field ({error}): the file was edited.") from None
    except ModelError as error:
        raise ModelError(f"{path}: {error} The folder was edited, or its files come from different folders.") from None


def read_json(path: Path) -> Json:
    """A JSON object from a folder that a person may have edited.

    Raises:
        ModelError: the file is missing or not a JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path}: the file is missing.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}): was it edited by hand?") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object.")
    return found


def open_artifact(
    folder: str | Path, open_base: Callable[[str], Embedder], options: EmbedOptions = DEFAULTS
) -> Embedder:
    """The embedder of an artifact folder of kind ``adapter``, ``query`` or ``bridge``.

    Args:
        folder: what ``tune`` wrote.
        open_base: opens a base by its name, with its cache.
        options: how a query encoder in the folder itself runs: precision, device, tokens of a batch, trusted code.

    Raises:
        ModelError: the folder is damaged, edited, or of another kind.
        FingerprintError: the base of that name now makes other vectors than the artifact was made for.
    """
    folder = Path(folder)
    marker = read_json(folder / ARTIFACT_FILE)
    kind, base_name = marker.get("kind"), marker.get("base")
    if kind not in ("adapter", "query", "bridge") or not isinstance(base_name, str) or not base_name:
        raise ModelError(f"{folder / ARTIFACT_FILE}: kind {kind!r} over base {base_name!r} cannot be opened here.")
    base = open_base(base_name)
    check_base(base, base_name, str(marker.get("base_fingerprint") or ""), "artifact")
    if kind == "adapter":
        return replace(load_adapter(folder).over(base), source=str(folder.resolve()))
    if kind == "bridge":
        return _open_bridge(folder, marker, base, open_base)
    return SplitEmbedder(_query_encoder(folder, options), base, folder.name, untuned=base, source=str(folder.resolve()))


def _open_bridge(folder: Path, marker: Json, new: Embedder, open_base: Callable[[str], Embedder]) -> Embedder:
    """New queries through the map (old ones where dev found them better), old documents as they are stored."""
    old = open_base(str(marker.get("document_base")))
    check_base(old, str(marker.get("document_base")), str(marker.get("document_base_fingerprint") or ""), "bridge")
    stored = load_adapter(folder)
    check_base(new, stored.base, stored.base_fingerprint, "bridge")
    queries = old if marker.get("queries") == "old" else AdaptedEmbedder(new, stored.adapter)
    untuned = None if queries is old else old
    return SplitEmbedder(queries, old, name=folder.name, untuned=untuned, source=str(folder.resolve()))


def _query_encoder(folder: Path, options: EmbedOptions) -> Embedder:
    """The folder's query route. Uncached by vectune.json's rule: it is the folder that would be opened again."""
    from vectune.embedders.local import LocalEmbedder

    kept = ("precision", "device", "batch_tokens", "trust_remote_code")  # prompts and the like are in the folder
    return LocalEmbedder(str(folder), replace(DEFAULTS, **{name: getattr(options, name) for name in kept}))


# LlamaIndex's saved adapters


def import_llama_index(folder: str | Path) -> Adapter:
    """An adapter that LlamaIndex's EmbeddingAdapterFinetuneEngine saved: its LinearLayer or TwoLayerNN.

    Reads ``config.json`` and ``pytorch_model.bin`` (weights only: no pickled code runs).

    Raises:
        ModelError: a file is missing, broken, or of a class that is not one of the two.
    """
    folder = Path(folder)
    config, state = read_json(folder / "config.json"), _torch_state(folder / "pytorch_model.bin")
    try:
        if "linear.weight" in state:
            weight = state["linear.weight"]
            return Adapter("linear", weight.shape[1], weight.shape[0], skip=weight, bias=state.get("linear.bias"))
        if "linear1.weight" in state and "linear2.weight" in state:
            return _two_layers(config, state)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ModelError(f"{folder}: config.json does not describe pytorch_model.bin ({error}).") from None
    raise ModelError(
        f"{folder / 'pytorch_model.bin'}: holds {', '.join(sorted(state)) or 'nothing'}; only LlamaIndex's LinearLayer "
        f"and TwoLayerNN can be imported."
    )


def _two_layers(config: Json, state: Mapping[str, NDArray[np.float32]]) -> Adapter:
    """TwoLayerNN: linear2(activation(linear1(x))), times residual_weight and plus x where it is residual."""
    down, up = state["linear1.weight"], state["linear2.weight"]
    residual = bool(config.get("add_residual", False))
    scale = float(state["residual_weight"].reshape(-1)[0]) if residual else 1.0
    bias = state.get("linear2.bias")
    return Adapter(
        "mlp",
        down.shape[1],
        up.shape[0],
        skip=None if residual else np.zeros((up.shape[0], down.shape[1]), dtype=np.float32),
        bias=None if bias is None else np.float32(scale) * bias,
        down=down,
        down_bias=state.get("linear1.bias"),
        up=np.float32(scale) * up,
        activation=config.get("activation_fn_str", "relu"),
    )


def _torch_state(path: Path) -> dict[str, NDArray[np.float32]]:
    import pickle

    import torch

    if not path.exists():
        raise ModelError(f"{path}: the file is missing.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: tensor.float().numpy() for name, tensor in state.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path}: cannot be read as plain weights ({reason}).") from None
