"""Prices: shipped, overridden, unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from vectune.errors import InputError
from vectune.queries.pricing import CostEstimate, count_tokens, price_table


def test_dated_names_cost_what_their_model_costs() -> None:
    table = price_table()
    assert table.of("gpt-4o-mini-2024-07-18") == table.of("gpt-4o-mini") == table.of("openai/gpt-4o-mini")
    assert table.of("gpt-4o-mini") != table.of("gpt-4o")
    assert table.of("my-model") is None
    price, batch = table.of("gpt-4o"), table.of("gpt-4o", batch=True)
    assert price is not None and batch is not None
    assert price.of(1_000_000, 1_000_000) == 12.5 == 2 * batch.of(1_000_000, 1_000_000)


def test_own_table_goes_over_the_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('batch_discount = 0.25\n[models]\n"gpt-4o" = { input = 1, output = 2 }\n')
    table = price_table(str(path))
    price, batch = table.of("gpt-4o"), table.of("gpt-4o", batch=True)
    assert price is not None and (price.input, price.output) == (1, 2)
    assert batch is not None and batch.output == 0.5
    assert table.of("gpt-4o-mini") is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[models", "not valid TOML"),
        ('[models]\n"m" = { input = 1 }', "the price of 'm' needs"),
        ('[models]\n"m" = { input = -1, output = 1 }', "the price of 'm' needs"),
        ('[models]\n"m" = 3', "the price of 'm' needs"),
        ('[models]\n"m" = { input = nan, output = 1 }', "prices.toml: the price of 'm' needs .* nan"),
        ('[models]\n"m" = { input = 1, output = inf }', "the price of 'm' needs"),
        ("models = 3", r"prices\.toml: models is 3"),
        ('batch_discount = "half"', r"prices\.toml: batch_discount is 'half'"),
        ("batch_discount = -1", "batch_discount is -1"),
        ("batch_discount = nan", "batch_discount is nan"),
        ("batch_discount = 50", "batch_discount is 50"),
    ],
)
def test_broken_table(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        price_table(str(path))


def test_tokens() -> None:
    english = "The drain pump of the machine sits behind the small flap at the lower right of the front panel."
    assert 17 <= count_tokens(english) <= 28  # 21 by OpenAI's tokenizer
    assert count_tokens("洗濯機のポンプ") >= 5
    assert count_tokens("") == 1


def test_description() -> None:
    told = CostEstimate(100, 20, 80, 40_000, 5_000, 0.0123).describe()
    assert told == (
        "100 chunks: 80 requests to send, 20 answers on disk; about 40,000 tokens in and 5,000 out; about $0.0123"
    )
    assert "price unknown" in CostEstimate(1, 0, 1, 1, 1, None).describe()
