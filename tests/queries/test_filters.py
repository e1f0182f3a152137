"""Filters: literal queries beside the verdict each must get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vectune.queries.filters import (
    FilterOptions,
    drop_copies,
    drop_inconsistent,
    drop_wrong_language,
    filter_queries,
    merge_duplicates,
)
from vectune.queries.language import detect
from vectune.queries.residue import has_residue
from vectune.queries.subject import names_subject
from vectune.records import Chunk, Query, WrittenQuery
from vectune.testing import hashed_embedding

if TYPE_CHECKING:
    from vectune.protocols import Vectors

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


class Hashed:
    """Vectors of hashed words: alike where words are shared."""

    name, dim, fingerprint = "hashed", 256, "hashed-256"

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return np.array([hashed_embedding(text, self.dim) for text in texts], np.float32)

    embed_documents = embed_queries


def asked(text: str, *chunks: str) -> WrittenQuery:
    return WrittenQuery(Query(text), chunks or ("c0",))


def corpus(*texts: str) -> dict[str, Chunk]:
    return {f"c{n}": Chunk(text, id=f"c{n}") for n, text in enumerate(texts)}


@pytest.mark.parametrize(
    "text",
    [
        "According to the context information, what is a Change in Control?",
        "Based on the provided text, where is Uber listed?",
        "What risks are mentioned in the document?",
        "What does the passage say about pumps?",
        "Which filters does this passage describe?",
        "As described in the given excerpt, how is the pump opened?",
        "In this passage, who opened the door?",
        "What is the purpose of Section 9.09 in the document?",
        "How is executive compensation addressed in the document?",
        "Laut dem Text, wie wird die Pumpe geöffnet?",
        "Selon le document, comment ouvrir la pompe ?",
        "Según el texto, ¿cómo se abre la bomba?",
    ],
)
def test_residue(text: str) -> None:
    assert has_residue(text)


@pytest.mark.parametrize(
    "text",
    [
        "According to Oxfam, how rich are the richest?",
        "What is a reasonable use of clickers in the context of teaching?",
        "Is required reading of the text effective, and how can it be assessed?",
        "Consider the Mutual NDA of The Knights; Does the document allow sharing with third parties?",
        "how to send a text message",
        "information about refunds",
        "How do I insert a table in a document?",
        "context switch cost linux",
    ],
)
def test_no_residue(text: str) -> None:
    assert not has_residue(text)


@pytest.mark.parametrize(
    "text",
    [
        "What does it say?", "When was the study conducted?", "What is the main purpose of this document?",
        "How does it drain?", "Who are the authors?", "What are the key findings?", "What happened in 1901?", "???",
        "Was ist das?",
    ],
)  # fmt: skip
def test_no_subject(text: str) -> None:
    assert not names_subject(text)


@pytest.mark.parametrize(
    "text",
    [
        "How does it drain in a WM-7 washing machine?", "Uber listing", "403b", "what is nDCG", "Wer öffnet die Pumpe?",
        "When was the Oxford vaccine study conducted?", "水泵", "When did Luther write?", "WM7 E18",
    ],
)  # fmt: skip
def test_subject(text: str) -> None:
    assert names_subject(text)


def test_copies() -> None:
    chunks = corpus("The drain pump of the machine sits behind the small flap at the lower right of the front panel.")
    copied = asked("the drain pump of the machine sits behind the small flap")
    own = asked("where is the flap in front of the drain pump of my machine")
    short = asked("the drain pump of the machine")
    filtered = drop_copies([copied, own, short], chunks, 0.7)
    assert filtered.kept == [own, short]
    assert [one.reason for one in filtered.dropped] == ["copied from the chunk"]


def test_languages() -> None:
    chunks = corpus(
        "Die Pumpe ist hinter der Klappe und wird mit einem Schlüssel geöffnet, wenn das Wasser nicht abläuft.",
        "洗濯機のポンプは前面パネルの下部にあり、フィルターの後ろに取り付けられています。",
    )
    english = asked("how do I open the pump of the machine when it is full?", "c0")
    german = asked("wie kann ich die Pumpe öffnen, wenn das Wasser nicht abläuft?", "c0")
    unclear = asked("Pumpe WM-7", "c0")
    latin = asked("washing machine pump location", "c1")
    filtered = drop_wrong_language([english, german, unclear, latin], chunks, "document")
    assert filtered.kept == [german, unclear]
    assert drop_wrong_language([english, german], chunks, "en").kept == [english]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("How can I clean the pump of the washing machine if the water does not drain?", "en"),
        ("Comment nettoyer la pompe du lave-linge si l'eau ne s'écoule pas dans le bac ?", "fr"),
        ("Como limpar a bomba da máquina de lavar quando a água não sai do tambor?", "pt"),
        ("Hoe kan ik de pomp van de wasmachine schoonmaken als het water niet wegloopt?", "nl"),
        ("Как очистить насос стиральной машины, если вода не уходит и не сливается?", "ru"),
        ("如何清洁洗衣机的水泵？", "zh"),
        ("세탁기 펌프를 어떻게 청소합니까?", "ko"),
        ("WM-7 E18", ""),
        ("", ""),
    ],
)
def test_detect(text: str, code: str) -> None:
    assert detect(text) == code


def test_queries_that_differ_in_a_vowel_sign_are_two() -> None:
    assert len(merge_duplicates([asked("काम की", "a"), asked("काम के", "b")], further=3).kept) == 2


def test_duplicates_become_one_query_with_all_chunks() -> None:
    written = [
        asked("Pump  location?", "a"),
        asked("pump location", "b"),
        asked("lid", "a"),
        asked("pump location", "a"),
    ]
    filtered = merge_duplicates(written, further=3)
    assert [(one.query.text, one.chunk_ids) for one in filtered.kept] == [
        ("Pump  location?", ("a", "b")),
        ("lid", ("a",)),
    ]
    assert (len(filtered.dropped), filtered.widened) == (2, 1)
    crowd = [asked("what is covered", f"c{n}") for n in range(6)]
    assert merge_duplicates(crowd, further=3).kept == []


TEXTS = [f"The {part} of the machine is cleaned with {tool} every {n} weeks" for n, (part, tool) in enumerate(
    [("drum", "vinegar"), ("hose", "brine"), ("lid", "soap"), ("belt", "alcohol"), ("valve", "steam"), ("fuse", "air")]
)]  # fmt: skip


@pytest.mark.parametrize("embedder", [None, Hashed()])
def test_consistency(embedder: Hashed | None) -> None:
    chunks = corpus(*TEXTS)
    right, wrong = asked("cleaning the hose with brine", "c1"), asked("alcohol belt", "c0")
    filtered = drop_inconsistent([right, wrong], chunks, FilterOptions(first=1), embedder)
    assert filtered.kept == [right]
    assert [one.reason for one in filtered.dropped] == ["does not find its chunk"]


@pytest.mark.parametrize("embedder", [None, Hashed()])
def test_chunks_that_say_the_same_become_positives(embedder: Hashed | None) -> None:
    query = asked("cleaning the hose with brine", "c1")
    twice = corpus(*TEXTS, TEXTS[1] + " again")
    filtered = drop_inconsistent([query], twice, FilterOptions(), embedder)
    assert [one.chunk_ids for one in filtered.kept] == [("c1", "c6")]
    assert filtered.widened == 1
    often = corpus(*TEXTS, *[TEXTS[1]] * 5)
    assert [one.reason for one in drop_inconsistent([query], often, FilterOptions(), embedder).dropped] == [
        "answered by many chunks"
    ]


def test_report_counts_everything() -> None:
    chunks = corpus(*TEXTS)
    written = [
        asked("According to the context, what cleans the hose?", "c1"),
        asked("What does it say?", "c1"),
        asked("hose brine", "c1"),
        asked("Hose brine", "c1"),
        asked("drum vinegar", "c0"),
    ]
    kept, report = filter_queries(written, chunks)
    assert [one.query.text for one in kept] == ["hose brine", "drum vinegar"]
    assert (report.written, report.kept, sum(report.dropped.values())) == (5, 2, 3)
    assert report.examples["names no subject"] == ["What does it say?"]
    assert json.loads(json.dumps(report.to_json()))["dropped"]["residue of the prompt"] == 1
    everything = FilterOptions(False, False, 2.0, False, 3, "any", False)
    assert filter_queries(written, chunks, everything)[0] == written


def test_nothing_in_nothing_out() -> None:
    kept, report = filter_queries([], corpus(*TEXTS))
    assert kept == [] and report.written == 0


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs the shared data")
def test_real_questions_of_people_stay() -> None:
    """Sets whose questions people asked lose nothing to residue and language; LlamaIndex's loses its known share."""

    def texts(name: str) -> list[str]:
        lines = (DATA / name / "queries.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["text"] for line in lines]

    for name in ("emanual", "stackexchange", "covid_qa", "legalbenchrag"):
        assert not [text for text in texts(name) if has_residue(text) or detect(text) not in ("", "en")]
    assert 220 <= sum(map(has_residue, texts("lyft_uber"))) <= 300
