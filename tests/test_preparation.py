from __future__ import annotations

import json
from pathlib import Path

import pytest

import vectune
from vectune.cli.app import main
from vectune.config import Config, override
from vectune.corpus import write_corpus
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError, UsageError
from vectune.pipeline import estimate, go, preparing
from vectune.preparation import draw_chunks, write_dataset, write_queries
from vectune.progress import SILENT
from vectune.queries.filters import FilterOptions
from vectune.records import Chunk
from vectune.runs import RunFolder
from vectune.testing import OpenAIServer

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
    assert "of 13 queries of the log, 1 got no label" in capsys.readouterr().out
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


def test_only_the_chunks_of_a_dataset_are_taken_and_only_one_dataset(
    documents: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    first = vectune.prepare([documents], tmp_path / "first", config(tiny_bert))
    options = config(tiny_bert, ignore_labels=True)
    again = vectune.prepare([tmp_path / "first"], tmp_path / "again", options)
    assert again.corpus == first.corpus
    asking = override(options, {"llm": "gpt-4o-mini"})
    assert estimate([tmp_path / "first"], asking).chunks == len(first.corpus)
    with pytest.raises(UsageError, match="one dataset folder, and 2 paths"):
        vectune.prepare([tmp_path / "first", tmp_path / "again"], tmp_path / "third", options)


def test_a_changed_prompt_file_is_written_from_anew(
    documents: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECTUNE_CACHE", str(tmp_path / "cache"))
    prompt = tmp_path / "own.md"
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        given = {"llm": "m", "filters.consistency": False, "filters.duplicates": False, "filters.copied": 2.0}
        options = config(tiny_bert, **given, **{"llm_queries.prompt": str(prompt)})
        counts = []
        for words in ("one", "one", "two"):
            prompt.write_text(f"Write {{count}} queries, {words}:\n{{queries}}\n{{text}}\n")
            folder = RunFolder(tmp_path / "work")
            go(folder, preparing(folder, [documents], tmp_path / "out", options, SILENT), SILENT)
            counts.append(server.count())
        assert counts[0] == counts[1] == counts[2] / 2 > 0


def test_queries_are_the_same_however_an_llm_answers(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECTUNE_CACHE", str(tmp_path / "cache"))
    corpus = [Chunk(f"The {topic} needs oil in spring, says the manual.", document_id=topic) for topic in TOPICS]
    write_corpus(tmp_path, corpus)
    off = FilterOptions(False, False, copied=2, duplicates=False, language="any", consistency=False)
    files = [tmp_path / "asked.jsonl", tmp_path / "resumed.jsonl"]
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        for file in files:
            write_queries(tmp_path, file, Config(str(tiny_bert), llm="m", filters=off), SILENT)
        assert server.count() == len(corpus)
    asked, resumed = (file.read_text(encoding="utf-8") for file in files)
    assert asked == resumed
    found = [json.loads(line)["chunks"][0] for line in asked.split("\n")[:-1]]
    assert list(dict.fromkeys(found)) == [chunk.id for chunk in corpus]


def test_a_query_of_several_chunks_keeps_them_all_and_its_odd_line_breaks(tiny_bert: Path, tmp_path: Path) -> None:
    corpus = [Chunk(f"text {number} of the {topic}", document_id=topic) for topic in TOPICS for number in range(2)]
    write_corpus(tmp_path, corpus)
    texts = [(f"what\u2028says\x85{chunk.text}", chunk.id) for chunk in corpus]
    texts += [("the same for two", chunk.id) for chunk in corpus[:2]]
    lines = [{"text": text, "style": "", "writer": "", "chunks": [chunk]} for text, chunk in texts]
    content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "queries.jsonl").write_text(content, encoding="utf-8")
    write_dataset(tmp_path, tmp_path / "queries.jsonl", tmp_path / "out", config(tiny_bert), {})
    dataset = RetrievalDataset.read(tmp_path / "out")
    judged = {dataset.queries[key].text: found for qrels in dataset.qrels.values() for key, found in qrels.items()}
    assert judged["the same for two"] == {corpus[0].id: 1, corpus[1].id: 1}
    assert judged[texts[2][0]] == {corpus[2].id: 1}


def test_an_empty_dataset_says_what_dropped_its_queries(
    documents: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VECTUNE_CACHE", str(tmp_path / "cache"))
    with OpenAIServer(chat=lambda body: "1. What does it say?") as server:
        options = config(tiny_bert, llm="m", **{"llm_queries.base_url": server.base_url})
        with pytest.raises(DatasetError, match=r"the filters dropped all 23 queries \(.*subject"):
            vectune.prepare([documents], tmp_path / "out", options)


@pytest.mark.parametrize("given", [{"llm": "m", "log": "log.txt"}, {"most_chunks": -1}])
def test_options_that_contradict_each_other(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"llm or log|most_chunks: -1: expected at least 0"):
        override(Config(), given)


@pytest.mark.parametrize("option", ["--budget=1", "--batch", "--examples=log.txt", "--prices=p.toml"])
def test_what_only_an_llm_heeds_needs_one(
    documents: Path, tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["vectune", "prepare", str(documents), "--out", str(tmp_path / "out"), option])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert f"{option.partition('=')[0]} is for queries that an LLM writes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
