"""Answers as models really give them, and the promise that nothing raises and nothing cut off comes through."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectune.queries.parsing import LONGEST_QUERY, clean, is_query, parse_queries

TWO = ["How do I drain the pump of a WM-7?", "wm-7 drain filter"]

FORMS = {
    "json": '{"queries": [{"text": "How do I drain the pump of a WM-7?"}, {"text": "wm-7 drain filter"}]}',
    "list of strings": '["How do I drain the pump of a WM-7?", "wm-7 drain filter"]',
    "fenced": '```json\n{"queries": ["How do I drain the pump of a WM-7?", "wm-7 drain filter"]}\n```\nAnything else?',
    "preamble and json": 'Here you go:\n{"questions": ["How do I drain the pump of a WM-7?", "wm-7 drain filter"]}',
    "numbered": "Here are two questions:\n\n1. How do I drain the pump of a WM-7?\n2. wm-7 drain filter",
    "numbered with brackets": "1) How do I drain the pump of a WM-7?\n2) wm-7 drain filter",
    "bullets": "Sure! Here they are:\n- How do I drain the pump of a WM-7?\n- wm-7 drain filter\n\nHope this helps!",
    "bold": "**Query 1:** How do I drain the pump of a WM-7?\n**Query 2:** wm-7 drain filter",
    "labelled": "Question: How do I drain the pump of a WM-7?\nKeywords: wm-7 drain filter",
    "quoted": '1. "How do I drain the pump of a WM-7?"\n2. "wm-7 drain filter"',
    "plain lines": "How do I drain the pump of a WM-7?\nwm-7 drain filter",
    "announced lines": "Two queries for this text:\nHow do I drain the pump of a WM-7?\nwm-7 drain filter",
    "reasoning": "<think>1. easy\n2. hard</think>\n1. How do I drain the pump of a WM-7?\n2. wm-7 drain filter",
    "reasoning without its opening": 'so [a, b]</think>["How do I drain the pump of a WM-7?", "wm-7 drain filter"]',
    "reasoning that holds json": '<think>{"queries": ["no"]}</think>'
    '{"queries": ["How do I drain the pump of a WM-7?", "wm-7 drain filter"]}',
    "questions and answers": "Q1: How do I drain the pump of a WM-7?\nA1: By tap.\nQ2: wm-7 drain filter\nA2: Below.",
    "numbers as keys": '{"1": "How do I drain the pump of a WM-7?", "2": "wm-7 drain filter"}',
    "styles as keys": '{"question": "How do I drain the pump of a WM-7?", "keywords": ["wm-7 drain filter"]}',
    "json of one line each": '{"text": "How do I drain the pump of a WM-7?"}\n{"text": "wm-7 drain filter"}',
    "json of one line each, cut off": '{"q": "How do I drain the pump of a WM-7?"}\n{"q": "wm-7 drain filter"}\n{"te',
    "many lists": 'One:\n["How do I drain the pump of a WM-7?"]\nTwo:\n["wm-7 drain filter"]',
    "behind a table": "| # | style |\n|---|---|\n\n1. How do I drain the pump of a WM-7?\n2. wm-7 drain filter",
    "a table": "| # | Style | Query |\n|---|:---|---|\n| 1 | question | How do I drain the pump of a WM-7? |\n"
    "| 2 | keywords | wm-7 drain filter |",
    "a table without edges": "Query | Style\n--- | ---\nHow do I drain the pump of a WM-7? | question\n"
    "wm-7 drain filter | keywords",
    "tags": "<query>How do I drain the pump of a WM-7?</query>\n<query style='keywords'>wm-7 drain filter</query>",
    "yaml": "queries:\n  - text: How do I drain the pump of a WM-7?\n    style: question\n  - text: wm-7 drain filter",
    "pairs of text and style": '[["How do I drain the pump of a WM-7?", "question"],\n'
    '["wm-7 drain filter", "keywords"]]',
    "numbers in circles": "①How do I drain the pump of a WM-7?\n②wm-7 drain filter",
    "Chinese numerals": "问题一：How do I drain the pump of a WM-7?\n问题二：wm-7 drain filter",
    "json, then json of the chunk": '{"queries": ["How do I drain the pump of a WM-7?", "wm-7 drain filter"]}\n'
    'Taken from {"title": "WM-7", "items": ["how to fill it", "how to clean it"]} and ["page 3", "page 4"].',
    "json of the chunk, then json": 'From {"items": ["how to fill it"]}:\n'
    '{"queries": ["How do I drain the pump of a WM-7?", "wm-7 drain filter"]}',
    "json of one line each, commas too many": '{"q": "How do I drain the pump of a WM-7?",}\n'
    '{"q": "wm-7 drain filter",}',
    "commas too many": '{"queries": [{"text": "How do I drain the pump of a WM-7?",},\n'
    '{"text": "wm-7 drain filter",},],}',
    "wide brackets": "（1）How do I drain the pump of a WM-7?\n（2）wm-7 drain filter",
    "Chinese labels": "以下是问题：\n问题1：How do I drain the pump of a WM-7?\n问题2：wm-7 drain filter",
    "Chinese numbers": "1、How do I drain the pump of a WM-7?\n2、wm-7 drain filter",
    "wide numbers": "1．How do I drain the pump of a WM-7?\n2．wm-7 drain filter",
    "blanks in front": " " * 8_000 + "How do I drain the pump of a WM-7?\n" + " " * 8_000 + "wm-7 drain filter",
    "python": "{'queries': ['How do I drain the pump of a WM-7?', 'wm-7 drain filter']}",
    "doubled": '["How do I drain the pump of a WM-7?", "wm-7 drain filter", "WM-7 drain filter"]',
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    assert [query.text for query in parse_queries(FORMS[form])] == TWO


@pytest.mark.parametrize(
    "answer",
    [
        "", " \n", "I am sorry.", "I'm sorry, but I cannot do that.", "Here are two questions:", "<think>1. never ends",
        '{"queries": []}', '{"queries": [{"text": "', "```json\n```", "{}", "[[[[", "---", "null",
        "| # | fact |\n|---|---|\n| 1 | A wheel is round. |",
    ],
)  # fmt: skip
def test_no_query(answer: str) -> None:
    assert parse_queries(answer) == []


def test_styles_are_read() -> None:
    answer = (
        '{"queries": [{"text": "a b?", "style": "Question"}, {"style": "keywords", "text": "c d"}, {"text": "e f"}]}'
    )
    assert [query.style for query in parse_queries(answer)] == ["question", "keywords", ""]
    assert [query.style for query in parse_queries("1. Claim: pumps leak\n2. [Keywords] - pump leak")] == [
        "claim",
        "keywords",
    ]


def test_chinese_needs_no_blank_after_a_number() -> None:
    found = parse_queries("这是两个问题：\n1.如何排空水泵？\n2）2.5寸硬盘怎么装？")
    assert [query.text for query in found] == ["如何排空水泵？", "2.5寸硬盘怎么装？"]
    assert [query.text for query in parse_queries("这是两个问题：\n如何排空？\n如何装？")] == ["如何排空？", "如何装？"]


def test_styles_of_a_table_are_read() -> None:
    answer = "| Search query | Style |\n|---|---|\n| **a b?** | Question |\n| c d | keywords |\n| e | f | g |"
    assert [(query.text, query.style) for query in parse_queries(answer)] == [("a b?", "question"), ("c d", "keywords")]


@pytest.mark.parametrize(
    "answer",
    [
        "Query 1 (question): a b?\nQuery 2 (keywords): c d",
        "- [question] a b?\n- [keywords] c d",
        "1. **[Question]** a b?\n2. **[Keywords]** c d",
    ],
)
def test_styles_beside_a_mark_are_read(answer: str) -> None:
    assert [(query.text, query.style) for query in parse_queries(answer)] == [("a b?", "question"), ("c d", "keywords")]


def test_a_comma_in_a_string_stays() -> None:
    found = parse_queries('["what does [a,] mean?", "b c",]')
    assert [query.text for query in found] == ["what does [a,] mean?", "b c"]


@pytest.mark.parametrize(
    "text",
    [
        "3-year lease terms",
        "question-answering systems",
        "10.5 mm drill bits",
        "2. Weltkrieg Ursachen",
        "C++ in 24 hours",
        "1、2年の保証",
        "2、车轮是什么",
    ],
)
def test_words_that_look_like_marks_stay(text: str) -> None:
    assert clean(text, position=1) == text


def test_half_a_surrogate_pair_in_the_json_of_an_answer_is_replaced() -> None:
    found = parse_queries(r'["how does \ud83d work?"]' + " ")
    assert [query.text for query in found] == ["how does \ufffd work?"]


def test_limit() -> None:
    assert len(parse_queries("1. one a\n2. two b\n3. three c", limit=2)) == 2


def test_cut_off_line_is_dropped() -> None:
    answer = "1. how do I open the lid?\n2. what is the warr"
    assert [query.text for query in parse_queries(answer, truncated=True)] == ["how do I open the lid?"]
    assert len(parse_queries(answer)) == 2


# Words that no rule takes for a mark, a label or chatter.
query_texts = st.lists(
    st.lists(
        st.sampled_from('pump drain filter water leaks lid (7) "soft" 40°C naïve 水 — a, b; {x} [y]'.split()),
        min_size=2,
        max_size=6,
    ).map(lambda words: "how " + " ".join(words) + "?"),
    min_size=1,
    max_size=5,
    unique_by=str.casefold,
)


@given(query_texts)
def test_json_comes_back(texts: list[str]) -> None:
    for answer in (
        json.dumps({"queries": [{"text": text, "style": "question"} for text in texts]}),
        json.dumps(texts, ensure_ascii=False, indent=2),
        "Sure:\n```json\n" + json.dumps({"questions": texts}) + "\n```",
    ):
        assert [query.text for query in parse_queries(answer)] == texts


@given(query_texts)
def test_lists_come_back(texts: list[str]) -> None:
    for answer in (
        "\n".join(f"{number}. {text}" for number, text in enumerate(texts, start=1)),
        "Here are the questions:\n\n" + "\n\n".join(f"- {text}" for text in texts),
    ):
        assert [query.text for query in parse_queries(answer)] == texts


@given(query_texts, st.floats(0, 1))
def test_cut_json_gives_only_whole_queries(texts: list[str], share: float) -> None:
    answer = json.dumps({"queries": [{"text": text, "style": "question"} for text in texts]})
    cut = answer[: int(share * len(answer))]
    found = [query.text for query in parse_queries(cut, truncated=True)]
    assert found == texts[: len(found)]
    whole = sum(json.dumps(text) in cut for text in texts)
    assert len(found) == whole


@settings(max_examples=300)
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from('{}[]":,\n`-*1.<>/think')), max_size=300))
def test_nothing_raises(answer: str) -> None:
    for query in parse_queries(answer):
        assert is_query(query.text)
        assert len(query.text) <= LONGEST_QUERY and "\n" not in query.text


@pytest.mark.parametrize(
    "answer",
    [
        "[" * 50_000,
        "[ " * 50_000,
        '{"a": 1}' * 20_000,
        '{"a":' * 20_000,
        '{"queries": [' + '"a b", ' * 20_000,
        "- " * 50_000,
    ],
)
def test_long_nonsense_ends(answer: str) -> None:
    parse_queries(answer)
