"""Templates → one HTML file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectune.board import figure
from vectune.runs import Json

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' "
    "rx='7' fill='%230e6e64'/%3E%3Cpath d='M7 9l9 15 9-15' fill='none' stroke='%23fff' stroke-width='3.4' "
    "stroke-linecap='round' stroke-linejoin='round'/%3E%3C/svg%3E"
)


def render(template: str, values: Json) -> str:
    """Fill a template with style and script inlined, and a policy that allows these two alone.

    The page may neither load nor send anything: `default-src 'none'`, and style and script by their hashes, so that
    even a script that had slipped into the page through a document would not run.
    """
    style, script = (TEMPLATES / "page.css").read_text("utf-8"), (TEMPLATES / "page.js").read_text("utf-8")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = _environment().get_template(template)
    return page.render(**values, style=style, script=script, policy=policy, icon=ICON)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "figure": measure_text,
        "gain": gain_text,
        "count": count_text,
        "seconds": seconds_text,
        "share": share_text,
    }
    made.filters |= {"chance": chance_text}
    return made


def measure_text(value: float | None) -> str:
    """A measure with three digits; a dash where there is none."""
    return "–" if value is None else figure(value)


def gain_text(value: float | None) -> str:
    """A difference of measures with its sign, minus as the sign and not the hyphen."""
    return "–" if value is None else figure(value, sign=True).replace("-", "−") if abs(value) >= 5e-4 else "±.000"


def chance_text(p: float | None) -> str:
    """A p-value as it is usually written."""
    if p is None:
        return ""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")


def count_text(value: Any) -> str:
    """A count with thousands separated; other values as they are."""
    if isinstance(value, bool) or value is None:
        return {None: "–", True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    return f"{value:,.4g}".replace("-", "−") if isinstance(value, float) else str(value)


def share_text(value: float) -> str:
    """A share as percent: ``95 %``."""
    return f"{100 * value:g} %"


def seconds_text(value: float | None) -> str:
    """A duration as a person would say it."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h"
