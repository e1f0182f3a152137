from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from datasets_made import make_dataset
from tiny_dataset import with_chunk
from vectune import bulk
from vectune.dataset import RetrievalDataset
from vectune.splits import check_contamination, train_pool, with_dev


def stored(dataset: RetrievalDataset, folder: Path) -> RetrievalDataset:
    dataset.write(folder)
    return RetrievalDataset._stored(folder)


def test_dev_costs_train_no_more_documents_than_it_takes(tmp_path: Path) -> None:
    dataset = stored(make_dataset(40, 20), tmp_path / "data")
    cut = with_dev(dataset, most=50)
    assert bulk.is_bulk(cut)
    assert len(cut.qrels["dev"]) == 50
    assert len(cut.qrels["train"]) == 800 - 60
    assert len(cut.documents_of("dev")) == 3
    assert not cut.documents_of("dev") & cut.documents_of("train")
    assert check_contamination(cut) == []


def test_dev_queries_are_drawn_from_all_of_its_documents(tmp_path: Path) -> None:
    dataset = stored(make_dataset(10, 60), tmp_path / "data")
    found = [with_dev(dataset, seed, most=20).qrels["dev"] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert max(int(query.rpartition("c")[2]) for query in found[0]) > 20  # not the first ones of the document


def test_dev_takes_no_more_than_a_fifth_of_the_queries(tmp_path: Path) -> None:
    dataset = make_dataset(600, 2)
    for query, judged in dataset.qrels["train"].items():  # with a positive in another document, too: few are whole
        document = int(query[3:].partition("-")[0])
        judged[f"d{document ^ 1}-c0"] = 1
    cut = with_dev(stored(dataset, tmp_path / "data"))
    assert 1 <= len(cut.qrels["dev"]) < 40
    assert len(cut.qrels["train"]) >= 0.8 * 1200


def test_chunks_that_differ_in_their_title_alone_are_repeats(tmp_path: Path) -> None:
    dataset = make_dataset(12)
    train = dataset.qrels["train"]
    qrels = {"train": train, "test": {f"q-d0-c{place}": train.pop(f"q-d0-c{place}") for place in range(5)}}
    del train["q-d7-c1"]
    dataset = replace(dataset, qrels=qrels)
    for key in ("d3-c1", "d7-c1"):
        dataset = with_chunk(dataset, key, text=dataset.corpus["d0-c2"].text)
    on_disk = stored(dataset, tmp_path / "data")
    ids = list(dataset.corpus)
    assert {ids[row] for row in bulk.pool(on_disk).nonzero()[0]} == train_pool(dataset)
    for data in (dataset, on_disk):
        (finding,) = check_contamination(data, allow=True)
        assert finding.shared == ("d3-c1", "d0-c2")


def test_chunks_of_titles_alone_are_told_apart_by_them(tmp_path: Path) -> None:
    dataset = make_dataset(12)
    for number, key in enumerate(("d0-c2", "d3-c1")):
        dataset = with_chunk(dataset, key, text="", title=f"Title alone {number}")
    train = dataset.qrels["train"]
    test = {f"q-d0-c{place}": train.pop(f"q-d0-c{place}") for place in range(5)}
    dataset = replace(dataset, qrels={"train": train, "test": test})
    assert check_contamination(stored(dataset, tmp_path / "data")) == []
