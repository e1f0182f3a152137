from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import ir_measures
import numpy as np
import pytest

from boards import Floats, WordEmbedder, dataset
from vectune.adapters import AdaptedEmbedder, Adapter, SplitEmbedder
from vectune.board import Board
from vectune.dataset import Qrels, RetrievalDataset
from vectune.embedders.cached import CachedEmbedder
from vectune.embedders.models import ARTIFACT_FILE
from vectune.encoding import _uncached
from vectune.errors import DatasetError, EndpointError, InputError, ModelError, UsageError
from vectune.evaluation import EvaluateOptions, evaluate
from vectune.metrics import mean
from vectune.rankers import Binary
from vectune.records import Query
from vectune.runs import write_json
from vectune.testing import Fault, OpenAIServer

QUICK = EvaluateOptions(timed_queries=0, cache=False)


@pytest.fixture(scope="module")
def data() -> RetrievalDataset:
    return dataset()


@pytest.fixture(scope="module")
def board(data: RetrievalDataset) -> Board:
    return evaluate(
        data, ["bm25", WordEmbedder(), WordEmbedder("noisy", noise=4.0)], options=replace(QUICK, timed_queries=3)
    )


def test_json_has_what_was_promised(board: Board) -> None:
    value = json.loads(json.dumps(board.to_json()))
    assert list(value)[:5] == ["dataset", "split", "corpus", "queries", "rows"]
    assert (value["dataset"], value["split"], value["corpus"], value["queries"]) == ("small", "test", 48, 16)
    row = value["rows"][0]
    assert row["name"] == "bm25"
    assert list(row["measures"]) == ["nDCG@10", "RR@10", "hit@1", "hit@5", "hit@10", "R@10"]
    assert set(row["per_query"]["qd02c1"]) == set(row["measures"])
    assert Board.from_json(value) == board


def test_measures_are_ir_measures_over_the_ranking(data: RetrievalDataset, board: Board) -> None:
    for row in board.rows:
        run = {
            query: {chunk: 100.0 - place for place, (chunk, _) in enumerate(hits)}
            for query, hits in row.rankings.items()
        }
        expected = ir_measures.calc_aggregate([ir_measures.nDCG @ 10, ir_measures.Success @ 5], data.qrels["test"], run)
        assert row.measures["nDCG@10"] == expected[ir_measures.nDCG @ 10]
        assert row.measures["hit@5"] == expected[ir_measures.Success @ 5]


def test_rows_differ_as_their_models_do(board: Board) -> None:
    assert board.row("words").measures["nDCG@10"] > board.row("noisy").measures["nDCG@10"] + 0.1
    assert board.row("bm25").kind == "bm25"


def test_ranks_rankings_and_clusters(data: RetrievalDataset, board: Board) -> None:
    row = board.row("words")
    for query, judged in data.qrels["test"].items():
        found = [chunk for chunk, _ in row.rankings[query]]
        assert len(found) == 10
        if row.ranks[query] in range(1, 11):
            assert found[row.ranks[query] - 1] in judged
    assert board.clustered_by == "chunk"  # four test documents are too few to resample
    assert any("4 documents" in note for note in board.notes)
    many = evaluate(dataset(60), ["bm25"], options=QUICK)
    assert many.clustered_by == "document" and len(set(many.clusters.values())) == 20


def test_costs(board: Board) -> None:
    costs = board.row("words").costs
    assert costs.dim == 32 and costs.index_bytes == 48 * 32 * 4
    assert costs.query_ms is not None and 0 < costs.query_ms["median"] <= costs.query_ms["p95"]
    assert board.row("bm25").costs.dim is None


def test_costs_behind_wrappers_are_those_of_the_model_inside(data: RetrievalDataset) -> None:
    class Reader(WordEmbedder):
        def truncated(self, texts: Sequence[str]) -> int:
            return sum("1" in text for text in texts)

    base, same = CachedEmbedder(Reader()), Adapter("linear", 32, 32, skip=np.eye(32, dtype=np.float32))
    split = SplitEmbedder(Reader("queries"), base, "split")
    board = evaluate(data, [base, AdaptedEmbedder(base, same, name="adapted"), split], options=QUICK)
    cut = sum("1" in chunk.content for chunk in data.corpus.values())
    assert cut and [row.costs.truncated for row in board.rows] == [cut] * 3
    assert (
        f"{cut} of 48 chunks are longer than the model reads" in board.to_markdown()
        and "adapted, split." in board.to_markdown()
    )
    bare = _uncached(split)
    assert isinstance(bare, SplitEmbedder) and (bare.query, bare.document) == (split.query, base.inner)


def test_ties_are_broken_alike_in_every_row() -> None:
    data = dataset()
    twins = [replace(data.corpus[key], id=f"z{key}") for key in ("d02c1", "d02c3")]  # the same text, under other ids
    data = replace(data, corpus={**data.corpus, **{twin.id: twin for twin in twins}})
    board = evaluate(data, ["bm25", WordEmbedder()], options=QUICK)
    for row in board.rows:
        assert any(
            ["zd02c1", "d02c1"] == [chunk for chunk, _ in hits if chunk.endswith("d02c1")]
            for hits in row.rankings.values()
        )
        for hits in row.rankings.values():
            scores = dict(hits)
            for key in ("d02c1", "d02c3"):
                if key in scores:  # the higher id is first, with the same score
                    assert scores[f"z{key}"] == scores[key]
                    assert list(scores).index(f"z{key}") < list(scores).index(key)


def test_variants_of_one_model_embed_once(data: RetrievalDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    words = WordEmbedder()
    monkeypatch.setattr("vectune.encoding.open_embedder", lambda name, settings, cache: words)
    names = ["words", "words@16", "words@int8", "words@binary", "words@16@int8", "hybrid:words"]
    board = evaluate(data, names, options=QUICK)
    assert [row.name for row in board.rows] == names
    assert words.asked < 2 * (48 + 16 + 16)  # corpus, test and dev queries, and the sample that is timed
    sizes = {row.name: row.costs.index_bytes or 0 for row in board.rows}
    assert sizes["words@16"] * 2 == sizes["words"] == 48 * 32 * 4
    assert sizes["words@binary"] == 48 * 32 // 8 < sizes["words@int8"] < sizes["words"]
    assert sizes["hybrid:words"] > sizes["words"]
    quality = {row.name: row.measures["nDCG@10"] for row in board.rows}
    assert quality["words@int8"] == pytest.approx(quality["words"], abs=0.02)


@pytest.mark.parametrize("kind", ["adapter", "query encoder"])
def test_what_was_fitted_on_dev_chooses_nothing_there(
    data: RetrievalDataset, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    words = WordEmbedder(noise=0.5)
    adapted = AdaptedEmbedder(words, Adapter("linear", 32, 32, skip=-np.eye(32, dtype=np.float32)))
    tuned = adapted if kind == "adapter" else SplitEmbedder(adapted, words, untuned=words)
    named = {"w": words, "t": tuned, "unmarked": SplitEmbedder(adapted, words)}
    monkeypatch.setattr("vectune.encoding.open_embedder", lambda name, settings, cache: named[name])
    plain, turned, itself = evaluate(data, ["hybrid:w", "hybrid:t", "hybrid:unmarked"], options=QUICK).rows
    assert turned.details["curve"] == plain.details["curve"] != itself.details["curve"]
    assert turned.details["weight"] == plain.details["weight"] < itself.details["weight"]
    assert turned.details["chosen_on"] == "dev, with the queries as they are before tuning"
    assert plain.details["chosen_on"] == "dev"
    notes = evaluate(data, ["w", "t"], "dev", options=QUICK).notes
    assert [note.split(":")[0] for note in notes if "looks too good" in note] == ["t"]


def test_an_adapter_of_both_sides_chooses_no_weight_on_dev(
    data: RetrievalDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = Adapter("linear", 32, 32, skip=-np.eye(32, dtype=np.float32))
    both = AdaptedEmbedder(WordEmbedder(), turn, turn)
    monkeypatch.setattr("vectune.encoding.open_embedder", lambda name, settings, cache: both)
    board = evaluate(data, ["hybrid:both"], options=QUICK)
    assert (board.rows[0].details["weight"], board.rows[0].details["chosen_on"]) == (0.5, None)
    assert any("the weight is .5, for queries and documents pass" in note for note in board.notes)
    assert any("looks too good" in note for note in evaluate(data, ["both"], "dev", options=QUICK).notes)


def test_a_tuned_models_weight_is_chosen_on_dev_as_its_tuning_cut_it(
    data: RetrievalDataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del data.qrels["dev"]
    named = {"plain": WordEmbedder(noise=2.0), "tuned": WordEmbedder(str(tmp_path), noise=2.0)}
    write_json(tmp_path / ARTIFACT_FILE, {"kind": "full", "options": {"seed": 5}})
    monkeypatch.setattr("vectune.encoding.open_embedder", lambda name, settings, cache: named[name])

    def curve(name: str, seed: int) -> object:
        return evaluate(data, [f"hybrid:{name}"], options=replace(QUICK, seed=seed)).rows[0].details["curve"]

    assert curve("tuned", 0) == curve("plain", 5) != curve("plain", 0)  # 5 is the first to cut another document


def test_bm25_finds_nothing_for_words_it_never_saw() -> None:
    data = dataset()
    first = next(iter(data.qrels["test"]))
    data.queries[first] = replace(data.queries[first], text="zzz xyzzy")
    row = evaluate(data, ["bm25"], options=QUICK).rows[0]
    assert row.unanswered == 1 and row.rankings[first] == [] and row.ranks[first] == 0
    assert set(row.per_query[first].values()) == {0.0}
    assert len(row.per_query) == 16


def test_cutoffs_and_measures_can_be_added(data: RetrievalDataset) -> None:
    options = replace(QUICK, measures=("ndcg@10", "AP"), k=(3,))
    board = evaluate(data, ["bm25"], options=options)
    assert board.measures == ("nDCG@10", "AP", "nDCG@3", "RR@3", "hit@3", "R@3", "P@3")
    assert board.depth == 48


def test_a_hybrids_weight_is_given_or_chosen_on_what_is_not_scored(tiny_bert: Path) -> None:
    data, name = dataset(), f"hybrid:{tiny_bert}"
    given = evaluate(data, [name], options=QUICK, weights={name: 0.7}).rows[0]
    assert (given.details["weight"], given.details["chosen_on"]) == (0.7, None)
    data.qrels.pop("dev", None)
    board = evaluate(data, [name], "train", options=QUICK)
    assert board.rows[0].details["weight"] == 0.5 and "no dev queries" in board.notes[0]
    data.qrels["train"] = dict([next(iter(data.qrels["train"].items()))])  # too small to cut dev from
    board = evaluate(data, ["bm25", name], options=QUICK)
    assert board.rows[1].details["weight"] == 0.5 and "no dev queries" in board.notes[0]


def test_boards_of_one_set_alone_have_asked_the_same() -> None:
    data = dataset()
    asked = evaluate(data, ["bm25"], options=QUICK).asked
    query, judged = next(iter(data.qrels["test"].items()))
    more = {**data.qrels, "test": {**data.qrels["test"], query: {**judged, "d00c3": 1}}}
    chunk = next(iter(data.corpus))
    other = {**data.corpus, chunk: replace(data.corpus[chunk], text="other words")}
    assert asked == evaluate(dataset(), ["bm25"], options=QUICK).asked
    assert asked not in (evaluate(replace(data, **changed), ["bm25"], options=QUICK).asked
                         for changed in ({"qrels": more}, {"corpus": other}))  # fmt: skip


def test_a_model_may_be_named_by_a_path(tiny_bert: Path) -> None:
    assert evaluate(dataset(), [tiny_bert], options=QUICK).rows[0].name == str(tiny_bert)


def test_the_title_says_generated() -> None:
    assert "generated queries" in evaluate(dataset(generated=True), ["bm25"], options=QUICK).title
    assert "generated" not in evaluate(dataset(), ["bm25"], options=QUICK).title


def test_peoples_queries_in_the_test_split_of_a_generated_dataset_are_given() -> None:
    made = dataset(generated=True)
    judged = set(made.qrels["test"])
    written = {key: replace(query, writer="" if key in judged else "extractive") for key, query in made.queries.items()}
    assert {key for key in written if key not in judged}, "nothing else is there to be written by a machine"
    title = evaluate(replace(made, queries=written), ["bm25"], options=QUICK).title
    assert title.endswith("given queries")


def test_callables_are_models(data: RetrievalDataset) -> None:
    words = WordEmbedder()
    row = evaluate(data, [(words.embed_queries, words.embed_documents)], options=QUICK).rows[0]
    assert mean(row.values("hit@10")) > 0.5


class Broken(WordEmbedder):
    """Fails for one text in the way that is asked for."""

    def __init__(self, how: str) -> None:
        super().__init__("broken")
        self.how = how

    def embed_documents(self, texts: Sequence[str]) -> Floats:
        found = super().embed_documents(texts)
        if self.how == "rows":
            return found[:-1]
        if self.how == "dimensions":
            return found[:, :5]
        found[7] = {"nan": np.nan, "zero": 0.0, "infinite": np.inf}[self.how]
        return found


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("nan", "not finite"), ("infinite", "not finite"), ("zero", "is zero"), ("rows", "asked for 48 vectors"),
        ("dimensions", "5 dimensions"),
    ],
)  # fmt: skip
def test_vectors_that_are_none_stop_the_evaluation(data: RetrievalDataset, how: str, told: str) -> None:
    with pytest.raises(ModelError, match=told) as caught:
        evaluate(data, [Broken(how)], options=QUICK)
    assert "broken" in str(caught.value)
    if how in ("nan", "zero"):
        assert data.corpus["d01c3"].text in str(caught.value)


def test_an_api_that_fails_midway_keeps_what_was_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        options = EvaluateOptions(timed_queries=0)
        table = evaluate(dataset(12), ["bm25", "openai:text-embedding-3-small"], options=options).to_markdown()
        assert (
            "| docs/s | API tokens | US$ |" in table
            and "API tokens" not in evaluate(dataset(12), ["bm25"]).to_markdown()
        )
        asked, well = server.count("/v1/embeddings"), server._next_fault
        late = lambda: Fault("quota") if server.count("/v1/embeddings") > asked + 2 else well()  # noqa: E731
        monkeypatch.setattr(server, "_next_fault", late)
        with pytest.raises(EndpointError):
            evaluate(dataset(240), ["openai:text-embedding-3-small"], options=options)
        monkeypatch.setattr(server, "_next_fault", well)
        before = sum(len(each.body["input"]) for each in server.asked)
        row = evaluate(dataset(240), ["openai:text-embedding-3-small"], options=options).rows[0]
        after = sum(len(each.body["input"]) for each in server.asked) - before
        assert after <= 960 + 320 - 48 - 256, "a batch that was answered before the failure is not asked for again"
        assert row.costs.api_tokens and row.costs.money == pytest.approx(row.costs.api_tokens * 0.02e-6, abs=1e-6)
        assert row.costs.documents_per_second is None


@pytest.mark.parametrize(
    "name", ["hybrid:bm25", "hybrid:", "m@int4", "m@256@128", "hybrid:m@int8", "", "BM25", "hybrid:bm52", "./nosuch"]
)
def test_a_name_that_means_nothing_fails_before_any_work(data: RetrievalDataset, name: str) -> None:
    words = WordEmbedder()
    with pytest.raises(UsageError):
        evaluate(data, [words, name], options=QUICK)
    assert words.asked == 0


def test_more_dimensions_than_there_are(data: RetrievalDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectune.encoding.open_embedder", lambda name, settings, cache: WordEmbedder())
    with pytest.raises(ModelError, match="asks for 64 dimensions, but the model has 32"):
        evaluate(data, ["words@64"], options=QUICK)


@pytest.mark.parametrize(
    ("judged", "told"),
    [
        ({"nosuch": {"d00c0": 1}}, "query 'nosuch'"),
        ({"qd00c0": {"x": 1}}, "chunk 'x'"),
        ({"qd00c0": {}}, "no chunk"),
    ],
)
def test_judgments_of_what_there_is_not(data: RetrievalDataset, judged: Qrels, told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        evaluate(replace(data, qrels={"test": judged}), ["bm25"], options=QUICK)


def test_queries_without_judgments_are_counted() -> None:
    left = dataset()
    left.queries["unjudged"] = Query("who asked this?", id="unjudged")
    board = evaluate(left, ["bm25"], options=QUICK)
    assert any(note.startswith("1 query of the dataset without judgments") for note in board.notes)
    assert not any("judgments" in note for note in evaluate(dataset(), ["bm25"], options=QUICK).notes)


def test_two_models_of_one_name_are_two_rows(data: RetrievalDataset) -> None:
    same = WordEmbedder("same")
    board = evaluate(data, [same, WordEmbedder("same", noise=4.0), same], options=QUICK)
    assert [row.name for row in board.rows] == ["same", "same (2)"]
    assert board.rows[0].measures["nDCG@10"] > board.rows[1].measures["nDCG@10"]


def test_nothing_to_score(data: RetrievalDataset) -> None:
    with pytest.raises(UsageError, match="no model"):
        evaluate(data, [])
    with pytest.raises(DatasetError, match="nosuch"):
        evaluate(data, ["bm25"], split="nosuch")


def test_written_boards_read_back(board: Board, tmp_path: Path) -> None:
    board.write(tmp_path / "board.json")
    assert Board.read(tmp_path / "board.json") == board
    (tmp_path / "other.json").write_text("[]")
    for missing in ("other.json", "none.json"):
        with pytest.raises(InputError):
            Board.read(tmp_path / missing)
    with pytest.raises(UsageError, match=r"no row 'x' \(it has: bm25"):
        board.row("x")
    with pytest.raises(UsageError, match="no measure 'P@3'"):
        board.rows[0].values("P@3")


def test_csv_and_markdown(board: Board) -> None:
    head, first, *_ = board.to_csv().splitlines()
    assert head.startswith("model,nDCG@10,RR@10") and first.startswith(f"bm25,{board.rows[0].measures['nDCG@10']}")
    assert len(head.split(",")) == len(first.split(","))
    table = board.to_markdown()
    assert "| bm25 |" in table and "**" in table
    odd = replace(board, rows=(replace(board.rows[0], name="a|b<script>"),)).to_markdown()
    assert "a\\|b&lt;script>" in odd


@pytest.mark.parametrize(
    ("name", "value"), [("kept", 0), ("hybrid_step", 0), ("hybrid_step", 3.0), ("timed_queries", -5), ("depth", 0)]
)
def test_numbers_that_make_no_sense_are_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"evaluate\.{name}: .*: expected"):
        EvaluateOptions(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("dim", [3, 64, 100])
def test_bits_that_differ_are_counted_for_the_shortlist(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(dim)
    corpus, queries = rng.normal(size=(300, dim)).astype(np.float32), rng.normal(size=(4, dim)).astype(np.float32)
    ties = rng.permutation(300)
    index = Binary(corpus, ties)
    assert len(index) == 300 and index.index_bytes == 300 * -(-dim // 8)
    assert np.allclose(index[:] * np.sqrt(dim), np.where(corpus > 0, 1, -1))
    ranked = index.rank([""] * 4, queries, 10)
    for query, (chunks, _) in zip(queries, ranked, strict=True):
        differ = ((corpus > 0) != (query > 0)).sum(axis=1)
        short = np.lexsort((ties, differ))[:40]
        scores = (np.where(corpus[short] > 0, 1, -1) @ query.astype(np.float64)).astype(np.float32)
        assert chunks.tolist() == short[np.lexsort((ties[short], -scores.round(4)))][:10].tolist()
    monkeypatch.delattr(np, "bitwise_count", raising=False)  # as in NumPy 1
    assert [chunks.tolist() for chunks, _ in index.rank([""] * 4, queries, 10)] == [c.tolist() for c, _ in ranked]
