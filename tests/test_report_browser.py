"""The report in a real browser: it asks for nothing, shows no error, fits its window, and can be clicked through.

Skipped where there is no Chromium or no Playwright; ``.ci/run`` installs both.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from report_runs import CURVE, HOSTILE, make_run
from vectune.comparison import compare_boards, read_boards
from vectune.report import write_report
from vectune.report.compared import write_comparison
from vectune.runs import write_json
from vectune.verdict import VerdictOptions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine", allow_module_level=True)

SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"]  # fmt: skip
WINDOWS = [(1280, 800, "light"), (1280, 800, "dark"), (390, 844, "light"), (390, 844, "dark")]

# Text whose contrast with what is behind it is below 4.5, as [text, ratio]; hidden text does not count.
LOW_CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), low = [];
  let count = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility() || element.closest("script, style, noscript")) continue;
    const style = getComputedStyle(element), one = light(parts(element.closest("svg") ? style.fill : style.color));
    const other = light(behind(element));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    count += 1;
    if (ratio < 4.5) low.push([node.textContent.trim().slice(0, 40), ratio]);
  }
  return [count, low];
}"""
# Things to press that have no name
UNNAMED = """() => [...document.querySelectorAll('button, a, input, select, summary, [tabindex="0"]')]
  .filter((e) => e.checkVisibility() && !(e.getAttribute('aria-label') || e.innerText || (e.labels && e.labels.length)))
  .map((e) => e.outerHTML.slice(0, 80))"""
WIDE = """() => [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility()
  && !e.closest('.hear, .skip, svg, .stack thead')
  && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield running
        running.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("browser") / "run", queries=80)
    write_json(run / "curve.json", CURVE)
    return write_report(run)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with fewer queries: axe-core takes seconds over a long page."""
    run = make_run(tmp_path_factory.mktemp("browser") / "run", queries=16)
    write_json(run / "curve.json", CURVE)
    return write_report(run)


class Opened:
    """A page with all that it asked for and complained about."""

    def __init__(self, browser: Any, report: Path, width: int, height: int, scheme: str, **more: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(report.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    with Opened(browser, report, 1280, 800, "light") as one:
        yield one
        assert one.complaints == []


@pytest.mark.parametrize(("width", "height", "scheme"), WINDOWS)
def test_it_opens_alone_fits_its_window_and_can_be_read(
    browser: Any, report: Path, width: int, height: int, scheme: str
) -> None:
    with Opened(browser, report, width, height, scheme) as one:
        page = one.page
        page.screenshot(path=report.with_name(f"{width}-{scheme}.png"), full_page=True)
        assert one.requests == [report.as_uri()] and one.complaints == []
        assert page.evaluate("document.documentElement.scrollWidth") == width and page.evaluate(WIDE) == []
        count, low = page.evaluate(LOW_CONTRAST)
        assert count > 300 and low == []
        assert page.evaluate(UNNAMED) == []
        assert page.evaluate("window.broken") is None
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 23)"
        assert dark == (scheme == "dark")


def violations(page: Any) -> list[tuple[str, str]]:
    """What axe-core finds against WCAG 2.2, levels A and AA: rule and element."""
    from axe_playwright_python.sync_playwright import Axe

    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    found = Axe().run(page, options=rules).response
    assert len(found["passes"]) > 10
    return [(each["id"], node["html"][:120]) for each in found["violations"] for node in each["nodes"]]


@pytest.mark.parametrize(("width", "height", "scheme"), WINDOWS)
def test_axe_finds_nothing_with_all_unfolded_and_with_a_query_open(
    browser: Any, small: Path, width: int, height: int, scheme: str
) -> None:
    with Opened(browser, small, width, height, scheme) as one:
        one.page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        assert violations(one.page) == []
        if (width, scheme) in {(1280, "light"), (390, "dark")}:  # the dialog's colours are those of the page
            one.page.locator("#list button").first.click()
            assert violations(one.page) == []


def test_axe_does_find_what_is_wrong(opened: Opened) -> None:
    opened.page.evaluate(
        "document.querySelector('#find').closest('label').replaceWith(document.querySelector('#find'))"
    )
    assert "label" in {rule for rule, _ in violations(opened.page)}


def test_the_list_of_queries_and_the_regressions_work_from_the_keyboard(opened: Opened) -> None:
    page = opened.page
    page.locator("#list button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#card").is_visible()
    assert page.evaluate("document.activeElement.id") == "card-close"
    for _ in range(8):  # the rankings scroll with the dialog, and the focus stays in it
        page.keyboard.press("Tab")
        assert page.evaluate("!document.activeElement.closest('main')")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement === document.querySelectorAll('#list button')[1]")
    summary = page.locator(".cases summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator(".cases .ranking").first.is_visible()


def test_the_first_screen_holds_verdict_board_and_gains(opened: Opened) -> None:
    bottoms = {name: opened.page.locator(name).bounding_box() for name in ("h1", "table.board", "table.gains")}
    assert all(box and box["y"] + box["height"] <= 800 for box in bottoms.values()), bottoms


def test_pointing_at_a_dot_shows_its_query_and_a_click_both_rankings(opened: Opened) -> None:
    page, data = opened.page, json.loads(opened.page.locator("#data-queries").text_content())
    text = data["queries"][0][0]
    dot = page.locator(".dots circle").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("#scatter-text").inner_text().endswith(text[:240].rstrip())
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("#card-title").inner_text() == text
    for name, hits in (("#card-base", data["queries"][0][5]), ("#card-tuned", data["queries"][0][6])):
        places = page.locator(f"{name} li small").all_inner_texts()
        assert places == [data["chunks"][number][0] for number in hits] and len(places) == 10
    page.get_by_role("button", name="Next query").click()
    assert page.locator("#card-title").inner_text() == data["queries"][1][0]
    page.keyboard.press("Escape")
    assert not page.locator("#card").is_visible()


def test_all_of_it_works_from_the_keyboard(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    while page.evaluate("document.activeElement.id") != "scatter":
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement !== document.body")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    first = page.locator("#scatter-text").inner_text()
    seen = {first}
    for key in ("ArrowLeft", "ArrowDown", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
        seen.add(page.locator("#scatter-text").inner_text())
    assert len(seen) > 2 and all("→" in text for text in seen)
    page.keyboard.press("Enter")
    assert page.locator("#card").is_visible()
    assert page.locator("#card-title").inner_text() in page.locator("#scatter-text").inner_text()
    before = page.locator("#card-title").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#card-title").inner_text() != before
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "scatter"


def test_hostile_text_is_shown_as_text(opened: Opened) -> None:
    page = opened.page
    for text in HOSTILE[:4]:
        page.locator("#find").fill(text)
        page.locator("#list button").first.click()
        assert page.locator("#card-title").inner_text() == text
        assert page.locator("#card-title *").count() == 0
        page.keyboard.press("Escape")
    page.locator("#find").fill("x" * 900)
    page.locator("#list button").first.click()
    assert page.locator("#card-title").inner_text().endswith("… (5,000 characters)")
    assert page.evaluate("document.getElementById('card').scrollWidth <= document.getElementById('card').clientWidth")
    page.locator("#card-close").click()
    arabic = HOSTILE[4]
    page.locator("#find").fill(arabic)
    page.locator("#list button").first.click()
    assert page.evaluate("getComputedStyle(document.getElementById('card-title')).direction") == "rtl"
    assert page.evaluate("window.broken") is None


def test_the_list_is_searched_and_filtered(opened: Opened) -> None:
    page = opened.page
    assert page.locator("#list li").count() == 12
    page.locator("#more").click()
    assert page.locator("#list li").count() == 24
    page.locator("#which").select_option("down")
    assert set(page.locator("#list .number").evaluate_all("all => all.map(e => e.textContent[0])")) == {"−"}
    page.locator("#which").select_option("all")
    page.locator("#find").fill("CLOCK not")
    shown = page.locator("#list .text").all_inner_texts()
    assert shown and all("clock" in text and "not" in text for text in shown)
    page.locator("#find").fill("no such words anywhere")
    assert page.locator("#found").inner_text().startswith("0 queries")


def test_a_regression_opens_with_both_rankings(opened: Opened) -> None:
    case = opened.page.locator(".cases details").first
    case.locator("summary").click()
    assert case.locator(".ranking").count() == 2 and case.locator(".ranking").last.is_visible()
    assert case.locator(".ranking ol").first.locator("li").count() == 5


def test_the_theme_is_chosen_and_kept(opened: Opened) -> None:
    page, colour = opened.page, "getComputedStyle(document.body).backgroundColor"
    button = page.get_by_role("button", name="Theme")
    button.click()
    assert button.inner_text() == "Theme: light"
    button.click()
    assert button.inner_text() == "Theme: dark" and page.evaluate(colour) == "rgb(19, 21, 23)"
    page.reload()
    assert page.evaluate(colour) == "rgb(19, 21, 23)"


def test_the_page_may_not_send_anything(browser: Any, report: Path) -> None:
    asked: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with Opened(browser, report, 1280, 800, "light") as one:
            leak = """async (address) => {
              const image = new Image(); image.src = address + 'image';
              const script = document.createElement('script');
              script.textContent = 'window.broken = true';
              document.body.append(script);
              const frame = `<iframe src="${address}frame"></iframe><link rel="stylesheet" href="${address}style">`;
              document.body.insertAdjacentHTML('beforeend', frame);
              return fetch(address).then(() => 'sent', () => 'refused');
            }"""
            assert one.page.evaluate(leak, address) == "refused"
            one.page.wait_for_timeout(200)
            assert one.page.evaluate("window.broken") is None
        server.shutdown()
    assert asked == []


def test_paper_is_light_and_shows_what_is_folded(browser: Any, report: Path) -> None:
    with Opened(browser, report, 1280, 800, "dark") as one:
        page = one.page
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert page.locator("section:not(#regressions) details:not([open])").count() == 0
        assert page.locator(".cases details[open]").count() == 3
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not page.locator("#explorer").is_visible() and not page.locator("#theme").is_visible()
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() > 5
        assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize(("width", "height", "scheme"), [WINDOWS[0], WINDOWS[3]])
def test_runs_side_by_side_fit_the_window(browser: Any, tmp_path: Path, width: int, height: int, scheme: str) -> None:
    runs = [make_run(tmp_path / "a", queries=20), make_run(tmp_path / ("long-name-" * 8), queries=20)]
    compared = compare_boards(read_boards(runs), options=VerdictOptions(draws=200))
    with Opened(browser, write_comparison(compared, tmp_path / "compare.html"), width, height, scheme) as one:
        assert one.page.evaluate("document.documentElement.scrollWidth") == width and one.page.evaluate(WIDE) == []
        assert violations(one.page) == []
        assert one.page.evaluate(LOW_CONTRAST)[1] == [] and len(one.requests) == 1 and one.complaints == []


def test_without_scripts_board_and_regressions_are_there(browser: Any, report: Path) -> None:
    with Opened(browser, report, 1280, 800, "light", java_script_enabled=False) as one:
        assert one.page.locator("table.board").is_visible() and one.page.locator(".dots circle").count() == 80
        assert one.page.locator("#explorer").is_hidden() and one.page.locator("#theme").is_hidden()
        one.page.locator(".cases summary").first.click()
        assert one.page.locator(".cases .ranking").first.is_visible()
