"""The report as a file: what is in it, what may be missing, and that no text of a document becomes mark-up."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from report_runs import CURVE, HOSTILE, make_dataset, make_run
from vectune.errors import InputError
from vectune.report import write_report
from vectune.report.changes import Change, cut, payload, rank_label, rank_labels, script_json
from vectune.report.charts import axis, scatter, smoothed, thinned
from vectune.report.curves import curves_part
from vectune.report.learning import _fit
from vectune.report.material import read_material
from vectune.report.render import TEMPLATES, chance_text, count_text, gain_text, measure_text, seconds_text
from vectune.report.scores import read_scores
from vectune.runs import Json, write_json
from vectune.training import folders, saving
from vectune.training.options import TuneOptions
from vectune.training.result import TuneResult

# A busy machine is slow, which says nothing about the code.
PATIENT = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Page(HTMLParser):
    """Elements with their attributes, and the text of scripts and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("report") / "run")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_the_report_is_one_file_that_names_no_other(run: Path, page: Page) -> None:
    assert (run / "report.html").stat().st_size < 3_000_000
    named = [value for _, found in page.elements for key, value in found.items() if key in ("src", "href", "srcset")]
    assert named and all(value and value.startswith(("#", "data:image/svg+xml,")) for value in named)
    assert "@import" not in (TEMPLATES / "page.css").read_text() and "url(" not in (TEMPLATES / "page.css").read_text()
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta) or ""
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-") and "unsafe" not in policy


def test_it_only_reads_the_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", queries=20)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert write_report(folder) == folder / "report.html"
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path for path in after if path not in before} == {folder / "report.html"}
    assert {path: after[path] for path in before} == before


def test_the_same_run_gives_the_same_bytes(run: Path) -> None:
    first = (run / "report.html").read_bytes()
    assert write_report(run).read_bytes() == first


def test_hostile_text_stays_text(run: Path, page: Page) -> None:
    assert len(page.scripts) == 2 and not page.all("img") and not page.all("i")
    assert [meta for tag, meta in page.elements if any(key.startswith("on") or key == "style" for key in meta)] == []
    given = json.loads(page.scripts[0])
    texts = {query[0] for query in given["queries"]}
    assert {cut(text, 1000) for text in HOSTILE} <= texts
    whole = (run / "report.html").read_text(encoding="utf-8")
    assert "{{7*7}}" in whole and "hybrid:&lt;i&gt;all&lt;/i&gt;-MiniLM-L6-v2" in whole
    assert "x" * 5000 not in whole and "… (5,000 characters)" in whole


def test_the_payload_holds_both_rankings_of_every_query(run: Path, page: Page) -> None:
    given, board = json.loads(page.scripts[0]), json.loads((run / "board.json").read_text())
    rows = {row["name"]: row for row in board["rows"]}
    dataset = make_dataset(160)
    ids = {cut(query.text, 1000): query.id for query in dataset.queries.values()}
    assert len(given["queries"]) == 160
    text, before, after, rank_before, rank_after, base, tuned, right = given["queries"][0]
    for figure, rank, hits, name in (
        (before, rank_before, base, "all-MiniLM-L6-v2"),
        (after, rank_after, tuned, str(run / "model")),
    ):
        assert figure == round(rows[name]["per_query"][ids[text]]["nDCG@10"], 4)
        assert rank == rows[name]["ranks"][ids[text]]
        shown = [given["chunks"][number][2] for number in hits]
        assert shown == [cut(dataset.corpus[chunk].text, 600) for chunk, _ in rows[name]["rankings"][ids[text]]]
    assert [given["chunks"][number][2] for number in right] == [
        cut(dataset.corpus[chunk].text, 600) for chunk in dataset.qrels["test"][ids[text]]
    ]


def test_titles_say_generated_queries_where_they_are(run: Path, page: Page, tmp_path: Path) -> None:
    text = "".join(page.text)
    assert "160 generated queries" in text and text.count("generated queries") >= 7 and "given queries" not in text
    folder = make_run(tmp_path / "run", queries=20)
    board = json.loads((folder / "board.json").read_text())
    write_json(folder / "board.json", board | {"generated": False})
    shown = "".join(Page(write_report(folder).read_text(encoding="utf-8")).text)
    assert "20 given queries" in shown and "generated queries" not in shown


def test_the_verdict_is_the_heading(run: Path, page: Page) -> None:
    verdict = json.loads((run / "verdict.json").read_text())
    text = re.sub(r"\s+", " ", "".join(page.text))
    assert verdict["sentence"].replace(" -.", " −.") in text
    assert len(page.all("h1")) == 1 and str(run) not in text.split("How it was made")[0]


def test_a_large_run_stays_under_three_megabytes_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", queries=10_000, judged=False, lengthen="時計を合わせる <b>&amp; " * 20)
    report = write_report(folder)
    assert report.stat().st_size < 3_000_000
    shown = Page(report.read_text(encoding="utf-8"))
    count = len(json.loads(shown.scripts[0])["queries"])
    assert 1000 <= count < 10_000 and f"Shown are {count:,} of 10,000" in "".join(shown.text)
    ranks = [int(text.replace(",", "")) for text in re.findall(r'<td class="number">([\d,]+)</td><td class="number">',
             report.read_text(encoding="utf-8").split('class="ranks"')[1].split("</table>")[0])]  # fmt: skip
    assert sum(ranks) == 10_000  # the distribution is of all queries


# What may be missing


def test_a_run_whose_queries_were_not_timed_has_a_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    board = json.loads((folder / "board.json").read_text(encoding="utf-8"))
    assert any(row["costs"]["query_ms"] for row in board["rows"])
    for row in board["rows"]:
        row["costs"]["query_ms"] = None
    (folder / "board.json").write_text(json.dumps(board), encoding="utf-8")
    write_report(folder)
    assert '<td role="cell" class="number" data-label="median">–</td>' in (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    "gone", ["run.json", "verdict.json", "events.jsonl", "model/vectune.json", "dataset", "board.json", "stages"]
)
def test_a_part_is_left_out_where_its_file_is_missing(tmp_path: Path, gone: str) -> None:
    from vectune.runs import remove

    folder = make_run(tmp_path / "run", queries=20)
    remove(folder / gone)
    shown = Page(write_report(folder).read_text(encoding="utf-8"))
    ids = {found["id"] for _, found in shown.elements if "id" in found}
    lost = {"events.jsonl": {"training"}, "dataset": {"data"}, "board.json": {"board", "queries", "ranks"}}.get(
        gone, set()
    )
    assert not lost & ids and ({"board", "queries", "training", "data", "costs", "made"} - lost) <= ids
    links = {str(link["href"])[1:] for link in shown.all("a")}
    assert links <= ids


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize(("kept", "looks", "last_loss"), [(0, 3, 1.03), (1, 4, 0.5)])
def test_the_curves_are_those_of_the_training_that_was_kept(
    tmp_path: Path, kept: int, looks: int, last_loss: float, tail: bool
) -> None:
    """``auto`` tries two; the first was killed after step 2 and went on from step 1."""
    values = [{0: 0.4, 1: 0.51, 3: 0.62}, {0: 0.4, 1: 0.45, 2: 0.55, 4: 0.6}]
    steps = [(0, 1), (0, 2), (0, 0), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]
    events: list[Json] = []
    for training, step in [(0, 0), *steps]:
        if step:
            loss = 1 + step / 100 if training == 0 else 2 / step
            events.append({"kind": "train", "step": step, "loss": loss})
        if step in values[training]:
            events.append({"kind": "dev", "step": step, "value": values[training][step]})
    run = make_run(tmp_path / "run")
    (run / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    curve = [[step, value] for step, value in values[kept].items() if step]
    result = TuneResult(run / "model", "lora", "base", "f", 0.4, 0.6, {"curve": curve})
    marker = folders.marker("blend", result) if tail else saving._marker(result, TuneOptions())
    write_json(run / "model" / "vectune.json", marker)
    loss_drawn, dev_drawn = curves_part(read_material(run))
    assert (loss_drawn["last"], dev_drawn["count"]) == (pytest.approx(last_loss), looks)
    assert dev_drawn["last"] == values[kept][max(values[kept])]


def test_the_learning_curve_is_drawn_with_its_answer(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", queries=20)
    assert "Would more queries or documents help?" in write_report(run).read_text(encoding="utf-8")
    write_json(run / "curve.json", CURVE)
    text = write_report(run).read_text(encoding="utf-8")
    assert "More documents would pay: twice as many" in text and 'href="#learning"' in text
    assert "Would more queries or documents help?" not in text
    assert [text.count(f'class="mark {kind}"') for kind in ("queries", "documents")] == [3, 3]
    assert text.count('class="queries ahead"') == 1


def test_the_fit_goes_through_the_mean_and_ends_at_twice_the_data() -> None:
    points = [(5.0, 0.40), (6.0, 0.44), (7.0, 0.45)]
    start, end = _fit(points, 0.025)
    assert (start[0], end[0]) == (5.0, 8.0)
    assert start[1] == pytest.approx(0.43 - 0.025) and end[1] == pytest.approx(0.43 + 2 * 0.025)
    assert _fit(points, None) == [] and _fit(points[:1], 0.1) == []


def test_what_cannot_be_reported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"neither board.json nor dataset/"):
        write_report(tmp_path / "empty")
    folder = make_run(tmp_path / "run", queries=20)
    (folder / "run.json").write_text("{broken")
    with pytest.raises(InputError, match=r"run\.json: cannot be read as JSON"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_lone_surrogate_does_not_stop_the_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", queries=20)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"command": "vectune run \udcff.pdf"}))
    assert b"vectune run ?.pdf" in write_report(folder).read_bytes()


def test_an_interrupted_training_is_drawn_once(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", queries=20)
    steps = [(1, 3.0), (2, 2.0), (3, 9.0), (3, 1.5), (4, 1.0)]  # killed in step 3, gone on from step 2
    lines = [json.dumps({"kind": "train", "step": step, "loss": loss}) for step, loss in steps]
    (folder / "events.jsonl").write_text("\n".join(lines))
    assert "4 points, from 3.000 to 1.000" in write_report(folder).read_text(encoding="utf-8")


# Reading without eyes


def test_the_structure_can_be_read_aloud(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    ids = Counter(found["id"] for _, found in page.elements if "id" in found)
    assert max(ids.values()) == 1
    pointed = [
        found[key] for _, found in page.elements for key in ("aria-labelledby", "aria-describedby") if key in found
    ]
    assert all(name in ids for value in pointed for name in (value or "").split())
    assert len(page.all("table")) == len(page.all("caption")) > 5
    assert all("scope" in found for found in page.all("th"))
    assert page.all("html")[0]["lang"] == "en" and len(page.all("main")) == 1


def test_every_drawing_is_hidden_or_has_a_text(page: Page) -> None:
    drawings = [found for found in page.all("svg") if found.get("class") != "lines"]  # that one is within another
    assert len(drawings) > 10
    named = [found for found in drawings if found.get("aria-hidden") != "true"]
    assert len(named) == 3 and all(found["role"] == "img" and found["aria-label"] for found in named)


def themes() -> list[dict[str, str]]:
    blocks = re.findall(r"\{([^{}]*--paper:[^{}]*)\}", (TEMPLATES / "page.css").read_text())
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block)) for block in blocks]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_have_enough_contrast_in_every_theme() -> None:
    assert contrast("#000", "#fff") == 21
    assert len(themes()) == 4  # light, dark by the system, dark by choice, print
    assert themes()[1] == themes()[2]
    for theme in (themes()[0] | each for each in themes()):
        for ink in ("ink", "soft", "up", "down", "unsure", "focus"):
            assert contrast(theme[ink], theme["paper"]) >= 4.5, ink
        assert contrast(theme["same"], theme["paper"]) >= 3
        assert contrast(theme["up"], theme["up-soft"]) >= 4.5 and contrast(theme["soft"], theme["up-soft"]) >= 4.5


# Geometry and words


@PATIENT
@given(
    st.dictionaries(
        st.text(min_size=1),
        st.tuples(st.sampled_from(rank_labels(100)), st.sampled_from(rank_labels(100))),
        max_size=60,
    )
)
def test_every_dot_lies_in_its_cell(points: dict[str, tuple[str, str]]) -> None:
    drawn = scatter(points, rank_labels(100))
    bands = {band.label: band for band in drawn.bands}
    assert sum(band.width for band in drawn.bands) == pytest.approx(1000 if points else 0, abs=0.2)
    for query, (x, y) in points.items():
        across, up = drawn.dots[query]
        assert bands[x].start <= across <= bands[x].start + bands[x].width
        assert bands[y].start <= 1000 - up <= bands[y].start + bands[y].width


@PATIENT
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_an_axis_shows_every_value_between_its_ends(values: list[float]) -> None:
    made = axis(values, anchor=0.0)
    assert all(0 <= made.at(value) <= 100 for value in [*values, 0.0])
    assert all(0 <= made.at(tick) <= 100 for tick in made.ticks) and 1 <= len(made.ticks) <= 12
    assert len({made.text(tick) for tick in made.ticks}) == len(made.ticks)


def test_ticks_are_round() -> None:
    made = axis([0.013, 0.118], anchor=0.0)
    assert [made.text(tick) for tick in made.ticks] == ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10", "0.12"]
    assert [axis([1, 300], room=0).text(tick) for tick in axis([1, 300], room=0).ticks] == [
        "50", "100", "150", "200", "250", "300"
    ]  # fmt: skip


def test_ticks_of_what_is_counted_are_whole() -> None:
    assert axis([0, 3], room=0, whole=True).ticks == (0, 1, 2, 3)
    assert axis([1, 300], room=0, whole=True).ticks == axis([1, 300], room=0).ticks


def test_stages_stand_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", queries=20)
    for name in ("chunks", "documents"):  # as after copying
        os.utime(run / "stages" / f"{name}.json")
    assert list(read_material(run).stages) == ["chunks", "queries", "tune", "evaluate", "documents"]


@PATIENT
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=300), st.integers(1, 50))
def test_thinning_keeps_ends_in_range_and_smoothing_the_length(points: list[tuple[float, float]], most: int) -> None:
    thin = thinned(points, most)
    assert len(thin) == min(len(points), most)
    assert all(min(y for _, y in points) - 1e-9 <= y <= max(y for _, y in points) + 1e-9 for _, y in thin)
    assert len(smoothed([y for _, y in points])) == len(points)


def test_ranks_fall_into_their_categories() -> None:
    assert rank_labels(100) == [">100", "21–100", "11–20", *map(str, range(10, 0, -1))]
    assert rank_labels(10) == [">10", *map(str, range(10, 0, -1))]
    assert rank_labels(3) == [">3", "3", "2", "1"]
    found = [rank_label(rank, 100) for rank in (0, 1, 10, 11, 20, 21, 100, 101)]
    assert found == [">100", "1", "10", "11–20", "11–20", "21–100", "21–100", ">100"]
    assert all(rank_label(rank, depth) in rank_labels(depth) for depth in (1, 10, 15, 1000) for rank in range(1100))


json_values = st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.lists(inner), max_leaves=5)


@PATIENT
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_in_a_script_element_comes_back_and_holds_no_markup(value: dict[str, object]) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_figures_read_as_people_write_them() -> None:
    assert [measure_text(value) for value in (0.6244, 1.0, 0.0, None)] == [".624", "1.000", ".000", "–"]
    assert [gain_text(value) for value in (0.083, -0.0021, 0.0001, -1.0)] == ["+.083", "−.002", "±.000", "−1.000"]
    assert [count_text(value) for value in (1234567, -3, True, None, 0.5)] == ["1,234,567", "−3", "yes", "–", "0.5"]
    assert [seconds_text(value) for value in (0.42, 42.0, 300.0, 9000.0)] == ["0.4 s", "42 s", "5 min", "2.5 h"]
    assert [chance_text(value) for value in (0.00009, 0.0312, 1.0, None)] == ["p < .001", "p = .031", "p = 1.000", ""]


def test_a_hit_counts_as_right_however_many_chunks_are(tmp_path: Path) -> None:
    scores = read_scores(read_material(make_run(tmp_path / "run", queries=20)))
    assert scores is not None and scores.tuned is not None
    query, ranking = next((key, found) for key, found in scores.tuned.rankings.items() if found)
    hit = ranking[0][0]
    crowded = dict.fromkeys([f"other-{number}" for number in range(60)] + [hit], 1)
    change = Change(query, "where?", "", 0.1, 0.9, 0, 1)
    made = json.loads(payload(replace(scores, qrels={query: crowded}), [change], {}).text)
    [[*_, rankings, right]] = made["queries"]
    assert rankings[0] in right and len(right) == 50
