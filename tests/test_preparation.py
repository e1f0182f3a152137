from __future__ import annotations

from pathlib import Path

import pytest

import vectune
from vectune.cli.app import main
from vectune.config import Config, override
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError
from vectune.preparation import draw_chunks
from vectune.records import Chunk

TOPICS = "compiler bicycle orchard harbour library volcano kitchen telescope railway glacier saddle anchor".split()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for topic in TOPICS:
        text = (
            f"# The {topic}\n\nEvery {topic} needs oil in spring. A {topic} gauge tells how much {topic} oil is left."
        )
        (folder / f"{topic}.md").write_text(text, encoding="utf-8")
    return folder


def config(tiny_bert: Path, **values: object) -> Config:
    return override(Config(model=str(tiny_bert)), values)


def test_a_query_log_becomes_the_queries(
    documents: Path,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "log.txt"
    log.write_text(
        "\n".join([f"how much oil does my {topic} need" for topic in TOPICS] + ["unheard of"]), encoding="utf-8"
    )
    options = tmp_path / "options.toml"
    options.write_text("[teacher]\nagree = 100\n", encoding="utf-8")
    arguments = ["vectune", "prepare", str(documents), "--model", str(tiny_bert), "--config", str(options)]
    monkeypatch.setattr("sys.argv", [*arguments, "--log", str(log), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    dataset = RetrievalDataset.read(tmp_path / "out")
    assert dataset.generated
    assert dataset.info["log"] == {"queries": 13, "labelled": 12}
    for split in ("train", "dev", "test"):
        for query, judged in dataset.qrels[split].items():
            (chunk,) = judged
            topic = dataset.queries[query].text.split()[-2]
            assert dataset.queries[query].style == "log"
            assert topic in dataset.corpus[chunk].text


def test_a_log_that_is_missing_is_named(documents: Path, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.txt: no such file"):
        vectune.prepare([documents], tmp_path / "out", config(tiny_bert, log=str(tmp_path / "none.txt")))


def test_queries_are_written_for_a_draw_of_the_chunks(documents: Path, tiny_bert: Path, tmp_path: Path) -> None:
    dataset = vectune.prepare([documents], tmp_path / "out", config(tiny_bert, most_chunks=9))
    judged = {chunk for split in dataset.qrels.values() for chunks in split.values() for chunk in chunks}
    assert 3 <= len(judged) <= 15 < 30 < len(dataset.corpus)  # nine, and a few that answer as well


def test_the_draw_is_stable_and_in_order() -> None:
    corpus = {chunk.id: chunk for chunk in (Chunk(f"text {number}") for number in range(100))}
    drawn = draw_chunks(corpus, 10, seed=1)
    assert drawn == draw_chunks(corpus, 10, seed=1) != draw_chunks(corpus, 10, seed=2)
    assert [chunk for chunk in corpus.values() if chunk in drawn] == drawn
    assert draw_chunks(corpus, 0, seed=1) == draw_chunks(corpus, 100, seed=1) == list(corpus.values())


@pytest.mark.parametrize(("threshold", "kept"), [(0.9, 12), (1.01, 15)])
def test_the_duplicates_threshold_is_the_users(
    documents: Path, tiny_bert: Path, tmp_path: Path, threshold: float, kept: int
) -> None:
    for number in range(3):
        (documents / f"copy{number}.md").write_bytes((documents / "library.md").read_bytes())
    options = config(tiny_bert, **{"duplicates.documents": threshold, "duplicates.chunks": threshold})
    dataset = vectune.prepare([documents], tmp_path / "out", override(options, {"allow_contamination": True}))
    assert dataset.counts()["documents"] == kept
