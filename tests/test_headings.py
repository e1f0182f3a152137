from __future__ import annotations

import pytest

from vectune.headings import LONGEST, markdown_headings, plain_line


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("max_seq_length and learning_rate", "max_seq_length and learning_rate"),
        ("`max_seq_length` of `__init__`", "max_seq_length of __init__"),
        ("``a ` b``, _emphasis_, __strong__ and _snake_case_", "a ` b, emphasis, strong and snake_case"),
        ("**bold**, *it*, ***both*** and 2 * 3 * 4", "bold, it, both and 2 * 3 * 4"),
        ("**[the `a_b` option](u)** ![](pic.png)", "the a_b option"),
        ("**`code`** [`x_y`](u)", "code x_y"),
        (r"snake\_case", "snake_case"),
    ],
)
def test_a_line_loses_its_markup_and_keeps_its_names(line: str, plain: str) -> None:
    assert plain_line(line) == plain


@pytest.mark.parametrize("mark", [" _a", "*a", "[", "`a", "[a]("])
def test_of_an_enormous_line_the_beginning_is_taken(mark: str) -> None:
    """To find the mark-up of all of it would take minutes."""
    assert 0 < len(plain_line(mark * 300_000)) <= LONGEST


def test_headings_keep_the_names_of_options() -> None:
    assert [heading.text for heading in markdown_headings("# max_seq_length\n\n## The `top_k` of _it_\n")] == [
        "max_seq_length",
        "The top_k of it",
    ]
