"""A table on standard output, in as many pieces as the terminal's width asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNWATCHED = 1000  # columns where nobody watches: a log or a file scrolls
_BETWEEN = 3  # spaces between two columns
_NARROWEST = 20  # columns of a name, when it is long


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1, title: str | None = None) -> None:
    """Print a table whose first columns name its rows; what does not fit beside them follows below, named again.

    Args:
        head: titles of the columns.
        rows: the cells; one that begins with ``*`` is shown in bold, without it.
        names: how many columns name the row; they are text, the others are numbers.
        title: stands above.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=_UNWATCHED, highlight=False)
    widths = [max(map(len, column)) + _BETWEEN for column in zip(head, *rows, strict=True)]
    for columns in _pieces(widths, names, console.width):
        table = Table(box=SIMPLE, title=None if title is None else Text(title, "table.title"), title_justify="left")
        for place in columns:
            table.add_column(head[place], justify="left" if place < names else "right", overflow="fold",
                             no_wrap=place >= names)  # fmt: skip
        for row in rows:
            table.add_row(*(_cell(row[place]) for place in columns))
        console.print(table)
        title = None


def print_lines(lines: Sequence[str]) -> None:
    """Lines of text, broken between words in a terminal and nowhere else."""
    console = Console(highlight=False)
    for line in lines:
        console.print(line, markup=False, soft_wrap=not console.is_terminal)


def _cell(text: str) -> Text:
    return Text(text.removeprefix("*"), style="bold" if text.startswith("*") else "")


def _pieces(widths: Sequence[int], names: int, width: int) -> Iterator[list[int]]:
    """The columns of each piece: all names, and as many others as stand beside them in this width."""
    room = width - 1 - min(sum(widths[:names]), max(names * _NARROWEST, width // 2))  # long names are folded
    piece, taken = list(range(names)), 0
    for place in range(names, len(widths)):
        if taken and taken + widths[place] > room:
            yield piece
            piece, taken = list(range(names)), 0
        piece.append(place)
        taken += widths[place]
    yield piece
