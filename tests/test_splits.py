from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_made import make_dataset, random_text
from tiny_dataset import with_chunk
from vectune.config import config_from
from vectune.dataset import Qrels, RetrievalDataset
from vectune.errors import ContaminationError, DatasetError, UsageError
from vectune.records import Chunk, Query
from vectune.splits import SplitOptions, check_contamination, split_by_document, summary, train_pool, with_dev


def documents(dataset: RetrievalDataset, qrels: Qrels) -> set[str]:
    return {dataset.corpus[chunk].document_id for judged in qrels.values() for chunk in judged}


@settings(max_examples=20, deadline=None)
@given(st.integers(8, 40), st.integers(1, 6), st.integers(0, 1000))
def test_splits_share_no_document_and_have_about_the_size_asked_for(count: int, chunks: int, seed: int) -> None:
    dataset = make_dataset(count, chunks, seed)
    found = split_by_document(dataset.corpus, dataset.qrels["train"], SplitOptions(seed=seed, near_duplicate=1))
    sides = [documents(dataset, qrels) for qrels in found.values()]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
    assert sum(map(len, found.values())) == count * chunks
    assert abs(len(found["test"]) - 0.2 * count * chunks) <= chunks
    assert not check_contamination(replace(dataset, qrels=found), options=SplitOptions(near_duplicate=1))


def test_the_division_depends_on_the_seed_and_not_on_the_order() -> None:
    dataset = make_dataset(30)
    qrels = dataset.qrels["train"]
    shuffled = dict(random.Random(1).sample(list(qrels.items()), len(qrels)))
    assert split_by_document(dataset.corpus, qrels) == split_by_document(dataset.corpus, shuffled)
    assert split_by_document(dataset.corpus, qrels) != split_by_document(dataset.corpus, qrels, SplitOptions(seed=1))


def test_documents_with_near_duplicates_stay_together() -> None:
    dataset = make_dataset(20, 2)
    text = random_text(random.Random(7), 60)
    for place in range(0, 20, 4):  # five documents share a chunk
        key = f"d{place}-c0"
        dataset = with_chunk(dataset, key, text=text)
    for seed in range(5):
        found = split_by_document(dataset.corpus, dataset.qrels["train"], SplitOptions(seed=seed))
        sides = [split for split, qrels in found.items() if documents(dataset, qrels) & {"d0", "d4", "d8", "d12"}]
        assert len(sides) == 1


def reports(seed: int) -> RetrievalDataset:
    """12 reports in 6 versions, each a light edit of the one before: only neighbours are alike."""
    rng = random.Random(seed)
    corpus: dict[str, Chunk] = {}
    dataset = RetrievalDataset(corpus, {}, {"train": {}})
    for report in range(12):
        texts = [[f"w{rng.randrange(9999)}" for _ in range(150)] for _ in range(3)]
        for version in range(6):
            for place, text in enumerate(texts):
                key = f"r{report}-v{version}-c{place}"
                corpus[key] = Chunk(" ".join(text), "", f"r{report}-v{version}", start=place, id=key)
                dataset.queries[f"q-{key}"] = Query(f"what says {key}", id=f"q-{key}")
                dataset.qrels["train"][f"q-{key}"] = {key: 1}
                for changed in rng.sample(range(150), 2):
                    text[changed] = f"w{rng.randrange(9999)}"
    return dataset


def test_versions_of_a_report_go_to_one_side_and_the_check_sees_it_so() -> None:
    for seed in range(3):
        dataset, options = reports(seed), SplitOptions(seed=seed)
        found = split_by_document(dataset.corpus, dataset.qrels["train"], options)
        assert sum(map(len, found.values())) == len(dataset.queries)
        assert check_contamination(replace(dataset, qrels=found), options=options) == []


def test_what_dividing_could_not_see_as_alike_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with boilerplate in hundreds of wordings: which of their pairs are found depends on all that is there."""
    monkeypatch.setattr("vectune.duplicates.KIN", 1)
    for seed in range(3):
        dataset, options = reports(seed), SplitOptions(seed=seed)
        found = split_by_document(dataset.corpus, dataset.qrels["train"], options)
        assert check_contamination(replace(dataset, qrels=found), options=options) == []


def test_boilerplate_in_every_document_costs_queries_not_the_split() -> None:
    dataset = make_dataset(20, 4)
    text = random_text(random.Random(7), 60)
    for place in range(20):
        dataset = with_chunk(dataset, f"d{place}-c0", text=text)
    found = split_by_document(dataset.corpus, dataset.qrels["train"])
    assert check_contamination(replace(dataset, qrels=found)) == []
    assert len(found["train"]) >= 0.4 * 80


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_few_documents_are_cut_into_sections_with_a_gap(count: int, seed: int) -> None:
    dataset = make_dataset(count, 120 // count, seed)
    found = split_by_document(dataset.corpus, dataset.qrels["train"], SplitOptions(seed=seed, gap=3))
    assert all(len(qrels) >= 8 for qrels in found.values())
    assert check_contamination(replace(dataset, qrels=found)) == []
    order = list(dataset.corpus)
    place = {key: position for position, key in enumerate(order)}
    for first in ("train", "dev"):
        for second in ("test",):
            for a in (next(iter(judged)) for judged in found[first].values()):
                for b in (next(iter(judged)) for judged in found[second].values()):
                    if dataset.corpus[a].document_id == dataset.corpus[b].document_id:
                        assert abs(place[a] - place[b]) > 3


def test_queries_with_positives_on_both_sides_of_a_section_are_dropped() -> None:
    dataset = make_dataset(1, 60)
    qrels = dict(dataset.qrels["train"])
    qrels["q-wide"] = {"d0-c0": 1, "d0-c59": 1}
    dataset.queries["q-wide"] = Query("wide", id="q-wide")
    found = split_by_document(dataset.corpus, qrels)
    assert not any("q-wide" in side for name, side in found.items() if name != "train")
    assert check_contamination(replace(dataset, qrels=found)) == []


def test_too_few_queries_are_a_clear_error() -> None:
    dataset = make_dataset(1, 1)
    with pytest.raises(DatasetError, match="too few"):
        split_by_document(dataset.corpus, dataset.qrels["train"])
    with pytest.raises(DatasetError, match="too small"):
        with_dev(dataset)
    alike = make_dataset(12)
    for key in alike.queries:
        alike.queries[key] = Query("What is it?", id=key)
    with pytest.raises(DatasetError, match=r"queries, 1 different\) is too small"):
        with_dev(alike)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dev": -0.1}, "split.dev: -0.1: expected from 0 to 1"),
        ({"test": 1.5}, "split.test: 1.5"),
        ({"dev": 0.5, "test": 0.5}, "nothing to train on"),
        ({"gap": -1}, "split.gap: -1: expected at least 0"),
        ({"near_duplicate": 0}, "split.near_duplicate: 0: expected more than 0"),
    ],
)
def test_options_without_sense_are_refused_before_anything_is_paid(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config_from({"split": wrong}, "a file")


def test_with_dev_cuts_by_document_and_keeps_a_dev_that_is_there() -> None:
    dataset = make_dataset(30)
    cut = with_dev(dataset)
    assert not documents(cut, cut.qrels["train"]) & documents(cut, cut.qrels["dev"])
    assert 15 <= len(cut.qrels["dev"]) <= 45
    assert with_dev(cut) is cut
    assert dataset.qrels.keys() == {"train"}
    assert len(with_dev(dataset, most=10).qrels["dev"]) == 10


def test_with_dev_cuts_a_document_with_more_queries_than_wanted() -> None:
    dataset = make_dataset(10, 30)
    dataset.qrels["train"].popitem()  # d9 is the smallest
    cut = with_dev(dataset, most=10)
    assert len(cut.qrels["dev"]) == 10
    assert documents(cut, cut.qrels["dev"]) == {"d9"}
    assert documents(cut, cut.qrels["train"]) == {f"d{place}" for place in range(9)}
    assert cut.qrels["dev"] == with_dev(dataset, most=10).qrels["dev"] != with_dev(dataset, 1, most=10).qrels["dev"]


def test_what_is_asked_in_dev_is_not_asked_in_train() -> None:
    dataset = make_dataset(30)
    (first, *_) = with_dev(dataset).qrels["dev"]
    other = next(iter(with_dev(dataset).qrels["train"]))
    dataset.queries[other] = Query(f" {dataset.queries[first].text.upper()}?", id=other)
    cut = with_dev(dataset)
    assert first in cut.qrels["dev"] and other not in cut.qrels["train"]
    assert check_contamination(cut) == []


def test_train_pool_leaves_out_held_documents_and_their_near_duplicates() -> None:
    dataset = make_dataset(12)
    qrels = dataset.qrels["train"]
    test = {"q-d0-c1": qrels.pop("q-d0-c1")}
    for place in range(5):
        qrels.pop(f"q-d0-c{place}", None)
        qrels.pop(f"q-d11-c{place}", None)  # d11 is without judgments
    dataset = with_chunk(dataset, "d11-c2", text=dataset.corpus["d0-c3"].text)
    dataset.qrels["test"] = test
    pool = train_pool(dataset)
    assert not any(chunk.startswith("d0-") for chunk in pool)
    assert "d11-c2" not in pool
    assert {"d11-c0", "d11-c1", "d5-c0"} <= pool
    assert {chunk for judged in qrels.values() for chunk in judged} <= pool


def test_train_pool_of_one_document_leaves_out_section_and_gap() -> None:
    dataset = make_dataset(1, 60)
    qrels = {key: judged for key, judged in dataset.qrels["train"].items() if int(key.rsplit("c", 1)[1]) < 30}
    test = {"q-d0-c40": {"d0-c40": 1}, "q-d0-c50": {"d0-c50": 1}}
    pool = train_pool(replace(dataset, qrels={"train": qrels, "test": test}))
    assert not {f"d0-c{place}" for place in range(37, 54)} & pool
    assert {"d0-c36", "d0-c54", "d0-c59", "d0-c0"} <= pool


def contaminated(kind: str) -> RetrievalDataset:
    dataset = make_dataset(12)
    test = {key: dataset.qrels["train"].pop(key) for key in [f"q-d0-c{place}" for place in range(5)]}
    dataset.qrels["test"] = test
    if kind == "document":
        dataset.qrels["train"]["q-d0-c4"] = test.pop("q-d0-c4")
    elif kind == "near-duplicate":
        dataset = with_chunk(dataset, "d3-c1", text=dataset.corpus["d0-c2"].text)
    elif kind == "query":
        dataset.queries["q-d3-c1"] = Query(dataset.queries["q-d0-c2"].text.upper() + " ?", id="q-d3-c1")
    return dataset


@pytest.mark.parametrize(
    ("kind", "named"), [("document", "'d0'"), ("near-duplicate", "'d0-c2'"), ("query", "'q-d0-c2'")]
)
def test_contamination_fails_with_the_list_or_is_returned(kind: str, named: str) -> None:
    with pytest.raises(ContaminationError, match="train and test both hold") as caught:
        check_contamination(contaminated(kind))
    assert named in str(caught.value)
    findings = check_contamination(contaminated(kind), allow=True)
    assert [finding.kind for finding in findings] == [kind]


def test_a_clean_dataset_has_no_findings() -> None:
    assert check_contamination(contaminated("none")) == []


def test_chunks_of_one_document_cut_at_random_are_contaminated() -> None:
    dataset = make_dataset(1, 40)
    qrels = dataset.qrels["train"]
    even = {key: judged for place, (key, judged) in enumerate(qrels.items()) if place % 4 == 0}
    odd = {key: judged for key, judged in qrels.items() if key not in even}
    with pytest.raises(ContaminationError, match="the document 'd0'"):
        check_contamination(replace(dataset, qrels={"train": odd, "test": even}))


def test_chunks_without_a_known_document_are_their_own() -> None:
    corpus = {f"c{place}": Chunk(f"text number {place} {'x' * place}", id=f"c{place}") for place in range(40)}
    qrels: Qrels = {f"q{place}": {f"c{place}": 1} for place in range(40)}
    found = split_by_document(corpus, qrels)
    assert {name: len(side) for name, side in found.items()} == {"train": 28, "dev": 4, "test": 8}


def test_a_chunk_between_two_that_are_not_alike_does_not_join_them() -> None:
    dataset = contaminated("none")
    words = random_text(random.Random(3), 100).split()
    steps = {"d0-c2": words, "d5-c0": [*words[:94], *"abcdef"], "d3-c1": [*words[:88], *"ghijklmnopqr"]}
    for key, text in steps.items():
        dataset = with_chunk(dataset, key, text=" ".join(text))
    del dataset.qrels["train"]["q-d5-c0"]
    assert check_contamination(dataset) == []


def test_the_summary_counts_by_kind() -> None:
    said = summary(check_contamination(contaminated("query"), allow=True))
    assert "1 × query" in said and "'q-d0-c2'" in said


def test_few_documents_are_counted_over_all_splits() -> None:
    """Train and test lie in the same five documents, far enough apart for sections; but there are many documents."""
    dataset = make_dataset(24, 12)
    qrels: dict[str, Qrels] = {"train": {}, "dev": {}, "test": {}}
    for query, judged in dataset.qrels["train"].items():
        document, place = next(iter(judged)).split("-c")
        if int(document[1:]) >= 5:
            qrels["dev"][query] = judged
        elif int(place) in (0, 11):
            qrels["train" if place == "0" else "test"][query] = judged
    options = SplitOptions(near_duplicate=1)
    with pytest.raises(ContaminationError, match="train and test both hold positives in the document 'd0'"):
        check_contamination(replace(dataset, qrels=qrels), options=options)
    del qrels["dev"]
    assert check_contamination(replace(dataset, qrels=qrels), options=options) == []
