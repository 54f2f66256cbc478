import math
import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from personalign.evaluation.report.charts import HEIGHT, WIDTH, Bar, Line, bar_chart, line_chart

NUMBERS = st.floats(-1e6, 1e6) | st.just(math.nan)


def numbers_in(figure: str, tag: str, *names: str) -> list[float]:
    tree = ElementTree.fromstring(figure)
    return [float(element.attrib[name]) for element in tree.iter(tag) for name in names]


def test_a_line_rises_where_its_values_do() -> None:
    figure = line_chart([Line("loss & more", [(0, 1.0), (10, 2.0)])], title="a < b", x="update", y="nats")
    (points,) = [element.attrib["points"] for element in ElementTree.fromstring(figure).iter("polyline")]
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in points.split())
    assert x0 < x1
    assert y0 > y1
    assert "loss &amp; more" in figure
    assert "a &lt; b" in figure


@given(st.lists(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6), max_size=8))
def test_any_numbers_make_a_figure_within_its_frame_or_none(curves: list[list[tuple[float, float]]]) -> None:
    lines = [Line(f"line {index}", points) for index, points in enumerate(curves)]
    figure = line_chart(lines, title="t", x="x", y="y")
    finite = [points for points in curves if any(map(math.isfinite, [sum(point) for point in points]))]
    assert bool(figure) == bool(finite)
    if figure:
        for element in ElementTree.fromstring(figure).iter("polyline"):
            for point in element.attrib["points"].split():
                x, y = map(float, point.split(","))
                assert -1 <= x <= WIDTH + 1
                assert -1 <= y <= HEIGHT + 1


def test_bars_are_as_long_as_their_values_and_begin_at_zero() -> None:
    bars = [
        Bar("a", 0.5, 0.4, 0.6),
        Bar("b", 1.0, math.nan, math.nan),
        Bar("c", -0.5, -0.6, -0.4),
        Bar("d", math.nan, 0, 1),
    ]
    figure = bar_chart(bars, title="t")
    first, second, third = numbers_in(figure, "rect", "width")
    assert second / first > 1.9
    assert abs(third - first) < 0.2
    starts = numbers_in(figure, "rect", "x")
    assert starts[0] == starts[1] > starts[2]
    assert figure.count("whisker") == 2
    assert bar_chart([], title="t") == ""
