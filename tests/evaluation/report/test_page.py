"""The report in a real browser: it opens without a network, and can be searched, sorted and walked by keyboard."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.report.made_report import made_dialogues, made_evaluation, made_systems

from personalign.evaluation.report.cases import cases_of
from personalign.evaluation.report.charts import Bar, Line, bar_chart, line_chart
from personalign.evaluation.report.page import Report, Section, families, page

VOID = {"meta", "input", "br", "line", "rect", "polyline", "circle", "link"}


def made_page(count: int = 12) -> str:
    systems = made_systems(count)
    found = made_evaluation(systems)
    dialogues = {dialogue.id: dialogue for dialogue in made_dialogues(count)}
    cases = cases_of({name: seeds[0] for name, seeds in systems.items()}, dialogues, judged=True)
    curve = line_chart(
        [Line("chosen", [(0, 0.0), (5, 1.0)]), Line("rejected", [(0, 0.0), (5, -1.0)])],
        title="rewards",
        x="update",
        y="",
    )
    sections = [
        Section("Training", [curve]),
        Section("Selection strategies", [bar_chart([Bar("PAL", 0.4, 0.3, 0.5)], title="recall")]),
    ]
    return page(Report("A <report>", found, cases, sections, [("judge", "by word")]))


class Checker(HTMLParser):
    """Tags that close in order, unique ids, and every address that the page names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.targets.append(value or "")
            if name in ("src", "href", "action", "data"):
                self.addresses.append(value or "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_names_nothing_outside_itself() -> None:
    checker = Checker()
    checker.feed(made_page())
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    assert checker.addresses == checker.targets
    assert all(target.startswith("#") and target[1:] in checker.ids for target in checker.targets)
    assert "http" not in re.sub(r"https?-equiv|http-equiv", "", made_page())


def test_texts_of_the_data_cannot_break_out() -> None:
    text = made_page()
    assert "<script>alert" not in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data)["dialogues"][0]["messages"][2][1] == "</script><script>alert(1)</script>"
    assert "<h1>A &lt;report&gt;</h1>" in text


def test_metrics_are_shown_by_family() -> None:
    found = families(
        ["bleu-1/coco", "c_score/max", "hits@1", "distinct-2/corpus@char", "length/tokens", "p_co/past"]
    )
    assert list(found) == [
        "Consistency with the persona",
        "Overlap with the gold reply",
        "Likelihood and ranking",
        "Diversity",
        "The person's past",
    ]


# In a browser ----------------------------------------------------------------------------------------------

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium or Chrome on the PATH, and there is none")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The page; whatever it logs or asks for outside itself fails the test at the end."""
    path = tmp_path / "report.html"
    path.write_text(made_page(), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    logged: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: logged.append(message.text))
    tab.on("pageerror", lambda error: logged.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    yield tab
    tab.close()
    assert logged == []
    assert asked == [path.as_uri()]


@pytest.mark.browser
def test_search_narrows_the_list_and_says_how_far(opened: Any) -> None:
    assert opened.inner_text("#count") == "24 of 24 turns"
    opened.fill("#search", "PETS 7 bees")
    opened.wait_for_function("() => document.getElementById('count').textContent === '2 of 24 turns'")
    opened.fill("#search", "no such words")
    opened.wait_for_function("() => document.getElementById('count').textContent === '0 of 24 turns'")
    assert opened.inner_text("#case") == "No turn fits."


@pytest.mark.browser
def test_sorting_and_filtering(opened: Any) -> None:
    assert "message 1" in opened.inner_text(".row[aria-selected=true]")
    opened.select_option("#sort", "given")
    assert [
        row.split("·")[0].strip() for row in opened.locator(".row .soft span:first-child").all_inner_texts()
    ][:2] == ["d0", "d0"]
    opened.select_option("#filter", "none")
    assert opened.inner_text("#count") == "12 of 24 turns"
    opened.select_option("#filter", "contradicted")
    assert opened.inner_text("#count") == "12 of 24 turns"
    opened.select_option("#filter", "lines")
    assert opened.inner_text("#count") == "0 of 24 turns"


@pytest.mark.browser
def test_a_case_shows_dialogue_persona_replies_lines_and_verdicts(opened: Any) -> None:
    opened.fill("#search", "pets 7")
    opened.select_option("#sort", "given")
    opened.wait_for_function("() => document.getElementById('count').textContent === '2 of 24 turns'")
    text = opened.inner_text("#case")
    assert "i <b>run</b> & swim ." in text
    assert "any pets 7 ?" in text
    assert "gold: 7 bees ." in text
    rows = opened.locator("table.replies tbody tr")
    assert rows.count() == 3
    assert rows.nth(0).locator(".verdict.e").count() == 1
    assert rows.nth(1).locator(".verdict.c").count() == 2
    assert rows.nth(1).locator("td").nth(1).inner_text() == ""
    assert rows.nth(0).locator("td").nth(1).inner_text() == "0"
    assert rows.nth(0).locator(".verdict").nth(0).get_attribute("title") == "line 0 is entailed"


@pytest.mark.browser
def test_the_keyboard_walks_the_list(opened: Any) -> None:
    opened.focus("#list")
    for key, place in (
        ("ArrowDown", 1),
        ("ArrowDown", 2),
        ("ArrowUp", 1),
        ("End", 23),
        ("ArrowDown", 23),
        ("Home", 0),
    ):
        opened.keyboard.press(key)
        assert opened.get_attribute("#list", "aria-activedescendant") == f"case-{place}"
        assert opened.get_attribute(f"#case-{place}", "aria-selected") == "true"
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.tagName") == "H3"


@pytest.mark.browser
def test_the_theme_turns_and_follows_the_system(opened: Any) -> None:
    def back() -> str:
        colour: str = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    opened.emulate_media(color_scheme="light")
    light = back()
    opened.emulate_media(color_scheme="dark")
    dark = back()
    assert light != dark
    opened.click("#theme")
    assert opened.inner_text("#theme") == "Theme: light"
    assert back() == light
    opened.click("#theme")
    assert back() == dark
    opened.click("#theme")
    assert opened.inner_text("#theme") == "Theme: auto"


@pytest.mark.browser
def test_a_phone_has_no_sideways_scroll(opened: Any) -> None:
    opened.set_viewport_size({"width": 400, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.browser
def test_7500_turns_do_not_lag(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(made_page(3750), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    tab.goto(path.as_uri())
    assert tab.inner_text("#count") == "7,500 of 7,500 turns"
    assert tab.locator(".row").count() < 60
    took = tab.evaluate(
        """() => {
            const times = [];
            for (const word of ["bees", "pets 12", "weather", ""]) {
                const start = performance.now();
                document.getElementById("search").value = word;
                document.getElementById("sort").dispatchEvent(new Event("change"));
                times.push(performance.now() - start);
            }
            return Math.max(...times);
        }"""
    )
    # A search with sorting and drawing, on a busy machine too; a person notices from 100 ms on.
    assert took < 1000
    tab.close()
