from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spaces import TableEmbedder, turned_space, unit
from vectune.adapters import (
    AdaptedEmbedder,
    Adapter,
    StoredAdapter,
    composed,
    identity,
    import_llama_index,
    load_adapter,
    open_artifact,
    save_adapter,
)
from vectune.errors import FingerprintError, ModelError
from vectune.runs import write_json


def random(*shape: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def every_kind() -> list[Adapter]:
    return [
        identity(6),
        Adapter("linear", 6, 6, skip=random(6, 6), bias=random(6)),
        Adapter("low-rank", 6, 6, down=random(2, 6), up=random(6, 2)),
        Adapter("mlp", 6, 6, down=random(3, 6), down_bias=random(3), up=random(6, 3), activation="relu"),
        Adapter("ridge", 6, 4, skip=random(4, 6)),
    ]


@pytest.mark.parametrize("adapter", every_kind(), ids=lambda a: a.kind)
def test_the_formula_one_row_at_a_time_and_many(adapter: Adapter) -> None:
    x = unit(random(5, 6))
    relu = adapter.activation == "relu"
    for row, got in zip(x, adapter.apply(x), strict=True):
        y = row if adapter.skip is None else adapter.skip @ row
        y = y if adapter.bias is None else y + adapter.bias
        if adapter.down is not None and adapter.up is not None:
            hidden = adapter.down @ row + (0 if adapter.down_bias is None else adapter.down_bias)
            y = y + adapter.up @ (np.maximum(hidden, 0) if relu else hidden)
        np.testing.assert_allclose(got, y / np.linalg.norm(y), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(adapter.apply(row), got, rtol=1e-5, atol=1e-6)


def test_unit_norm_keeps_the_ranking_by_cosine_for_dot_product_stores() -> None:
    adapter, documents = every_kind()[1], unit(random(50, 6, seed=1))
    x = unit(random(6, seed=2))
    assert adapter.skip is not None and adapter.bias is not None
    mapped = adapter.skip @ x + adapter.bias
    cosines = documents @ mapped / np.linalg.norm(mapped)
    assert (np.argsort(documents @ adapter.apply(x)) == np.argsort(cosines)).all()


def test_a_zero_vector_gives_no_nan() -> None:
    assert np.isfinite(identity(4).apply(np.zeros((2, 4), np.float32))).all()
    assert np.isfinite(identity(4).apply(np.zeros(4, np.float32))).all()


def test_shapes_and_values_are_checked() -> None:
    with pytest.raises(ModelError, match=r"'skip' has shape \(4, 6\), expected \(6, 6\)"):
        Adapter("linear", 6, 6, skip=random(4, 6))
    with pytest.raises(ModelError, match="'down' and 'up'"):
        Adapter("mlp", 6, 6, down=random(3, 6))
    with pytest.raises(ModelError, match="NaN"):
        Adapter("linear", 2, 2, skip=np.full((2, 2), np.nan, np.float32))
    with pytest.raises(ModelError, match="takes vectors of 6 dimensions"):
        identity(6).apply(random(2, 5))


def test_applying_loads_no_torch() -> None:
    code = (
        "import sys, numpy as np; from vectune.adapters import identity;"
        "identity(8).apply(np.ones((2, 8), np.float32)); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize("adapter", every_kind(), ids=lambda a: a.kind)
def test_saved_and_loaded_it_is_the_same(adapter: Adapter, tmp_path: Path) -> None:
    save_adapter(tmp_path, StoredAdapter(adapter, adapter, "base", "f" * 64))
    stored = load_adapter(tmp_path)
    assert stored.adapter.fingerprint == adapter.fingerprint == stored.document.fingerprint  # type: ignore[union-attr]
    assert (stored.base, stored.base_fingerprint, stored.adapter.kind) == ("base", "f" * 64, adapter.kind)


def edit_card(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        card = json.loads((folder / "adapter.json").read_text())
        card["query"].update(changes)
        write_json(folder / "adapter.json", card)

    return edit


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("no card", lambda f: (f / "adapter.json").unlink(), "adapter.json: the file is missing"),
    ("no weights", lambda f: (f / "adapter.safetensors").unlink(), "adapter.safetensors: the file is missing"),
    ("not JSON", lambda f: (f / "adapter.json").write_text("{"), "not valid JSON"),
    ("no object", lambda f: (f / "adapter.json").write_text("[]"), "no JSON object"),
    ("other weights", lambda f: (f / "adapter.safetensors").write_bytes(b"x"), "SHA-256 differs"),
    ("other dimension", edit_card(dim_in=7), "expected"),
    ("words for numbers", edit_card(dim_out="six"), "whole numbers"),
    ("unknown activation", edit_card(activation="magic"), "unknown activation 'magic'"),
    ("another format", lambda f: (f / "adapter.json").write_text('{"format": 9}'), "format 9 is not known"),
    ("empty", lambda f: (f / "adapter.json").write_text('{"format": 1}'), "'query' is missing"),
]


@pytest.mark.parametrize(("breaks", "said"), [(b, s) for _, b, s in BROKEN], ids=[name for name, _, _ in BROKEN])
def test_a_folder_edited_by_hand_is_refused(breaks: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    save_adapter(tmp_path, StoredAdapter(every_kind()[1], None, "base", ""))
    breaks(tmp_path)
    with pytest.raises(ModelError, match=said):
        load_adapter(tmp_path)


def test_queries_pass_the_adapter_and_documents_do_not() -> None:
    _, base = turned_space(documents=3)
    adapter = Adapter("linear", base.dim, base.dim, skip=random(base.dim, base.dim))
    adapted, text = AdaptedEmbedder(base, adapter), next(iter(base.table))
    np.testing.assert_array_equal(adapted.embed_documents([text]), base.embed_documents([text]))
    np.testing.assert_allclose(adapted.embed_queries([text]), adapter.apply(base.embed_queries([text])))
    assert adapted.fingerprint not in (base.fingerprint, AdaptedEmbedder(base, identity(base.dim)).fingerprint)


def test_another_base_is_refused_with_both_names(tmp_path: Path) -> None:
    _, base = turned_space(documents=3)
    other = TableEmbedder("other", {"a": unit(random(base.dim))})
    save_adapter(tmp_path, StoredAdapter(identity(base.dim), None, base.name, base.fingerprint))
    write_json(tmp_path / "vectune.json", {"kind": "adapter", "base": base.name, "base_fingerprint": base.fingerprint})
    assert open_artifact(tmp_path, lambda name: base).dim == base.dim
    with pytest.raises(FingerprintError, match=r"'other' \(it was made for 'table'\)"):
        open_artifact(tmp_path, lambda name: other)


def test_a_marker_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "vectune.json", {"kind": "magic", "base": "b"})
    with pytest.raises(ModelError, match="kind 'magic'"):
        open_artifact(tmp_path, lambda name: turned_space(documents=3)[1])


# LlamaIndex's files, written as its classes write them: state_dict and the constructor's arguments


def test_llama_index_linear_layer(tmp_path: Path) -> None:
    weight, bias = torch.randn(5, 5), torch.randn(5)
    torch.save({"linear.weight": weight, "linear.bias": bias}, tmp_path / "pytorch_model.bin")
    write_json(tmp_path / "config.json", {"in_features": 5, "out_features": 5, "bias": True})
    x = torch.randn(3, 5)
    expected = torch.nn.functional.normalize(x @ weight.T + bias).numpy()
    np.testing.assert_allclose(load_adapter(tmp_path).adapter.apply(x.numpy()), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("residual", [True, False])
def test_llama_index_two_layers(residual: bool, tmp_path: Path) -> None:
    first, second, share = torch.randn(7, 5), torch.randn(5, 7), torch.tensor([0.3])
    state = {"linear1.weight": first, "linear2.weight": second, **({"residual_weight": share} if residual else {})}
    torch.save(state, tmp_path / "pytorch_model.bin")
    config = {"in_features": 5, "hidden_features": 7, "out_features": 5, "activation_fn_str": "relu"}
    write_json(tmp_path / "config.json", {**config, "add_residual": residual})
    x = torch.randn(3, 5)
    inner = torch.relu(x @ first.T) @ second.T
    expected = torch.nn.functional.normalize(share * inner + x if residual else inner).numpy()
    np.testing.assert_allclose(import_llama_index(tmp_path).apply(x.numpy()), expected, rtol=1e-4, atol=1e-5)


class Stranger:
    """What a pickle could run code with."""


def test_llama_index_files_that_hold_more_than_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"linear.weight": Stranger()}, tmp_path / "pytorch_model.bin")
    write_json(tmp_path / "config.json", {})
    with pytest.raises(ModelError, match="plain weights"):
        import_llama_index(tmp_path)
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only LlamaIndex's LinearLayer"):
        import_llama_index(tmp_path)


@pytest.mark.parametrize("kind", ["identity", "linear", "mlp"])
def test_an_adapter_behind_a_matrix_is_one_adapter(kind: str) -> None:
    before, x = random(6, 4, seed=1), random(5, 4, seed=2)
    parts = {
        "identity": identity(6),
        "linear": Adapter("linear", 6, 6, skip=random(6, 6, seed=3)),
        "mlp": Adapter("mlp", 6, 6, down=random(3, 6), down_bias=random(3), up=random(6, 3, seed=4), activation="relu"),
    }
    whole = composed(parts[kind], before)
    assert (whole.dim_in, whole.dim_out) == (4, 6)
    np.testing.assert_allclose(whole.apply(x), parts[kind].apply(x @ before.T), atol=1e-5)


def test_blocks_of_a_memory_map_are_mapped_like_single_vectors(tmp_path: Path) -> None:
    stored = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float16, (5000, 6))  # more than a block
    stored[:] = random(5000, 6)
    adapter = Adapter("mlp", 6, 6, None, random(6), random(3, 6), random(3), random(6, 3), "relu")
    before = stored[-1].copy()
    mapped = adapter.apply(stored)
    np.testing.assert_allclose(mapped[-1], adapter.apply(stored[-1]), atol=1e-5)
    np.testing.assert_array_equal(stored[-1], before)
    assert np.abs(np.linalg.norm(mapped, axis=1) - 1).max() < 1e-5
