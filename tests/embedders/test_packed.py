from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models import save_bert
from vectune.embedders.packed import SCORES_IN_CACHE, PackedBert, can_pack, fill, group_sequences

LENGTHS = np.array([30, 29, 22, 22, 22, 9, 3, 2], dtype=np.int64)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(save_bert(tmp_path_factory.mktemp("m") / "bert")), device="cpu")[0].auto_model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def tokens(lengths: np.ndarray = LENGTHS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same ids one after another, as a padded table, and its mask."""
    torch.manual_seed(0)
    mask = torch.arange(int(lengths[0])) < torch.from_numpy(lengths)[:, None]
    table = torch.randint(5, 100, mask.shape) * mask
    return table[mask], table, mask


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("safe", [1e30, 1.0])  # of sums of exponentials; 1: softmax is taken everywhere
def test_states_and_gradients_are_those_of_the_padded_model(
    bert: Any, safe: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vectune.embedders.packed.SAFE_SUM", safe)
    flat, table, mask = tokens()
    expected = bert(input_ids=table, attention_mask=mask.long()).last_hidden_state[mask]
    arriving = torch.randn_like(expected)
    expected.backward(arriving)
    padded = gradients(bert)
    found = PackedBert(bert, torch.float32)(flat, None, LENGTHS)
    assert torch.allclose(found, expected, atol=1e-5)
    found.backward(arriving)  # type: ignore[no-untyped-call]
    packed = gradients(bert)
    assert packed.keys() == padded.keys()
    for name, gradient in padded.items():
        assert torch.allclose(packed[name], gradient, atol=1e-4, rtol=1e-3), name


def test_gradients_in_bf16_stay_near(bert: Any) -> None:
    flat, _, _ = tokens()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        states = PackedBert(bert, dtype)(flat, None, LENGTHS)
        torch.manual_seed(1)
        states.backward(torch.randn(states.shape).to(dtype))  # type: ignore[no-untyped-call]
        found.append(gradients(bert))
    exact, rough = found
    assert exact.keys() == rough.keys()
    for name, gradient in exact.items():
        if "key.bias" in name:  # has no gradient but rounding
            continue
        assert torch.nn.functional.cosine_similarity(gradient.flatten(), rough[name].flatten(), dim=0) > 0.98, name


def test_bf16_stays_near(bert: Any) -> None:
    flat, _, _ = tokens()
    exact, rough = (PackedBert(bert, dtype)(flat, None, LENGTHS) for dtype in (torch.float32, torch.bfloat16))
    assert rough.dtype == torch.bfloat16
    assert (torch.nn.functional.cosine_similarity(exact, rough.float(), dim=-1) > 0.99).all()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, about transformers
def test_low_rank_additions_are_part_of_the_weights(bert: Any) -> None:
    from copy import deepcopy

    from peft import LoraConfig, get_peft_model

    model = deepcopy(bert)
    get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", lora_dropout=0.0))
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    flat, table, mask = tokens()
    expected = model(input_ids=table, attention_mask=mask.long()).last_hidden_state[mask]
    arriving = torch.randn_like(expected)
    expected.backward(arriving)
    padded = gradients(model)
    found = PackedBert(model, torch.float32)(flat, None, LENGTHS)
    assert torch.allclose(found, expected, atol=1e-5)
    found.backward(arriving)  # type: ignore[no-untyped-call]
    packed = gradients(model)
    assert all("lora_" in name for name in packed)
    for name, gradient in padded.items():
        if "pooler" not in name:
            assert torch.allclose(packed[name], gradient, atol=1e-4, rtol=1e-3), name


def test_groups_cover_all_tokens_with_little_padding() -> None:
    draw = np.random.default_rng(0)
    lengths = np.sort(draw.integers(1, 512, 200))[::-1].copy()
    groups = group_sequences(lengths, heads=12)
    assert [group.start for group in groups[1:]] == [group.stop for group in groups[:-1]]
    assert groups[-1].stop == lengths.sum()
    assert sum(group.count for group in groups) == 200
    for group in groups:
        assert group.count == 1 or 12 * group.count * group.length**2 <= SCORES_IN_CACHE
        assert group.stop - group.start >= 0.87 * group.count * group.length


def test_training_sees_few_shapes_and_little_padding() -> None:
    draw = np.random.default_rng(1)
    shapes = set()
    for _ in range(30):
        lengths = np.sort(draw.integers(8, 257, 40))[::-1].copy()
        groups = group_sequences(lengths, heads=12, few_sizes=True)
        assert groups[-1].stop == lengths.sum()
        shapes |= {(group.count, group.length) for group in groups}
        assert sum(group.count * group.length for group in groups) <= 1.15 * lengths.sum()
    assert len(shapes) < 60
    ids, places = fill(torch.arange(1000), np.arange(1000))
    assert len(ids) == len(places) == 1024
    assert len(fill(torch.arange(10), np.arange(10))[0]) == 12


def test_other_activations_and_architectures_are_left_alone(bert: Any) -> None:
    assert can_pack(bert)
    assert not can_pack(torch.nn.Linear(2, 2))
    assert not can_pack(None)
    before, bert.config.hidden_act = bert.config.hidden_act, "relu"
    assert not can_pack(bert)
    bert.config.hidden_act = before
