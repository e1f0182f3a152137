"""LlamaIndex's torch adapters: their names, parameters and files, read without pickled code and written whole.

A folder holds ``config.json`` (the class's arguments) and ``pytorch_model.bin`` (its weights), as LlamaIndex's does.
"""

from __future__ import annotations

import json
import pickle
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from vectune.adapters import Adapter, read_json
from vectune.errors import ModelError, UsageError
from vectune.runs import storage_errors, writing

CONFIG, WEIGHTS = "config.json", "pytorch_model.bin"
LLAMA_CLASSES = "llama_index.embeddings.adapter.utils"  # the module of LlamaIndex's own two
_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": nn.functional.leaky_relu,
}


class BaseAdapter(nn.Module):
    """The base of an adapter of your own: write ``forward`` and ``get_config_dict``, the constructor's arguments."""

    @abstractmethod
    def get_config_dict(self) -> dict[str, Any]:
        """The arguments from which the constructor makes the same layers."""

    @abstractmethod
    def forward(self, embed: Tensor) -> Tensor:
        """Query vectors of shape (dim,) or (n, dim) to vectors of the same leading shape."""

    def save(self, output_path: str) -> None:
        """Write ``config.json`` and ``pytorch_model.bin`` into the folder."""
        folder = Path(output_path)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with writing(folder / WEIGHTS) as beside:
            torch.save(self.state_dict(), beside)
        with writing(folder / CONFIG) as beside:
            beside.write_text(json.dumps(self.get_config_dict()), encoding="utf-8")

    @classmethod
    def load(cls, input_path: str) -> Self:
        """Make the layers from ``config.json`` and fill in the weights.

        Raises:
            ModelError: a file is missing or broken, or was written by another class.
        """
        folder = Path(input_path)
        config = read_json(folder / CONFIG)
        try:
            model = cls(**config)
            model.load_state_dict(torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True))
        except FileNotFoundError:
            raise ModelError(f"{folder / WEIGHTS}: the file is missing.") from None
        except (TypeError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"{folder}: holds no {cls.__name__} ({reason}).", "Pass the adapter's own class as adapter_cls."
            ) from None
        return model


class LinearLayer(BaseAdapter):
    """A matrix that starts as the identity, and a bias that starts at zero where there is one."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = in_features, out_features, bias
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        nn.init.eye_(self.linear.weight)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def forward(self, embed: Tensor) -> Tensor:
        """W x + b."""
        mapped: Tensor = self.linear(embed)
        return mapped

    def get_config_dict(self) -> dict[str, Any]:
        return {"in_features": self.in_features, "out_features": self.out_features, "bias": self.bias}


class TwoLayerNN(BaseAdapter):
    """Two layers; with ``add_residual`` they add to the vector with a weight that starts at zero.

    ``bias`` is kept for LlamaIndex's files: both layers always have one, there as here.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        bias: bool = False,
        activation_fn_str: str = "relu",
        add_residual: bool = False,
    ) -> None:
        super().__init__()
        if activation_fn_str not in _TORCH:
            raise UsageError(f"activation_fn_str is '{activation_fn_str}', expected one of {', '.join(_TORCH)}.")
        self.in_features, self.hidden_features, self.out_features = in_features, hidden_features, out_features
        self.bias, self.activation_fn_str, self.add_residual = bias, activation_fn_str, add_residual
        self.linear1 = nn.Linear(in_features, hidden_features)
        self.linear2 = nn.Linear(hidden_features, out_features)
        self.residual_weight = nn.Parameter(torch.zeros(1))

    def forward(self, embed: Tensor) -> Tensor:
        """W₂ activation(W₁ x + b₁) + b₂, or x plus a share of it."""
        found: Tensor = self.linear2(_TORCH[self.activation_fn_str](self.linear1(embed)))
        return embed + self.residual_weight * found if self.add_residual else found

    def get_config_dict(self) -> dict[str, Any]:
        sizes = {name: getattr(self, name) for name in ("in_features", "hidden_features", "out_features", "bias")}
        return {**sizes, "activation_fn_str": self.activation_fn_str, "add_residual": self.add_residual}


def check_adapter(module: Any, dim: int, device: str = "cpu") -> None:
    """Check before it is trained that a module takes and gives vectors of this length, and can be saved.

    Raises:
        UsageError: says what is missing.
    """
    if not callable(getattr(module, "save", None)):
        raise UsageError(f"adapter_model: {type(module).__name__} has no save(folder).", "Derive it from BaseAdapter.")
    module.to(device)
    training = module.training
    module.eval()
    with torch.no_grad():
        try:
            mapped = tuple(module(torch.zeros(2, dim, device=device)).shape)
        except RuntimeError as error:
            raise UsageError(
                f"adapter_model: {type(module).__name__} takes no vectors of {dim} dimensions ({error}).",
                "Make it with the dimensions of embed_model's vectors.",
            ) from None
    module.train(training)
    if mapped != (2, dim):
        raise UsageError(f"adapter_model: {type(module).__name__} makes {mapped} of vectors of shape (2, {dim}).")


def torch_adapter(adapter: Adapter) -> BaseAdapter:
    """A vectune adapter as LlamaIndex's LinearLayer or TwoLayerNN: the same vectors up to their length.

    Raises:
        ModelError: an activation that no exact form of the two exists for.
    """
    if adapter.is_linear:
        layer = LinearLayer(adapter.dim_in, adapter.dim_out, bias=adapter.bias is not None)
        state = {"linear.weight": adapter.matrix(), **({} if adapter.bias is None else {"linear.bias": adapter.bias})}
        return _filled(layer, state)
    if adapter.activation != "relu" or adapter.down is None or adapter.up is None:
        raise ModelError(f"an adapter with the activation '{adapter.activation}' has no form in LlamaIndex.")
    dim, rank = adapter.dim_in, len(adapter.down)
    eye = np.eye(adapter.dim_out, dim, dtype=np.float32)
    skip = eye if adapter.skip is None else adapter.skip
    two = TwoLayerNN(dim, rank + 2 * dim, adapter.dim_out, bias=True)
    one = np.eye(dim, dtype=np.float32)
    shift = np.zeros(rank, np.float32) if adapter.down_bias is None else adapter.down_bias
    return _filled(  # x = relu(x) - relu(-x): the hidden layer carries the vector past the activation
        two,
        {
            "linear1.weight": np.concatenate([adapter.down, one, -one]),
            "linear1.bias": np.concatenate([shift, np.zeros(2 * dim, np.float32)]),
            "linear2.weight": np.concatenate([adapter.up, skip, -skip], axis=1),
            "linear2.bias": np.zeros(adapter.dim_out, np.float32) if adapter.bias is None else adapter.bias,
            "residual_weight": np.zeros(1, np.float32),
        },
    )


def _filled(layer: BaseAdapter, state: dict[str, Any]) -> BaseAdapter:
    layer.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    return layer
