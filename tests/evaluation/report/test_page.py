"""The report in a real browser: it opens without a network, and can be searched, sorted and walked by keyboard."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.report.made_report import (
    made_dialogues,
    made_evaluation,
    made_systems,
    personachat_sized,
    with_gold,
)

from personalign.data.dialogue import Dialogue, Turn
from personalign.evaluation.answers import Answers, Reply
from personalign.evaluation.evaluate import Settings, evaluate
from personalign.evaluation.metrics import find_metrics
from personalign.evaluation.predictions import questions_of
from personalign.evaluation.report.cases import cases_of
from personalign.evaluation.report.charts import Bar, Line, bar_chart, line_chart
from personalign.evaluation.report.differences import differences_section
from personalign.evaluation.report.page import Report, Section, page

VOID = {"meta", "input", "br", "line", "polyline", "circle", "link"}
LONG_NAME = "self_contradiction_of_an_earlier/dialogue@char"


def made_page(
    systems: dict[str, list[Answers]] | None = None, *, judged: bool = True, reference: str | None = None
) -> str:
    systems = systems or made_systems()
    found = made_evaluation(systems, reference=reference)
    first_seeds = {name: seeds[0] for name, seeds in systems.items()}
    dialogues = {dialogue.id: dialogue for dialogue in made_dialogues()}
    cases = cases_of(first_seeds, dialogues, judged=judged, reference=reference)
    curve = line_chart(
        [Line("chosen", [(0, 0.0), (5, 0.0025)]), Line("rejected", [(0, 0.0), (50000, -0.0125)])],
        title="rewards",
        x="update",
        y="nats x beta",
    )
    bars = bar_chart([Bar(LONG_NAME, 0.4, 0.3, 0.5, note="*** better"), Bar("b", -0.1)], title="recall")
    sections = [
        Section("Training", [curve]),
        Section("Selection strategies", [bars]),
        differences_section(found),
    ]
    return page(Report("A <report>", found, cases, sections, [("judge", "by word")]))


def offered(text: str, name: str) -> list[str]:
    """The values of a select of the page."""
    (options,) = re.findall(rf'<select id="{name}">(.*?)</select>', text)
    return re.findall(r'<option value="(\w+)">', options)


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


def test_the_reference_is_a_row_set_apart() -> None:
    text = made_page(with_gold(made_systems()), reference="gold")
    rows = re.findall(r'<tr class="reference"><th scope="row">(\w+)</th>(.*?)</tr>', text)
    # One in each family's table; neither best nor second in any.
    assert [name for name, _ in rows] == ["gold"] * text.count('<th scope="col">system</th>')
    assert not [cells for _, cells in rows if "best" in cells or "second" in cells]
    assert "<em>gold</em>: for orientation" in text
    assert 'class="reference"' not in made_page()


def test_only_what_the_cases_can_answer_is_offered() -> None:
    text = made_page()
    assert offered(text, "sort") == ["apart", "contradicted", "given"]
    assert offered(text, "filter") == ["all", "line", "none", "contradicted", "lines"]
    unjudged = made_page(judged=False)
    assert offered(unjudged, "sort") == ["apart", "given"]
    assert offered(unjudged, "filter") == ["all", "line", "none", "lines"]
    liar = made_systems()["liar & co_1"][0]
    bare = dataclasses.replace(
        liar, questions=[dataclasses.replace(question, relevant=None) for question in liar.questions]
    )
    plain = made_page({"dull": [bare], "gold": [bare]}, reference="gold")
    assert offered(plain, "sort") == ["contradicted", "given"]
    assert offered(plain, "filter") == ["all", "contradicted"]


def test_it_is_said_whose_replies_of_several_seeds_are_shown() -> None:
    systems = made_systems()
    remark = "The replies are those of the first seed"
    assert remark in made_page({**systems, "good": [*systems["good"], *systems["dull"]]})
    assert remark not in made_page(systems)


def test_only_the_title_of_a_case_is_announced() -> None:
    announced = re.findall(r"<(\w+)[^>]* aria-live=\"polite\"", made_page())
    assert announced == ["p"]


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
def test_a_case_is_found_by_what_was_said_up_to_its_turn(browser: Any, tmp_path: Path) -> None:
    """And every text is prepared once, however many turns of its dialogue come after it."""
    count = 120
    turns = [
        Turn(role, f"{role} Says word{number} . " + "and so on " * 10)  # type: ignore[arg-type]
        for number in range(count)
        for role in ("user", "assistant")
    ]
    long = Dialogue("long", ("i keep Bees .",), tuple(turns))
    questions = questions_of([long])
    replies = [Reply(f"Reply{number} .") for number in range(count)]
    answers = {"one": Answers(questions, replies)}
    found = evaluate(
        {"one": [answers["one"]]}, metrics=find_metrics(["length"]), settings=Settings(samples=100)
    )
    text = page(Report("Long", found, cases_of(answers, {"long": long}, judged=False)))
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    tab = browser.new_page()
    tab.add_init_script(
        """window.lowered = 0;
        const lower = String.prototype.toLowerCase;
        String.prototype.toLowerCase = function () { window.lowered += this.length; return lower.call(this); };"""
    )
    tab.goto((tmp_path / "report.html").as_uri())
    for words, shown in (
        ("user says word100", 20), ("WORD7", 113), ("word119", 1), ("reply5", 11), ("bees", 120), ("long", 120),
        ("word118 reply119", 1), ("word119 reply3", 0), ("assistant word0", 120),
    ):  # fmt: skip
        tab.fill("#search", words)
        tab.wait_for_function(
            "(text) => document.getElementById('count').textContent === text", arg=f"{shown} of 120 turns"
        )
    size = sum(len(turn.content) for turn in turns) + sum(len(reply.text) for reply in replies)
    assert tab.evaluate("window.lowered") < 1.1 * size
    tab.close()


@pytest.mark.browser
def test_sorting_and_filtering(opened: Any) -> None:
    assert "message 1" in opened.inner_text(".row[aria-selected=true]")
    opened.select_option("#sort", "given")
    assert opened.locator(".row .soft span:first-child").all_inner_texts()[:2] == [
        "d0, message 1",
        "d0, message 3",
    ]
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
        assert opened.inner_text("#announced") == opened.inner_text("#case h3")
    opened.keyboard.press("Enter")
    assert opened.evaluate("document.activeElement.tagName") == "H3"


@pytest.mark.browser
def test_screen_readers_find_options_alone_and_the_active_one_always(opened: Any) -> None:
    opened.evaluate("document.getElementById('list').scrollTop = 1e6")
    opened.wait_for_selector("#case-23")
    opened.wait_for_function("() => document.getElementById('case-1') === null")
    assert opened.get_attribute("#list", "aria-activedescendant") == "case-0"
    assert opened.get_attribute("#case-0", "aria-selected") == "true"
    roles = opened.evaluate(
        "[...document.getElementById('list').children].map((row) => row.getAttribute('role'))"
    )
    assert set(roles) == {"option", "presentation"}


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
@pytest.mark.parametrize("width", [400, 1400])
def test_no_text_of_a_chart_is_cut(opened: Any, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    # Text of a drawing within the drawing; names and figures of bars within the card.
    outside = opened.evaluate(
        """() => {
            const cut = [];
            const within = (inner, outer) => inner.left >= outer.left - 0.5 && inner.right <= outer.right + 0.5 &&
                inner.top >= outer.top - 0.5 && inner.bottom <= outer.bottom + 0.5;
            for (const figure of document.querySelectorAll("figure.chart")) {
                const drawing = figure.querySelector("svg[role=img]");
                for (const text of figure.querySelectorAll("svg[role=img] text, .bars .name, .bars .figure")) {
                    const bars = text.closest(".bars");
                    const whole = within(text.getBoundingClientRect(), (bars ? figure : drawing).getBoundingClientRect());
                    if (!whole || (bars && text.scrollWidth > text.clientWidth)) cut.push(text.textContent);
                }
            }
            return cut;
        }"""
    )
    assert outside == []
    assert opened.locator(".bars .name").first.inner_text() == LONG_NAME


@pytest.mark.browser
def test_7801_turns_of_ten_systems_do_not_lag(browser: Any, tmp_path: Path) -> None:
    dialogues, systems = personachat_sized(10)
    found = evaluate(systems, metrics=find_metrics(["length"]), settings=Settings(samples=100))
    first_seeds = {name: seeds[0] for name, seeds in systems.items()}
    cases = cases_of(first_seeds, {dialogue.id: dialogue for dialogue in dialogues}, judged=True)
    path = tmp_path / "report.html"
    path.write_text(page(Report("Large", found, cases)), encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    tab.goto(path.as_uri())
    assert tab.inner_text("#count") == "7,801 of 7,801 turns"
    assert tab.locator(".row").count() < 60
    took = tab.evaluate(
        """() => {
            const list = document.getElementById("list"), times = {};
            function timed(what, act) {
                const start = performance.now();
                act();
                document.body.getBoundingClientRect();
                times[what] = Math.max(times[what] || 0, performance.now() - start);
            }
            for (const word of ["bees", "test-12", "ab cd", "no such word", ""]) {
                timed("search", () => {
                    document.getElementById("search").value = word;
                    document.getElementById("sort").dispatchEvent(new Event("change"));
                });
            }
            for (const key of ["ArrowDown", "End", "PageUp", "Home", "PageDown"]) {
                timed("key", () => list.dispatchEvent(new KeyboardEvent("keydown", { key })));
            }
            return times;
        }"""
    )
    # Measured on two cores: 15 to 32 ms for a search, 11 to 16 for a key.
    assert took["search"] < 200
    assert took["key"] < 200
    tab.close()
