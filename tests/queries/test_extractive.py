from __future__ import annotations

import random
from collections import Counter

import pytest

from datasets_made import make_dataset
from vectune.protocols import QueryWriter
from vectune.queries.extractive import ExtractiveOptions, ExtractiveWriter
from vectune.records import Chunk, WrittenQuery

MANUAL = Chunk(
    "Recordings are saved on the external drive. You can connect the soundbar to the television with a cable. "
    "The menu was introduced in March 2015. The remote has 4 programmable buttons on the left side. "
    "The screen flickers because the cable is loose at the connector.",
    title="Television manual",
    headings=("Television manual", "Connecting a soundbar"),
)


def write(chunks: list[Chunk], **options: float | int | str | None) -> list[WrittenQuery]:
    return list(ExtractiveWriter(ExtractiveOptions(**options)).write(chunks))  # type: ignore[arg-type]


def test_it_is_a_query_writer_with_a_fingerprint_of_its_options() -> None:
    writer = ExtractiveWriter()
    assert isinstance(writer, QueryWriter)
    assert writer.name == "extractive"
    assert writer.fingerprint == ExtractiveWriter(ExtractiveOptions()).fingerprint
    assert writer.fingerprint != ExtractiveWriter(ExtractiveOptions(seed=1)).fingerprint


def test_the_same_seed_writes_the_same_and_another_something_else() -> None:
    chunks = list(make_dataset().corpus.values())
    assert write(chunks) == write(chunks)
    assert write(chunks) != write(chunks, seed=1)


def test_a_chunks_queries_do_not_depend_on_the_order_of_the_corpus() -> None:
    chunks = list(make_dataset().corpus.values())
    shuffled = random.Random(0).sample(chunks, len(chunks))
    assert sorted(query.query.text for query in write(chunks)) == sorted(q.query.text for q in write(shuffled))


def test_every_chunk_gets_its_queries_and_no_text_twice() -> None:
    chunks = list(make_dataset().corpus.values())
    found = write(chunks, per_chunk=4)
    counts = Counter(query.chunk_ids for query in found)
    assert set(counts) == {(chunk.id,) for chunk in chunks}
    assert max(counts.values()) == 4
    texts = [(query.chunk_ids, query.query.text.casefold()) for query in found]
    assert len(set(texts)) == len(texts)
    assert {query.query.writer for query in found} == {"extractive"}


@pytest.mark.parametrize("style", ["keywords", "question", "sentence", "title"])
def test_the_mix_is_the_users(style: str) -> None:
    mix = {name: float(name == style) for name in ("keywords", "question", "sentence", "title")}
    found = write([MANUAL], per_chunk=3, **mix)
    assert {query.query.style for query in found} == {style}


def test_no_style_writes_nothing() -> None:
    assert write([MANUAL], keywords=0, question=0, sentence=0, title=0) == []


def test_questions_leave_their_answer_out() -> None:
    asked = {
        query.query.text
        for seed in range(60)
        for query in write([MANUAL], question=1, keywords=0, sentence=0, title=0, per_chunk=2, seed=seed)
    }
    assert any(question.startswith("when the menu was introduced") for question in asked)
    assert any(question.startswith("how many") and "buttons" in question for question in asked)
    assert any(question.startswith("why the screen flickers") for question in asked)
    assert any("connect the soundbar to the television" in question for question in asked)
    assert not any("2015" in question for question in asked if question.startswith("when"))
    assert not any("loose" in question for question in asked if question.startswith("why the"))


def test_no_query_is_a_copy_of_its_chunk_or_a_long_piece_of_it() -> None:
    chunks = list(make_dataset().corpus.values())
    for query in write(chunks, title=0):
        assert len(query.query.text.split()) <= 24
        assert query.query.text != next(chunk.text for chunk in chunks if chunk.id == query.chunk_ids[0])


def test_keywords_are_rare_words_of_the_chunk() -> None:
    common = [Chunk(f"common words everywhere again number{i} special{i} rare{i}") for i in range(60)]
    found = write(common, keywords=1, question=0, sentence=0, title=0)
    words = Counter(word.rstrip("0123456789") for query in found for word in query.query.text.split())
    assert words["special"] + words["rare"] + words["number"] > words["common"] + words["everywhere"]


def test_a_chunk_that_stays_gets_the_same_crops_when_others_come() -> None:
    def crops(chunks: list[Chunk]) -> set[str]:
        found = write(chunks, keywords=0, question=0, title=0)
        return {query.query.text for query in found if query.chunk_ids == (MANUAL.id,)}

    assert crops([MANUAL]) == crops([*make_dataset().corpus.values(), MANUAL])


@pytest.mark.parametrize(
    "text",
    ["", "  \n", "12 34 56", "| 1 | 2 |\n| 3 | 4 |", "![](x.png)", "a", "?!.", "\ud800 broken"],
)
def test_chunks_without_a_sentence_do_no_harm(text: str) -> None:
    for query in write([Chunk(text, id="c"), MANUAL]):
        assert query.query.text.strip()


def test_mark_up_and_links_are_no_query_words() -> None:
    chunk = Chunk("## Setting up\n\n- See the [installation guide](https://example.org/guide) for **all** the details.")
    text = " ".join(query.query.text for seed in range(20) for query in write([chunk], seed=seed))
    assert "http" not in text and "#" not in text and "*" not in text and "](" not in text


def test_other_languages() -> None:
    german = Chunk("Die Fernbedienung wird mit dem Fernseher über Bluetooth verbunden. Danach erscheint ein Menü.")
    found = write([german], language="de", per_chunk=4)
    assert found and "question" not in {query.query.style for query in found}
    japanese = Chunk("東京都庁は新宿にあります。展望室からは富士山が見えます。")
    assert write([japanese], language=None, per_chunk=3)
