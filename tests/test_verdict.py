from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boards import dataset
from vectune.board import Board, Costs, Row
from vectune.comparison import compare_boards, read_boards
from vectune.config import config_from
from vectune.dataset import RetrievalDataset
from vectune.errors import GateError, InputError, UsageError
from vectune.gates import check_gates, parse_gate
from vectune.statistics import bootstrap_interval, detectable_difference, randomization_test, standard_error
from vectune.verdict import VerdictOptions, compare_rows, shipping_cost, verdict

QUICK = VerdictOptions(draws=1000)


def board_of(data: RetrievalDataset, **scores: float) -> Board:
    """A board whose rows score about so much, each query with the same luck in every row and a little of its own."""
    queries = list(data.qrels["test"])
    luck = np.random.default_rng(1).normal(0, 0.1, len(queries))
    rows = []
    for place, (name, score) in enumerate(scores.items()):
        values = np.clip(score + luck + np.random.default_rng(place + 5).normal(0, 0.04, len(queries)), 0, 1)
        per_query = {query: {"nDCG@10": float(v), "RR@10": float(v)} for query, v in zip(queries, values, strict=True)}
        ranking = [("d00c0", 0.9), ("d00c1", 0.8)]
        rows.append(Row(name, "dense", per_query, {query: ranking for query in queries}, dict.fromkeys(queries, 2),
                        costs=Costs(dim=8, documents_per_second=10.0)))  # fmt: skip
    clusters = {query: data.corpus[next(iter(judged))].document_id for query, judged in data.qrels["test"].items()}
    return Board("small", "test", len(data.corpus), len(queries), tuple(rows), ("nDCG@10", "RR@10"), clusters=clusters)


@pytest.fixture(scope="module")
def data() -> RetrievalDataset:
    return dataset(60)


def test_a_clear_gain_ships_at_its_price(data: RetrievalDataset) -> None:
    found = verdict(board_of(data, base=0.5, tuned=0.6), data, "base", "tuned", QUICK)
    assert found.outcome == "ship" and found.sentence.startswith("Ship: nDCG@10 +.")
    assert found.interval[0] < found.gain < found.interval[1] and found.interval[0] > 0
    assert 0 < found.p <= found.p_corrected <= 0.05
    assert (
        found.cost.chunks == 240 and found.cost.minutes == 0.4 and "240 chunks need embedding again" in found.sentence
    )
    assert (found.queries, found.clusters, found.clustered_by) == (80, 20, "document")


def test_queries_cut_from_the_documents_never_ship(data: RetrievalDataset) -> None:
    cut = replace(data, queries={key: replace(query, writer="extractive") for key, query in data.queries.items()})
    found = verdict(board_of(cut, base=0.5, tuned=0.6), cut, "base", "tuned", QUICK)
    assert found.outcome == "too few queries to tell" and found.queries_needed == 100
    assert "on queries cut from the documents" in found.sentence and "people's own" in found.sentence
    assert verdict(board_of(cut, base=0.6, tuned=0.5), cut, "base", "tuned", QUICK).outcome == "do not ship"
    unclear = verdict(board_of(cut, base=0.5, tuned=0.505), cut, "base", "tuned", QUICK)
    assert unclear.outcome == "too few queries to tell" and unclear.queries_needed == 100  # more cut ones tell nothing


def test_where_nothing_can_be_significant_nothing_is_called_detectable(data: RetrievalDataset) -> None:
    board = board_of(data, base=0.5, tuned=0.9)
    few = replace(board, clusters={query: str(place % 5) for place, query in enumerate(board.clusters)})
    found = verdict(few, data, "base", "tuned", QUICK)
    assert found.detectable is None and found.p == 2 / 2**5 and "of cases" not in " ".join(found.reasons)


def test_a_loss_does_not_ship(data: RetrievalDataset) -> None:
    found = verdict(board_of(data, base=0.6, tuned=0.5), data, "base", "tuned", QUICK)
    assert found.outcome == "do not ship" and "not luck" in found.reasons[0]


def test_a_gain_too_small_to_re_embed_for_ships_only_where_it_is_free(data: RetrievalDataset, tmp_path: Path) -> None:
    options = replace(QUICK, worth=0.3)
    found = verdict(board_of(data, base=0.5, tuned=0.6), data, "base", "tuned", options)
    assert found.outcome == "do not ship" and ".300" in found.reasons[0]
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "vectune.json").write_text('{"kind": "adapter", "base": "base"}')
    free = verdict(board_of(data, **{"base": 0.5, str(adapter): 0.6}), data, "base", str(adapter), options)
    assert free.outcome == "ship" and free.cost.chunks == 0 and "no document needs embedding again" in free.sentence
    assert (
        verdict(board_of(data, **{"base": 0.5, "hybrid:base": 0.6}), data, "base", "hybrid:base", options).cost.chunks
        == 0
    )


def test_too_few_queries_says_how_many(data: RetrievalDataset) -> None:
    few = dataset(12)
    found = verdict(board_of(few, base=0.5, tuned=0.52), few, "base", "tuned", QUICK)
    assert found.outcome == "too few queries to tell"
    assert found.queries_needed is not None and found.queries_needed > found.queries == 16
    assert f"{found.queries_needed:,} queries" in found.sentence
    assert verdict(board_of(data, base=0.5, tuned=0.6), data, "base", "tuned", QUICK).queries_needed is None


@pytest.mark.parametrize("queries", [1, 8])
def test_a_few_queries_without_a_difference_rule_nothing_out(queries: int) -> None:
    few = dataset(40)
    few.qrels["test"] = dict(list(few.qrels["test"].items())[:queries])
    board = board_of(few, base=0.5)
    same = replace(board, rows=(*board.rows, replace(board.rows[0], name="tuned")))
    found = verdict(same, few, "base", "tuned", QUICK)
    assert found.outcome == "too few queries to tell" and "cannot rule out" in found.reasons[0]
    assert found.detectable is None and "true difference" not in " ".join(found.reasons)
    assert "Infinity" not in json.dumps(found.to_json())


def test_an_adapter_over_another_model_needs_all_documents_embedded(data: RetrievalDataset, tmp_path: Path) -> None:
    for name, marker in {
        "over-a": {"kind": "adapter", "base": "a"},
        "on-top": {"kind": "words", "base": str(tmp_path / "over-a")},
        "bridge": {"kind": "bridge", "base": "b", "document_base": "a"},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "vectune.json").write_text(json.dumps(marker))
        board = board_of(data, **{"a": 0.5, "b": 0.5, "bm25": 0.4, str(tmp_path / name): 0.6})
        row = board.row(str(tmp_path / name))
        assert [shipping_cost(board, base, row).chunks for base in ("a", "b", "bm25")] == [0, 240, 240]
        assert shipping_cost(board, str(tmp_path / name), board.row("a")).chunks == 0


def test_no_gain_with_many_queries_does_not_ship(data: RetrievalDataset) -> None:
    board = board_of(data, base=0.5)
    same = replace(board, rows=(*board.rows, replace(board.rows[0], name="tuned")))
    found = verdict(same, data, "base", "tuned", QUICK)
    assert found.outcome == "do not ship" and found.gain == 0 and found.p == 1


def test_the_general_set_can_stop_it(data: RetrievalDataset) -> None:
    board = board_of(data, base=0.5, tuned=0.6)
    lost = board_of(data, base=0.6, tuned=0.5)
    found = verdict(board, data, "base", "tuned", QUICK, general=lost)
    assert found.outcome == "do not ship" and "general set" in found.reasons[0]
    assert found.general is not None and not found.general.holds and found.general.gain == pytest.approx(-0.1, abs=0.02)
    assert verdict(board, data, "base", "tuned", replace(QUICK, allowed_loss=0.2), general=lost).outcome == "ship"


def test_a_loss_on_the_general_set_that_luck_could_make_is_told_as_that(data: RetrievalDataset) -> None:
    board = board_of(data, base=0.5, tuned=0.6)
    base = board.rows[0]
    noisy = {
        query: {"nDCG@10": own["nDCG@10"] + (0.3 if place % 8 < 4 else -0.36), "RR@10": 0.5}
        for place, (query, own) in enumerate(base.per_query.items())
    }
    general = replace(board, rows=(base, replace(base, name="tuned", per_query=noisy)))
    found = verdict(board, data, "base", "tuned", QUICK, general=general)
    assert found.general is not None and not found.general.holds and found.general.interval[1] > 0
    assert found.outcome == "too few queries to tell" and "luck alone could make such a loss" in found.reasons[0]
    assert found.sentence.endswith(", but the general set's 80 queries leave open what it loses there.")
    assert found.queries_needed is None  # more of the others would not tell


def test_chunks_are_not_documents_where_a_gain_is_ruled_out(data: RetrievalDataset) -> None:
    board = replace(board_of(data, base=0.5), clustered_by="chunk")
    same = replace(board, rows=(*board.rows, replace(board.rows[0], name="tuned")))
    found = verdict(same, data, "base", "tuned", QUICK)
    assert found.outcome == "too few queries to tell" and "cannot rule out" in found.reasons[0]


def test_an_embedder_may_be_called_like_a_row_of_another_kind(data: RetrievalDataset) -> None:
    for name in ("mini@v2", "bm25s"):
        found = verdict(board_of(data, base=0.5, **{name: 0.6}), data, "base", name, QUICK)
        assert found.outcome == "ship" and "240 chunks need embedding again" in found.sentence


def test_every_row_is_compared_and_corrected(data: RetrievalDataset) -> None:
    board = board_of(data, base=0.5, one=0.51, two=0.505, three=0.6)
    found = {each.name: each for each in compare_rows(board, "base", QUICK)}
    assert list(found) == ["one", "two", "three"]
    assert found["three"].p_corrected == pytest.approx(3 * found["three"].p)
    assert all(each.p_corrected >= each.p for each in found.values())
    judged = verdict(board, data, "base", "one", QUICK)
    assert judged.best == "three" and any("three scored higher here" in reason for reason in judged.reasons)


def test_queries_of_one_document_stand_or_fall_together_in_all_figures(data: RetrievalDataset) -> None:
    board = board_of(data, base=0.5, one=0.55)
    [found] = compare_rows(board, "base", QUICK)
    differences = [
        row["nDCG@10"] - board.rows[0].per_query[query]["nDCG@10"] for query, row in board.rows[1].per_query.items()
    ]
    clusters = list(board.clusters.values())
    interval = bootstrap_interval(differences, clusters, draws=QUICK.draws, seed=QUICK.seed)
    assert found.interval == (interval.low, interval.high)
    error = standard_error(differences, clusters)
    assert found.detectable == detectable_difference(error, power=QUICK.power, clusters=20)
    assert found.p == randomization_test(differences, clusters, draws=QUICK.draws, seed=QUICK.seed)
    [alone] = compare_rows(replace(board, clusters={query: query for query in board.clusters}), "base", QUICK)
    assert alone.interval != found.interval and alone.detectable != found.detectable, "or this test could not fail"


def test_regressions_are_grouped_and_shown_side_by_side(data: RetrievalDataset) -> None:
    board = board_of(data, base=0.6, tuned=0.6)
    hurt = {query for query in board.clusters if "detail3" in data.queries[query].text}
    for query in hurt:  # one group is much worse
        board.rows[1].per_query[query]["nDCG@10"] = 0.0
    styled = replace(data, queries={
        key: replace(query, style="hurt" if key in hurt else "fine") for key, query in data.queries.items()
    })  # fmt: skip
    found = verdict(board, styled, "base", "tuned", QUICK)
    groups = {(group.by, group.name): group for group in found.regressions.groups}
    assert groups["style", "hurt"].hurt and not groups["style", "fine"].hurt
    assert groups["style", "hurt"].queries == 20 and groups["style", "hurt"].candidate == 0
    assert {by for by, _ in groups} == {
        "style",
        "length",
        "words shared with the chunk",
    }  # four queries a document: too few
    assert any("style is 'hurt'" in reason for reason in found.reasons)
    worst = found.regressions.worst[0]
    assert (
        worst["query"] in hurt and worst["gain"] < -0.3 and worst["right"] == list(data.qrels["test"][worst["query"]])
    )
    assert worst["base"]["ranking"] == [["d00c0", 0.9], ["d00c1", 0.8]] and worst["candidate"]["rank"] == 2
    assert len(found.regressions.worst) == 20
    assert found.regressions.better + found.regressions.worse + found.regressions.same == 80


def test_the_verdict_is_plain_json(data: RetrievalDataset) -> None:
    value = verdict(board_of(data, base=0.5, tuned=0.6), data, "base", "tuned", QUICK).to_json()
    assert json.loads(json.dumps(value)) == value
    assert {"outcome", "sentence", "reasons", "measure", "base", "candidate", "gain", "interval", "comparisons", "cost",
            "general", "regressions"} <= set(value)  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": 1.0},
        {"level": 0.0},
        {"power": 2.0},
        {"worth": -0.1},
        {"worth": math.nan},
        {"draws": 1},
        {"seed": -1},
    ],
)
def test_options_that_no_verdict_can_rest_on(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        VerdictOptions(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        config_from({"verdict": wrong}, "a file")


def test_what_the_verdict_compares_is_measured() -> None:
    seeded = config_from({"seed": 3, "verdict": {"measure": "map@5"}}, "a file").seeded()
    assert seeded.verdict.measure == "AP@5" and "AP@5" in seeded.evaluate.measures and seeded.verdict.seed == 3


def test_nothing_to_compare(data: RetrievalDataset) -> None:
    board = board_of(data, base=0.5, tuned=0.6)
    for base, candidate in (("base", "base"), ("base", "none"), ("none", "base")):
        with pytest.raises(UsageError):
            verdict(board, data, base, candidate, QUICK)


# Gates


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("nDCG@10:+0.05", True),
        ("nDCG@10:+0.2", False),
        ("ndcg@10:-0.01", True),
        ("RR@10:0.5", True),
        ("RR@10:.9", False),
    ],
)
def test_gates(data: RetrievalDataset, text: str, holds: bool) -> None:
    board = board_of(data, base=0.5, tuned=0.6)
    if holds:
        assert "holds" in check_gates(board, "base", "tuned", [parse_gate(text)])[0]
    else:
        with pytest.raises(GateError, match="does not hold") as caught:
            check_gates(board, "base", "tuned", [parse_gate("nDCG@10:+0.01"), parse_gate(text)])
        assert caught.value.exit_code == 1


def test_a_gate_met_exactly_holds() -> None:
    data = dataset()
    board = board_of(data, base=0.5)
    rows = [replace(board.rows[0], name=n, per_query={q: {"nDCG@10": v} for q in board.rows[0].per_query})
            for n, v in (("base", 0.13), ("tuned", 0.15))]  # fmt: skip
    gates = [parse_gate("nDCG@10:+0.02"), parse_gate("nDCG@10:0.15")]
    assert len(check_gates(replace(board, rows=tuple(rows)), "base", "tuned", gates)) == 2


def test_a_failed_gate_shows_how_it_failed() -> None:
    board = board_of(dataset(), base=0.5)
    rows = [replace(board.rows[0], name=n, per_query={q: {"nDCG@10": v} for q in board.rows[0].per_query})
            for n, v in (("base", 0.1), ("tuned", 0.1199))]  # fmt: skip
    with pytest.raises(GateError, match=r"is \.1199|is 0\.1199, asked 0\.12"):
        check_gates(replace(board, rows=tuple(rows)), "base", "tuned", [parse_gate("nDCG@10:0.12")])


@pytest.mark.parametrize("text", ["nDCG@10", "nDCG@10:", "nDCG@10:+x", ":+0.1", "F1@3:+0.1", "nDCG@10:>0.2"])
def test_a_gate_that_is_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_gate(text)


# Runs side by side


def test_boards_side_by_side(data: RetrievalDataset, tmp_path: Path) -> None:
    for name, tuned in (("first", 0.55), ("second", 0.6)):
        board_of(data, base=0.5, tuned=tuned).write(tmp_path / name / "board.json")
    found = compare_boards(read_boards([tmp_path / "first", tmp_path / "second"]), options=QUICK)
    assert found.reference == ("first", "base")
    rows = {(row.run, row.row): row for row in found.rows}
    assert rows["first", "base"].comparison is None
    second = rows["second", "tuned"].comparison
    assert second is not None and second.gain == pytest.approx(0.1, abs=0.02) and second.significant
    assert "| second | tuned |" in found.to_markdown()
    assert json.loads(json.dumps(found.to_json()))["rows"][3]["row"] == "tuned"


def test_boards_of_other_queries_are_not_tested(data: RetrievalDataset) -> None:
    other = dataset(30)
    found = compare_boards({"a": board_of(data, base=0.5), "b": board_of(other, base=0.5)}, options=QUICK)
    assert all(row.comparison is None for row in found.rows)
    assert any("other queries" in note for note in found.notes) and any("240" in note for note in found.notes)


def test_the_same_queries_among_other_chunks_are_not_paired(data: RetrievalDataset) -> None:
    board = replace(board_of(data, base=0.5), asked="these")
    for asked, tested in (("these", True), ("others", False)):
        compared = compare_boards({"a": board, "b": replace(board, asked=asked)}, options=QUICK)
        assert (compared.rows[-1].comparison is not None) == tested
        assert any("among other chunks" in note for note in compared.notes) != tested


@pytest.mark.parametrize("lost", ["rows", "query", "rankings", "value", "clusters"])
def test_a_damaged_board_is_named(data: RetrievalDataset, tmp_path: Path, lost: str) -> None:
    value = board_of(data, base=0.5, tuned=0.6).to_json()
    row = value["rows"][1]
    first = next(iter(row["per_query"]))
    if lost == "rows":
        value["rows"] = []
    elif lost == "query":
        del row["per_query"][first]
    elif lost == "value":
        row["per_query"][first]["nDCG@10"] = None
    else:
        (row if lost == "rankings" else value)[lost] = None
    (tmp_path / "board.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="is not a board"):
        Board.read(tmp_path / "board.json")


def test_a_missing_board(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no board"):
        read_boards([tmp_path])
