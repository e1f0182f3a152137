"""What an LLM costs: a table shipped as data, the user's own over it, and an estimate before anything is sent."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from vectune.errors import InputError
from vectune.runs import Json

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DATED = re.compile(r"[-@:](?:\d{4}-?\d{2}-?\d{2}|\d{4}|latest)$")


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens."""

    input: float
    output: float

    def of(self, tokens_in: float, tokens_out: float) -> float:
        """Dollars for this many tokens."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6


@dataclass(frozen=True)
class PriceTable:
    """Prices by model name."""

    models: Mapping[str, Price]
    batch_discount: float = 0.5

    def of(self, model: str, batch: bool = False) -> Price | None:
        """The model's price, or that of the undated name; None where the table does not know it."""
        name = model.rsplit("/", 1)[-1]
        price = self.models.get(model) or self.models.get(name) or self.models.get(_DATED.sub("", name))
        if price is None or not batch:
            return price
        return Price(price.input * self.batch_discount, price.output * self.batch_discount)


def price_table(override: str | None = None) -> PriceTable:
    """The shipped table, with the entries of the user's file over it.

    Raises:
        InputError: the file cannot be read, or holds something that is not a price.
    """
    shipped = tomllib.loads((files("vectune.queries") / "prices.toml").read_text(encoding="utf-8"))
    own = _read(Path(override).expanduser()) if override else {}
    named = own.get("models", {})
    if not isinstance(named, dict):
        raise InputError(f"models is {named!r}; it must be a table.", _hint("my-model"), path=override)
    prices = {name: _price(name, entry, override) for name, entry in {**shipped["models"], **named}.items()}
    return PriceTable(prices, _discount(own.get("batch_discount", shipped["batch_discount"]), override))


def _read(path: Path) -> Json:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"the price table cannot be read ({error.strerror}).", path=path) from None
    except ValueError as error:
        raise InputError(f"the price table is not valid TOML ({error}).", path=path) from None


def _price(name: str, entry: Any, path: str | None) -> Price:
    try:
        price = Price(float(entry["input"]), float(entry["output"]))
    except (TypeError, KeyError, ValueError):
        price = Price(-1, -1)
    if not (0 <= price.input < math.inf and 0 <= price.output < math.inf):  # no comparison holds for nan
        why = f"the price of '{name}' needs an input and an output in dollars; it is {entry!r}."
        raise InputError(why, _hint(name), path=path)
    return price


def _hint(name: str) -> str:
    return f'Write it under [models] as: "{name}" = {{ input = 0.15, output = 0.6 }}'


def _discount(value: Any, path: str | None) -> float:
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        why = f"batch_discount is {value!r}; it is what a batch costs as a share of the price, from 0 to 1."
        raise InputError(why, "Write it as: batch_discount = 0.5, above [models]", path=path)
    return float(value)


def count_tokens(text: str) -> int:
    """A cheap estimate of a text's tokens: about four characters of Latin script each, one of Chinese or Japanese.

    Within about 15 % of the usual tokenizers on English prose; meant for money and rate limits, not for cutting.
    """
    wide = len(text) - len(text.encode("ascii", "ignore"))
    return round((len(text) - wide) / 4.2 + wide * 0.8) + 1


@dataclass(frozen=True)
class CostEstimate:
    """What a run would send, before anything is sent.

    Attributes:
        chunks: chunks to write for.
        cached: requests whose answers are already on disk and cost nothing.
        requests: requests that would be sent.
        tokens_in, tokens_out: estimated tokens of those requests and of their answers.
        money: US dollars; None where the price of the model is unknown.
        measured: True when tokens_out rests on this model's answers on disk, False when on a rule of thumb.
    """

    chunks: int
    cached: int
    requests: int
    tokens_in: int
    tokens_out: int
    money: float | None
    measured: bool = False

    def to_json(self) -> Json:
        """For reports."""
        return asdict(self)

    def describe(self) -> str:
        """One paragraph for people."""
        money = "price unknown (--prices FILE tells it)"
        if self.money is not None:
            money = f"about ${self.money:,.4f}".rstrip("0").rstrip(".")
        return (
            f"{self.chunks:,} chunks: {self.requests:,} requests to send, {self.cached:,} answers on disk; "
            f"about {self.tokens_in:,} tokens in and {self.tokens_out:,} out; {money}"
        )
