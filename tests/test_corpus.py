from __future__ import annotations

import json
from pathlib import Path

import pytest

from vectune.corpus import StoredCorpus, read_corpus, write_corpus
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError
from vectune.records import Chunk, Query

CHUNKS = [
    Chunk(
        f"text {number} — 汉字\nsecond line",
        f"title {number % 3}",
        f"d{number % 4}",
        "a.md",
        number,
        number + 9,
        2,
        ("x",),
    )
    for number in range(40)
]


def test_a_stored_corpus_is_what_was_written(tmp_path: Path) -> None:
    assert write_corpus(tmp_path, CHUNKS) == 40
    stored = read_corpus(tmp_path, in_memory=0)
    assert isinstance(stored, StoredCorpus)
    assert dict(stored) == read_corpus(tmp_path) == {chunk.id: chunk for chunk in CHUNKS}
    assert list(stored.values()) == CHUNKS
    assert CHUNKS[0].id in stored and "unknown" not in stored
    with pytest.raises(KeyError):
        stored["unknown"]


def test_places_in_another_order_missing_or_in_a_table(tmp_path: Path) -> None:
    write_corpus(tmp_path, CHUNKS)
    places = (tmp_path / "documents.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "documents.jsonl").write_text("\n" + "".join(places[:0:-1]), encoding="utf-8")
    stored = read_corpus(tmp_path, in_memory=0)
    assert dict(stored) == read_corpus(tmp_path)
    assert (stored[CHUNKS[0].id].document_id, stored[CHUNKS[7].id].document_id) == (CHUNKS[0].id, "d3")
    (tmp_path / "documents.jsonl").unlink()
    (tmp_path / "docs.tsv").write_text(f"passage\tdocument\n{CHUNKS[5].id}\tmanual\n", encoding="utf-8")
    stored = read_corpus(tmp_path, in_memory=0)
    assert dict(stored) == read_corpus(tmp_path)
    assert stored[CHUNKS[5].id].document_id == "manual"
    (tmp_path / "docs.tsv").write_text(f"{CHUNKS[4].id}\tmanual\n", encoding="utf-8")
    stored = read_corpus(tmp_path, in_memory=0)
    assert dict(stored) == read_corpus(tmp_path)
    assert stored[CHUNKS[4].id].document_id == "manual", "there is not always a header"


@pytest.mark.parametrize("line", ["{", "[]", '{"_id": "a"}', '{"text": "b"}'])
def test_broken_lines_are_named_however_a_corpus_is_read(tmp_path: Path, line: str) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "x", "text": "y"}) + f"\n\n{line}\n", encoding="utf-8")
    for in_memory in (0, 1000):
        with pytest.raises(DatasetError) as error:
            read_corpus(tmp_path, in_memory)
        assert error.value.line == 3
    (tmp_path / "corpus.jsonl").write_bytes(b'\xef\xbb\xbf{"_id": "x", "text": "y"}\n{"_id": "z", "text": "\xff"}\n')
    with pytest.raises(DatasetError, match=r"UTF-8.*at byte 51"):
        read_corpus(tmp_path)


def test_a_dataset_over_a_stored_corpus_is_written_over_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = {"train": {"q": {CHUNKS[3].id: 1}}}
    RetrievalDataset({chunk.id: chunk for chunk in CHUNKS}, {"q": Query("what", id="q")}, judged).write(tmp_path / "d")
    monkeypatch.setattr("vectune.corpus.IN_MEMORY", 0)
    stored = RetrievalDataset(StoredCorpus(tmp_path / "d"), {"q": Query("who", id="q")}, judged)
    stored.write(tmp_path / "d")
    again = RetrievalDataset.read(tmp_path / "d")
    assert list(again.corpus.values()) == CHUNKS
    assert again.queries["q"].text == "who"
    assert again.counts()["documents"] == 4
