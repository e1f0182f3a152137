from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectune.chunking import Chunker, ChunkOptions
from vectune.embedders.models import DEFAULT_MODEL
from vectune.headings import choose_title, heading_paths, markdown_headings
from vectune.pages import heading_level, join_pages
from vectune.records import Document, Heading
from vectune.tokens import load_tokenizer

FULL = "Running text that fills its column from the left to the right margin of the"
KINDS = (FULL, "and ends.", "Item 1. Risk Factors", "Our Growth", "12", "", "• one • two", "a-")
LINES = st.lists(st.sampled_from(KINDS))


@given(st.lists(LINES.map("\n".join), max_size=8))
def test_pages_begin_where_the_offsets_say(pages: list[str]) -> None:
    found = join_pages(pages)
    assert len(found.pages) == len(pages)
    assert list(found.pages) == sorted(found.pages)
    assert all(0 <= start <= len(found.text) for start in found.pages)
    assert all(found.text[heading.start :].startswith(heading.text[:20]) for heading in found.headings)


def test_wrapped_lines_are_joined_also_over_a_page_break() -> None:
    found = join_pages([f"{FULL}\n{FULL}", "page. The end.\nshort row 1\nshort row 2"])
    assert found.text == f"{FULL} {FULL} page. The end.\n\nshort row 1\nshort row 2"
    assert found.text[found.pages[1] :].startswith("page.")


def test_words_cut_at_the_end_of_a_line_are_mended() -> None:
    text = join_pages([f"{FULL} docu-\nment and a {FULL} long-\nterm plan. A document."]).text
    assert "the document and" in text
    assert "long-term plan" in text


def test_running_heads_stay_once_and_page_numbers_go() -> None:
    pages = [
        f"Acme Inc.\n{letter} begins\n{FULL}\n{FULL}\nend {letter}.\nrow {letter}\n{letter * 2}\nPage {number} of 7"
        for number, letter in enumerate("abcdefg", 1)
    ]
    text = join_pages(pages).text
    assert text.count("Acme") == 1
    assert "of 7" not in text
    assert all(f"{letter} begins" in text for letter in "abcdefg")


def test_rows_of_figures_are_no_running_heads() -> None:
    rows = [[f"{page}{row} {row * 7} {page * 31 + row}.5" for row in range(10, 50)] for page in range(5)]
    text = join_pages(["\n".join(["Acme Inc. 2023", *page]) for page in rows]).text
    assert text.splitlines() == ["Acme Inc. 2023", *(row for page in rows for row in page)]


@pytest.mark.parametrize(
    "foot",
    [
        "{}", "- {} -", "F-{}", "{} / 12", "{} of 12", "Page {} of 12", "10-K 2023 | page {}", "Annual Report 2023 {}",
        "Seite {} von 12", "स 2023 पृष्ठ {}", "12.03.2024 9:41 стр. {}",
    ],
)  # fmt: skip
def test_feet_that_differ_in_the_page_number_go(foot: str) -> None:
    pages = [f"{letter} begins\n{FULL}\n{FULL}\n{FULL}\n{foot}" for letter in "abcde"]
    text = join_pages([page.format(number) for number, page in enumerate(pages, 1)]).text
    assert not any(character.isdigit() for character in text)


def test_left_and_right_pages_carry_different_heads() -> None:
    heads = ["{} A. Author et al.", "On the Title of a Paper {}"]
    pages = [f"{heads[number % 2].format(number)}\n{FULL}\n{FULL}\nline {number * 7}." for number in range(1, 10)]
    text = join_pages(pages).text
    assert "Author" not in text and "Title" not in text


@pytest.mark.parametrize("title", ["Lesson {}", "Case Study {}", "Article {}", "第{}課"])
def test_titles_that_count_are_no_page_numbers(title: str) -> None:
    pages = [f"{title.format(number)}\none {number * 7}\nmore\nlast {number * 3}" for number in range(1, 5)]
    others = [f"Other {letter}\none\ntwo\nthree {letter}" for letter in "efgh"]
    text = join_pages(pages + others).text
    assert all(title.format(number) in text for number in range(1, 5))


def test_numbers_that_do_not_grow_with_the_pages_are_content() -> None:
    numbers = (1001, 1017, 1044, 1090, 1123, 1188)
    pages = [f"Invoice number {n}\nCustomer {n * 7 % 991}\nTotal {n * 13}\nPayable within 30 days" for n in numbers]
    text = join_pages(pages).text
    assert all(f"Invoice number {number}" in text for number in numbers)
    assert text.count("Payable within 30 days") == 1


def test_no_page_is_trimmed_to_nothing() -> None:
    pages = [f"Appendix of Forms {number}" for number in range(1, 6)]
    assert list(filter(None, join_pages(pages).text.splitlines())) == pages


def test_long_lines_that_end_in_a_number_are_content() -> None:
    line = "Note on the accounts " + "of the company and its many subsidiaries " * 5
    pages = [f"{letter} begins\n{FULL}\n{FULL}\n{FULL}\n{line}{number}" for number, letter in enumerate("abcde", 1)]
    assert join_pages(pages).text.count("Note on the accounts") == 5


def test_pages_with_nothing_but_running_heads_are_bare() -> None:
    assert join_pages(["Scanned by Acme"] * 4).bare
    assert not join_pages(["Scanned by Acme"] * 3 + [f"Scanned by Acme\n{FULL}"]).bare


def test_bullets_on_one_line_get_lines_of_their_own() -> None:
    assert join_pages(["Our aims: • grow • learn"]).text == "Our aims:\n\n• grow\n• learn"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("PART II", 1), ("Item 1A. Risk Factors.", 2), ("2.3 Methods of Measurement", 3), ("RISK FACTORS", 2),
        ("Our Growth Strategy", 3), ("Total revenue $ 3,208,323", 0), ("This is a sentence.", 0), ("and so on", 0),
        ("Revenue Recognition ........ 17", 0), ("", 0), ("We may lose money in the long run", 0),
    ],
)  # fmt: skip
def test_headings_by_their_form(line: str, level: int) -> None:
    assert heading_level(line) == level


def test_a_heading_over_two_lines_is_one() -> None:
    first = "ITEM 5. MARKET FOR COMMON EQUITY, RELATED MATTERS AND PURCHASES OF EQUITY"
    found = join_pages([f"{FULL}\nand it ends.\n{first}\nSECURITIES\n{FULL}\nand it ends."])
    assert [heading.text for heading in found.headings] == [f"{first} SECURITIES"]
    assert f"{first} SECURITIES\n\n{FULL}" in found.text


def test_markdown_headings() -> None:
    text = "---\ntitle: x\n---\n# One #\ntext\n\n```\n# code\n```\n\nTwo *words*\n===\n\n### [Three](url)\n- a\n---\n"
    assert [(heading.level, heading.text) for heading in markdown_headings(text)] == [
        (1, "One"),
        (1, "Two words"),
        (3, "Three"),
    ]
    assert all(heading.text[:3] in text[heading.start : heading.start + 12] for heading in markdown_headings(text))


def test_the_path_holds_what_a_position_is_under() -> None:
    headings = (Heading(0, 1, "a"), Heading(10, 3, "b"), Heading(20, 2, "c"), Heading(30, 1, "d"), Heading(40, 1, "e"))
    assert heading_paths(headings) == [(), ("a",), ("a", "b"), ("a", "c"), ("d",), ("e",)]
    assert heading_paths([]) == [()]


class CountedHeadings(tuple[Heading, ...]):
    """Headings that count how many of them are handed out."""

    def __new__(cls, headings: Iterable[Heading]) -> CountedHeadings:
        made = super().__new__(cls, headings)
        made.given = 0
        return made

    given: int

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.given += len(found) if isinstance(key, slice) else 1
        return found

    def __iter__(self) -> Iterator[Heading]:
        for heading in super().__iter__():
            self.given += 1
            yield heading


def test_chunking_looks_at_each_heading_a_few_times() -> None:
    text = "".join(f"## w{number}\n\nthing {number}\n\n" for number in range(300))
    headings = CountedHeadings(markdown_headings(text))
    chunks = Chunker(load_tokenizer(DEFAULT_MODEL), 256, ChunkOptions(context="path")).split(
        Document(text, "s", "T", (), headings)
    )
    assert chunks and headings.given <= 3 * len(headings)


@pytest.mark.parametrize(
    ("given", "headings", "source", "trusted", "title"),
    [
        ("Annual Report", (), "x/f_1.pdf", True, "Annual Report"),
        ("0001759509-22-000016", (Heading(0, 2, "FORM 10-K"),), "lyft_2021.pdf", False, "lyft 2021"),
        ("Untitled", (Heading(0, 2, "Sub"), Heading(9, 1, "Top")), "a.html", True, "Top"),
        ("Microsoft Word - a.doc", (Heading(0, 1, "Top"),), "scan0001.pdf", False, "Top"),
        ("", (), "notes.txt", True, "notes"),
    ],
)
def test_titles(given: str, headings: tuple[Heading, ...], source: str, trusted: bool, title: str) -> None:
    assert choose_title(given, headings, source, trust_headings=trusted) == title
