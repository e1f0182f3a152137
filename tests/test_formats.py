from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets_made import make_dataset
from vectune import formats
from vectune.config import Config
from vectune.corpus import read_corpus
from vectune.dataset import RetrievalDataset
from vectune.errors import DatasetError, MissingExtraError, UsageError
from vectune.formats import export_dataset, open_dataset, read_queries
from vectune.pipeline import write_run_file
from vectune.records import Chunk


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def pairs(dataset: RetrievalDataset) -> set[tuple[str, str, str, int]]:
    return {
        (split, dataset.queries[query].text, dataset.corpus[chunk].text, grade)
        for split, qrels in dataset.qrels.items()
        for query, judged in qrels.items()
        for chunk, grade in judged.items()
    }


@pytest.mark.parametrize(
    "header", ["query,positive", "Question,Context", "anchor,passage", "search query,text", "q,answer"]
)
def test_columns_are_guessed(tmp_path: Path, header: str) -> None:
    dataset = open_dataset(write(tmp_path / "a.csv", f'{header}\nwho,"one, two"\nwhat,three\n'))
    assert pairs(dataset) == {("train", "who", "one, two", 1), ("train", "what", "three", 1)}


def test_separators_and_quoted_line_breaks(tmp_path: Path) -> None:
    semicolons = open_dataset(write(tmp_path / "a.csv", '\ufeffquery;text\na;"x\ny"\n'))
    assert pairs(semicolons) == {("train", "a", "x\ny", 1)}
    tabs = open_dataset(write(tmp_path / "a.tsv", "query\ttext\na\tb, c; d\n"))
    assert pairs(tabs) == {("train", "a", "b, c; d", 1)}


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"columns 'a', 'b', and none looks like the queries") as caught:
        open_dataset(write(tmp_path / "a.csv", "a,b\n1,2\n"))
    assert "query" in caught.value.hint


def test_triplets_bring_negatives_into_the_corpus(tmp_path: Path) -> None:
    lines = [
        {"anchor": "a", "positive": "yes", "negative_1": "no", "negative_2": "never"},
        {"anchor": "b", "positive": "sure", "negative_1": "no", "negative_2": ""},
    ]
    dataset = open_dataset(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines))))
    assert {chunk.text for chunk in dataset.corpus.values()} == {"yes", "no", "never", "sure"}
    assert pairs(dataset) == {("train", "a", "yes", 1), ("train", "b", "sure", 1)}


def test_lists_and_records_of_texts(tmp_path: Path) -> None:
    line = {
        "query": "a",
        "positive_passages": [{"docid": "7", "title": "T", "text": "yes"}, {"docid": "8", "text": "also"}],
        "negative_passages": [{"docid": "9", "text": "no"}],
    }
    dataset = open_dataset(write(tmp_path / "a.jsonl", json.dumps(line) + "\n"))
    assert set(dataset.corpus) == {"7", "8", "9"}
    assert dataset.corpus["7"].content == "T yes"
    assert list(dataset.qrels["train"].values()) == [{"7": 1, "8": 1}]


def test_judged_lists_with_splits_titles_and_sources(tmp_path: Path) -> None:
    text = (
        "query_id,query,doc_id,text,title,score,split,file\n1,a,x,one,T,2,train,f.pdf\n1,a,y,two,T,0,train,f.pdf\n"
        "2,b,y,two,T,1,validation,f.pdf\n3,c,z,three,T,1,test,g.pdf\n"
    )
    dataset = open_dataset(write(tmp_path / "a.csv", text))
    assert dataset.qrels == {"train": {"1": {"x": 2}}, "dev": {"2": {"y": 1}}, "test": {"3": {"z": 1}}}
    assert dataset.corpus["x"].document_id == dataset.corpus["y"].document_id != dataset.corpus["z"].document_id
    assert dataset.corpus["x"].source == "f.pdf"


def test_keys_that_only_later_rows_have_count(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "text": "yes"},
        {"query": "a", "text": "no", "label": 0},
        {"query": "b", "text": "held", "split": "test"},
        {"question": "c", "passage": "sure", "neg": ["nor"]},
    ]
    dataset = open_dataset(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    assert pairs(dataset) == {("train", "a", "yes", 1), ("test", "b", "held", 1), ("train", "c", "sure", 1)}
    assert {"no", "nor"} <= {chunk.text for chunk in dataset.corpus.values()}


@pytest.mark.parametrize(
    "judged",
    [
        {"documents": ["yes", "no", "also"], "labels": [2, 0, 1]},
        {"passages": [{"text": "yes", "score": 2}, {"text": "no", "label": 0}, {"text": "also"}]},
    ],
)
def test_a_row_with_a_list_of_judged_texts(tmp_path: Path, judged: dict[str, Any]) -> None:
    dataset = open_dataset(write(tmp_path / "a.jsonl", json.dumps({"query": "a", **judged}) + "\n"))
    assert pairs(dataset) == {("train", "a", "yes", 2), ("train", "a", "also", 1)}
    assert {chunk.text for chunk in dataset.corpus.values()} == {"yes", "no", "also"}


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    assert open_dataset(write(tmp_path / "one.json", "\ufeff" + llama_index())).qrels == {"train": {"q1": {"n2": 1}}}
    assert open_dataset(write(tmp_path / "d" / "one.json", "\ufeff" + llama_index())).info["imported"] == "llama-index"


def test_a_folder_of_tables_named_after_the_splits(tmp_path: Path) -> None:
    write(tmp_path / "d" / "train.csv", "query,text\na,x\n")
    write(tmp_path / "d" / "validation.jsonl", '{"query": "b", "text": "y"}\n')
    write(tmp_path / "d" / "test.tsv", "query\ttext\nc\tz\n")
    dataset = open_dataset(tmp_path / "d")
    assert {(split, query) for split, query, _, _ in pairs(dataset)} == {("train", "a"), ("dev", "b"), ("test", "c")}


def test_a_file_whose_split_is_not_told_beside_one_whose_is(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / "all" / f"{name}.csv", f"query,text\n{name},x\n")
    assert open_dataset(tmp_path / "all").qrels.keys() == {"train"}
    write(tmp_path / "all" / "train.csv", "query,text\na,x\n")
    with pytest.raises(DatasetError, match="no split can be told from the name 'first', 'second'") as caught:
        open_dataset(tmp_path / "all")
    assert str(tmp_path / "all") in str(caught.value)
    for name in ("holdout", "val"):
        write(tmp_path / "llama" / f"{name}.json", llama_index())
    with pytest.raises(DatasetError, match="from the name 'holdout'"):
        open_dataset(tmp_path / "llama")


def test_splits_of_hugging_face_are_told_by_a_word_of_their_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = {"train_sft": "a", "validation_seen": "b", "test-hard": "c"}
    rows = {name: datasets.Dataset.from_list([{"query": query, "text": "x"}]) for name, query in names.items()}
    datasets.DatasetDict(rows).save_to_disk(str(tmp_path / "hf"))
    assert {(split, query) for split, query, _, _ in pairs(open_dataset(tmp_path / "hf"))} == {
        ("train", "a"),
        ("dev", "b"),
        ("test", "c"),
    }
    datasets.DatasetDict({**rows, "unseen": rows["train_sft"]}).save_to_disk(str(tmp_path / "more"))
    with pytest.raises(DatasetError, match="from the name 'unseen'"):
        open_dataset(tmp_path / "more")


MALFORMED = [
    ("a.csv", "query,text\na,x\n,y\nb,z\n", "line 3: the query is empty"),
    ("a.csv", "query,text\na,x\nb\n", "line 3: has 1 cells, the header 2 (it begins with 'b')"),
    ("a.csv", 'query,text\n"a\nb",x\nc,\n', "line 4: the text is empty"),
    ("a.csv", "query,text,score\na,x,1\nb,y,high\n", "line 3: the score 'high' is not a number"),
    ("a.csv", "query,text,score\na,x,1\nb,y,0.7\n", "line 3: the score '0.7' is not a whole number"),
    ("a.csv", "query,text,split\na,x,train\nb,y,later\n", "line 3: the split 'later'"),
    ("a.csv", "qid,query,text\n1,a,x\n1,b,y\n", "line 3: the query id '1' already stands for another text"),
    ("a.csv", "query,doc_id,text\na,1,x\nb,1,y\n", "line 3: the chunk id '1' already stands for another text"),
    ("a.jsonl", '{"query": "a", "text": "x"}\n{"query": \n', "line 2: is not valid JSON"),
    ("a.jsonl", '{"query": "a", "text": "x"}\n[1]\n', "line 2: is not a JSON object"),
    ("a.jsonl", '{"query": "a", "text": "x"}\n{"query": 4, "text": "x"}\n', "line 2: the query is 4, not a text"),
    ("a.json", '[{"query": "a", "text": "x"}, {"query": "b"}]', "entry 2: the text is empty"),
    ("a.json", '[{"query": "a", "text": "x"}, {"query": "b", "text": 7}]', "entry 2: the text is 7, not a text"),
    (
        "a.jsonl",
        '{"query": "a", "docs": ["x", "y"], "labels": [1, 0]}\n{"query": "b", "docs": ["x"], "labels": [1, 0]}\n',
        "line 2: has 2 scores for 1 texts",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), MALFORMED)
def test_malformed_rows_are_named_or_skipped(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DatasetError, match="1 malformed row") as caught:
        open_dataset(path)
    assert f"{path}, {message}" in str(caught.value)
    dataset = open_dataset(path, skip_malformed=True)
    assert len(dataset.info["skipped"]) == 1
    assert len(pairs(dataset)) >= 1


def test_every_malformed_row_is_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "query,text\na,x\n" + ",y\n" * 30)
    with pytest.raises(DatasetError, match=r"30 malformed row\(s\)(?s:.*)line 3:(?s:.*)line 22:(?s:.*)and 10 more"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "none looks like the queries|no row holds"),
        ("a.csv", "query,text,score\na,x,0\n", "no row holds a query with a relevant text"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"a": 1}', "neither LlamaIndex's"),
        ("a.xyz", "", "not a known format"),
    ],
)
def test_files_that_hold_no_dataset(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_dataset(write(tmp_path / name, content))


def test_paths_that_hold_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such dataset"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="the folder holds no dataset"):
        open_dataset(tmp_path)
    (tmp_path / "a.csv").write_bytes(b"query,text\na,\xff\n")
    with pytest.raises(DatasetError, match="not valid UTF-8"):
        open_dataset(tmp_path / "a.csv")


def llama_index(**changes: Any) -> str:
    content = {
        "queries": {"q1": "first"},
        "corpus": {"n1": "one", "n2": "two"},
        "relevant_docs": {"q1": ["n2"]},
        "mode": "text",
    }
    return json.dumps({**content, **changes})


def test_llama_index_file_and_pair(tmp_path: Path) -> None:
    alone = open_dataset(write(tmp_path / "one.json", llama_index()))
    assert alone.qrels == {"train": {"q1": {"n2": 1}}}
    write(tmp_path / "d" / "train_dataset.json", llama_index())
    other = llama_index(queries={"q2": "second"}, corpus={"n3": "three"}, relevant_docs={"q2": ["n3"]})
    write(tmp_path / "d" / "val_dataset.json", other)
    pair = open_dataset(tmp_path / "d")
    assert pair.qrels == {"train": {"q1": {"n2": 1}}, "test": {"q2": {"n3": 1}}}
    assert pair.corpus["n1"].document_id == pair.corpus["n2"].document_id != pair.corpus["n3"].document_id


def test_llama_index_files_that_count_their_ids_alike_are_both_kept(tmp_path: Path) -> None:
    write(tmp_path / "train_dataset.json", llama_index())
    other = {"queries": {"q1": "second"}, "corpus": {"n1": "one", "n2": "four"}, "relevant_docs": {"q1": ["n2", "n1"]}}
    write(tmp_path / "val_dataset.json", llama_index(**other))
    dataset = open_dataset(tmp_path)
    assert dataset.qrels == {"train": {"q1": {"n2": 1}}, "test": {"test-q1": {"test-n2": 1, "n1": 1}}}
    assert pairs(dataset) == {("train", "first", "two", 1), ("test", "second", "four", 1), ("test", "second", "one", 1)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relevant_docs": {}}, "'q1' has no relevant_docs"),
        ({"relevant_docs": {"q1": ["n9"]}}, "unknown chunk 'n9'"),
        ({"corpus": {"n2": 5}}, "the text of 'n2' is '5', not a text"),
        ({"queries": []}, "'queries' is missing or not an object"),
    ],
)
def test_broken_llama_index_files(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_dataset(write(tmp_path / "one.json", llama_index(**changes)))


@pytest.mark.parametrize("format", ["beir", "csv", "tsv", "jsonl", "parquet", "hf", "llama-index"])
def test_what_is_exported_can_be_imported(tmp_path: Path, format: formats.Format) -> None:
    if format in ("parquet", "hf"):
        pytest.importorskip("datasets" if format == "hf" else "pyarrow")
    dataset = make_dataset()
    train = dataset.qrels["train"]
    dataset.qrels["test"] = {key: train.pop(key) for key in list(train)[:10]}
    dataset.qrels["dev"] = {key: train.pop(key) for key in list(train)[:5]}
    path = tmp_path / ("out" if format in ("beir", "hf", "llama-index") else f"out.{format}")
    export_dataset(dataset, path, format)
    again = open_dataset(path)
    expected = pairs(dataset)
    if format in ("hf", "llama-index"):  # they know no titles: the chunk's content is its text
        expected = {(split, query, f"Title {query.split()[1]} {text}", grade) for split, query, text, grade in expected}
    assert pairs(again) == expected


@pytest.mark.parametrize("format", ["beir", "csv", "tsv", "jsonl", "parquet"])
def test_who_wrote_a_query_and_its_document_outlive_an_export(tmp_path: Path, format: formats.Format) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    dataset = make_dataset()
    for key, query in dataset.queries.items():
        dataset.queries[key] = replace(query, writer="extractive")
    path = tmp_path / ("out" if format == "beir" else f"out.{format}")
    export_dataset(dataset, path, format)
    again = open_dataset(path)
    assert {query.writer for query in again.queries.values()} == {"extractive"} and again.generated_in("train")
    assert len({again.corpus[key].document_id for key in again.corpus}) == len(dataset.documents_of("train"))
    assert len(dataset.documents_of("train")) < len(dataset.corpus), "or every chunk were a document of its own"


def test_a_run_is_told_from_a_dataset(tmp_path: Path) -> None:
    make_dataset().write(tmp_path / "run" / "dataset")
    write_run_file(tmp_path / "run", ["documents"], Config())
    with pytest.raises(DatasetError, match="is a run, and a dataset is wanted") as caught:
        open_dataset(tmp_path / "run")
    assert str(tmp_path / "run" / "dataset") in caught.value.hint


def test_two_files_of_one_split_are_not_mixed_up(tmp_path: Path) -> None:
    for name in ("train_a", "train_b"):
        write(tmp_path / f"{name}.json", llama_index())
    with pytest.raises(DatasetError, match=r"train_a\.json and train_b\.json are both of the split 'train'"):
        open_dataset(tmp_path)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'xml' is not a format"):
        export_dataset(make_dataset(), tmp_path / "out", "xml")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        open_dataset(write(tmp_path / "a.parquet", "no"))
    assert "vectune[data]" in caught.value.hint


def test_query_logs(tmp_path: Path) -> None:
    log = read_queries(write(tmp_path / "log.txt", "?\nfirst query\n\nsecond\nfirst query\nSecond ?\nsecond\n"))
    assert [query.text for query in log] == ["first query", "second"]
    assert [query.text for query in read_queries(write(tmp_path / "log.csv", "query,count\na,1\nb,2\n"))] == ["a", "b"]
    with pytest.raises(DatasetError, match="holds no query"):
        read_queries(write(tmp_path / "empty.txt", "\n"))
    with pytest.raises(DatasetError, match="none looks like the queries"):
        read_queries(write(tmp_path / "other.csv", "count\n1\n"))


@pytest.mark.parametrize("name", ["log.csv", "log.tsv"])
def test_a_table_with_one_column_is_read_as_lines(tmp_path: Path, name: str) -> None:
    lines = ["how to cook, fry, and boil eggs", "price; please", '"never closed', 'the "exact" words', "last"]
    log = write(tmp_path / name, "\n".join(["query", *lines]))
    assert [query.text for query in read_queries(log)] == lines
    with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["query"], *([line] for line in lines)])
    assert [query.text for query in read_queries(tmp_path / name)] == lines, "quoted as a writer of CSV does"


def test_a_quote_that_is_not_closed_swallows_nothing(tmp_path: Path) -> None:
    stray = 'query\tn\nwhat is "x" here\t1\n"quoted at the start\t2\nthe next\t3\n'
    found = [query.text for query in read_queries(write(tmp_path / "log.tsv", stray))]
    assert found == ['what is "x" here', '"quoted at the start', "the next"]
    with pytest.raises(DatasetError, match=r"1 malformed row(?s:.*)line 3: a quote is opened and not closed"):
        open_dataset(write(tmp_path / "a.csv", 'query,text\na,x\nb,"y\nc,z\n'))


def test_one_stray_quote_costs_no_quoted_table(tmp_path: Path) -> None:
    written_by_r = '"query"\t"text"\n"pipe of 5\\" size"\t"Pipes are large"\n"b c"\t"d e"\n'
    dataset = open_dataset(write(tmp_path / "r.tsv", written_by_r))
    assert [query.text for query in dataset.queries.values()][1] == "b c"
    assert [chunk.text for chunk in dataset.corpus.values()] == ["Pipes are large", "d e"]
    several_lines = 'query\ttext\nhow to reset\t"Hold ""power""\nfor ten seconds"\n"foo" bar\tRed light\n'
    dataset = open_dataset(write(tmp_path / "a.tsv", several_lines))
    assert [chunk.text for chunk in dataset.corpus.values()] == ['Hold "power"\nfor ten seconds', "Red light"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.jsonl", '{"query": "a"}\n{"query": "broken\n{"query": "b"}\n', "line 2: is not valid JSON"),
        ("log.jsonl", '{"query": "a"}\n["b"]\n', "line 2: is not a JSON object"),
        ("log.csv", "query,clicks\na,5\nb, and c,3\n", "line 3: has 3 cells, the header 2"),
    ],
)
def test_no_line_of_a_log_is_dropped_silently(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DatasetError) as caught:
        read_queries(path)
    assert f"{path}, {message}" in str(caught.value)
    assert "one query a line" in caught.value.hint


@pytest.mark.parametrize("further", ["chunk_id", "title"])
def test_a_negative_that_is_a_positive_elsewhere_is_that_chunk(tmp_path: Path, further: str) -> None:
    rows = ["a,about wheels,1,about levers", "b,about levers,2,about wheels", "c,about pumps,3,about nothing"]
    dataset = open_dataset(write(tmp_path / "a.csv", f"query,positive,{further},negative\n" + "\n".join(rows)))
    texts = [chunk.text for chunk in dataset.corpus.values()]
    assert texts == ["about wheels", "about levers", "about pumps", "about nothing"]


def test_ids_of_negatives_stand_for_one_text(tmp_path: Path) -> None:
    rows = [
        {"query": "a", "positive": {"id": "1", "text": "x"}, "negative": {"id": "2", "text": "y"}},
        {"query": "b", "positive": {"id": "2", "text": "z"}},
    ]
    with pytest.raises(DatasetError, match="line 2: the chunk id '2' already stands for another text"):
        open_dataset(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("deep.json", "[" * 100_000, "deep.json: is not valid JSON"),
        ("deep.jsonl", '{"query": "a", "text": ' + "[" * 100_000 + "\n", "deep.jsonl, line 1: is not valid JSON"),
        ("a.csv", 'query,text,chunk_id\na,x,"b\tc"\n', r"a.csv, line 2: the id 'b\tc' holds a tab or a line break"),
        ("a.csv", 'query,text,qid\na,x,"b\nc"\n', r"a.csv, line 2: the id 'b\nc' holds a tab or a line break"),
        (
            "a.json",
            json.dumps({"queries": {"q": "x"}, "corpus": {"c": "t"}, "relevant_docs": {"q": [["c"]]}}),
            "a.json: the query 'q' names the unknown chunk '['c']'",
        ),
        (
            "a.json",
            json.dumps({"queries": {"q": "x"}, "corpus": {"c\td": "t"}, "relevant_docs": {"q": ["c\td"]}}),
            r"a.json: the id 'c\td' holds a tab or a line break",
        ),
    ],
)
def test_nested_values_and_ids_that_no_file_takes_are_named(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    with pytest.raises(DatasetError) as caught:
        open_dataset(write(tmp_path / name, content))
    assert message in str(caught.value)


@pytest.mark.parametrize("format", ["beir", "csv", "jsonl", "llama-index"])
def test_half_a_surrogate_pair_keeps_nothing_from_being_written(tmp_path: Path, format: formats.Format) -> None:
    write(tmp_path / "d" / "corpus.jsonl", r'{"_id": "c\ud83d", "title": "T\uD83D", "text": "x \ud83d\ude00 \ud83d"}')
    write(tmp_path / "d" / "documents.jsonl", r'{"_id": "c\ud83d", "source": "s\ud83d"}')
    write(tmp_path / "d" / "queries.jsonl", r'{"_id": "q", "text": "a \ud83d"}')
    write(tmp_path / "d" / "qrels" / "train.tsv", "query-id\tcorpus-id\tscore\nq\tc\ufffd\t1\n")
    path = tmp_path / ("out" if format in ("beir", "llama-index") else f"out.{format}")
    export_dataset(open_dataset(tmp_path / "d"), path, format)
    assert {query.text for query in open_dataset(path).queries.values()} == {"a \ufffd"}
    assert read_corpus(tmp_path / "d", in_memory=0)["c\ufffd"] == Chunk(
        "x \U0001f600 \ufffd", "T\ufffd", source="s\ufffd", id="c\ufffd"
    )
