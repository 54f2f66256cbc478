import math
import re
import xml.etree.ElementTree as ElementTree
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.evaluation.report.charts import HEIGHT, LINES, WIDTH, Bar, Line, bar_chart, line_chart

NUMBERS = st.floats(-1e6, 1e6) | st.just(math.nan)


def points_of(figure: str) -> list[list[tuple[float, float]]]:
    """The corners of every line, where they are drawn."""
    lines = [element.attrib["points"].split() for element in ElementTree.fromstring(figure).iter("polyline")]
    return [[(float(x), float(y)) for x, y in (point.split(",") for point in line)] for line in lines]


def table_of(figure: str) -> list[list[str]]:
    """The rows of the values that fold out, below their head."""
    (table,) = ElementTree.fromstring(figure).iter("tbody")
    return [["".join(cell.itertext()) for cell in row] for row in table]


def stretches(figure: str, style: str) -> list[tuple[float, float]]:
    """Left end and width in percent of every bar or whisker."""
    found = re.findall(rf'class="{style}[^"]*" style="left:([\d.]+)%;width:([\d.]+)%"', figure)
    return [(float(left), float(width)) for left, width in found]


def test_a_line_rises_where_its_values_do() -> None:
    figure = line_chart([Line("loss & more", [(0, 1.0), (10, 2.0)])], title="a < b", x="update", y="nats")
    (((x0, y0), (x1, y1)),) = points_of(figure)
    assert x0 < x1
    assert y0 > y1
    assert "loss &amp; more" in figure
    assert "a &lt; b" in figure


@pytest.mark.parametrize(
    "points", [[(0.0, 1.0), (10.0, 2.0)], [(5.0, -0.004), (5000.0, 0.0025)], [(1.0, 40.0), (3.0, 123.0)]]
)
def test_a_tick_stands_where_its_number_is(points: list[tuple[float, float]]) -> None:
    figure = line_chart([Line("a", points)], title="t", x="x", y="y")
    ((first, last),) = points_of(figure)
    (x0, y0), (x1, y1) = points
    ticks = {"across": 0, "down": 0}
    for element in ElementTree.fromstring(figure).iter("text"):
        _, _, axis = element.attrib.get("class", "").partition("tick ")
        value = float(element.text or "nan") if axis else math.nan
        if axis == "across":
            expected = first[0] + (value - x0) / (x1 - x0) * (last[0] - first[0])
            assert float(element.attrib["x"]) == pytest.approx(expected, abs=0.2)
        elif axis == "down":
            expected = first[1] + (value - y0) / (y1 - y0) * (last[1] - first[1])
            # A text stands on its base line, four below its middle.
            assert float(element.attrib["y"]) - 4 == pytest.approx(expected, abs=0.2)
        if axis:
            ticks[axis] += 1
    assert all(2 <= count <= 6 for count in ticks.values())


@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6), max_size=LINES))
def test_any_numbers_make_a_figure_within_its_frame_or_none(curves: list[list[tuple[float, float]]]) -> None:
    lines = [Line(f"line {index}", points) for index, points in enumerate(curves)]
    figure = line_chart(lines, title="t", x="x", y="y")
    finite = [points for points in curves if any(map(math.isfinite, [sum(point) for point in points]))]
    assert bool(figure) == bool(finite)
    if figure:
        for line in points_of(figure):
            for x, y in line:
                assert -1 <= x <= WIDTH + 1
                assert -1 <= y <= HEIGHT + 1


def test_lines_differ_in_their_dashes_and_not_in_colour_alone() -> None:
    style = (files("personalign.evaluation.report") / "page.css").read_text(encoding="utf-8")
    dashes = dict(re.findall(r"\.(c\d) \{ stroke: var\(--c\d\);(?: stroke-dasharray: ([\d ]+);)? \}", style))
    lines = [Line(f"line {index}", [(0, index), (1, index)]) for index in range(LINES)]
    tree = ElementTree.fromstring(line_chart(lines, title="t", x="x", y="y"))
    drawn = [element.attrib["class"] for element in tree.iter("polyline")]
    keys = [key.attrib["class"] for item in tree.iter("li") for key in item.iter("line")]
    assert drawn == keys
    assert len({dashes[mark] for mark in drawn}) == LINES


def test_the_values_of_lines_can_be_read_as_a_table_with_an_end() -> None:
    few = line_chart(
        [Line("a", [(0, 1.0), (5, 0.25)]), Line("b", [(5, 2.0), (6, math.nan)])], title="t", x="update", y="y"
    )
    assert table_of(few) == [["0", "1", "–"], ["5", "0.25", "2"]]
    assert "<summary>Values</summary>" in few
    many = line_chart([Line("a", [(step, step) for step in range(1000)])], title="t", x="update", y="y")
    steps = [int(row[0]) for row in table_of(many)]
    assert len(steps) == 20
    assert (steps[0], steps[-1]) == (0, 999)
    assert "<summary>Values at 20 of 1,000 points</summary>" in many


def test_bars_are_as_long_as_their_values_and_begin_at_zero() -> None:
    bars = [
        Bar("a", 0.5, 0.4, 0.6),
        Bar("b", 1.0),
        Bar("c", -0.5, -0.6, -0.4, tone="worse"),
        Bar("d", math.nan, 0, 1),
    ]
    figure = bar_chart(bars, title="t")
    (left, first), (second_left, second), (third_left, third) = stretches(figure, "bar")
    assert second == pytest.approx(2 * first, abs=0.02)
    assert third == pytest.approx(first, abs=0.02)
    assert left == second_left
    assert third_left + third == pytest.approx(left, abs=0.02)
    # From -0.6 to 1: nothing of the width is wasted.
    assert stretches(figure, "whisker") == [
        (pytest.approx(62.5), pytest.approx(12.5)),
        (pytest.approx(0.0), pytest.approx(12.5)),
    ]
    assert len(stretches(figure, "bar worse")) == 1
    assert table_of(figure) == [
        ["a", "0.5", "0.4", "0.6"],
        ["b", "1", "–", "–"],
        ["c", "-0.5", "-0.6", "-0.4"],
    ]
    assert bar_chart([], title="t") == ""


def test_names_and_notes_of_bars_are_written_in_full() -> None:
    name = "self_contradiction/of_a_dialogue_as_a_whole<1>"
    tree = ElementTree.fromstring(bar_chart([Bar(name, -57.834, note="*** worse")], title="t"))
    texts = {element.attrib.get("class"): "".join(element.itertext()) for element in tree.iter("span")}
    assert texts["name"] == name
    assert texts["figure"] == "-57.83 *** worse"
