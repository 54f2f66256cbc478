"""Charts that take their colours from the page, so that they are readable in light and dark, each with its values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from personalign.evaluation.report.tables import digits_for

WIDTH, HEIGHT = 560, 280
# Room for tick labels at the size that they have on a phone.
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 32, 30, 44
LINES = 6
"""Classes c0 to c5 of the page's style: a colour and dashes of its own for each line of a chart."""
_ROWS = 20
_STANDALONE = (
    "text{fill:#6e7781;font:12px system-ui,sans-serif}.grid{stroke:#8c959f55}.axis{stroke:#8c959f}"
    "polyline{fill:none;stroke-width:2}"
    + "".join(
        f"polyline.c{number}{{stroke:{colour}}}text.c{number}{{fill:{colour}}}"
        for number, colour in enumerate(("#2f81f7", "#bc6c00", "#2da44e", "#a371f7", "#cf222e", "#1b9aaa"))
    )
)


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """`low`, `high`: its interval, NaN where it has none. `note` stands beside the figure."""

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    tone: Literal["better", "worse", ""] = ""


def line_chart(lines: Sequence[Line], *, title: str, x: str, y: str) -> str:
    """Up to `LINES` lines over a common x, with a legend; empty where there is no finite point."""
    shown = [
        Line(line.name, [(a, b) for a, b in line.points if math.isfinite(a) and math.isfinite(b)])
        for line in lines
    ]
    shown = [line for line in shown if line.points]
    if not shown:
        return ""
    parts = _plot(shown, x=x, y=y)
    legend = "".join(
        '<li><svg class="key" viewBox="0 0 30 8" aria-hidden="true">'
        f'<line class="c{number}" x1="0" x2="30" y1="4" y2="4"/></svg>{escape(line.name)}</li>'
        for number, line in enumerate(shown)
    )
    drawn = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'
        f'<ul class="legend">{legend}</ul>'
    )
    return _figure(drawn, title=title, values=_values_of_lines(shown, x=x))


def standalone_chart(lines: Sequence[Line], *, title: str, x: str, y: str) -> str:
    """An SVG file of up to `LINES` lines with points, in colours that can be read on light and on dark."""
    drawn = _plot(lines, x=x, y=y)
    for number, line in enumerate(lines):
        place = f'x="{WIDTH - _RIGHT}" y="{_TOP + 16 * number}" text-anchor="end"'
        drawn.append(f'<text class="c{number}" {place}>{escape(line.name)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>{escape(title)}</title><style>{_STANDALONE}</style>{''.join(drawn)}</svg>\n"
    )


def _plot(lines: Sequence[Line], *, x: str, y: str) -> list[str]:
    """Axes and lines; there is at least one point."""
    xs = [a for line in lines for a, _ in line.points]
    ys = [b for line in lines for _, b in line.points]
    across = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    down = _Scale(*_padded(min(ys), max(ys)), HEIGHT - _BOTTOM, _TOP)
    parts = _axes(across, down, x=x, y=y)
    for number, line in enumerate(lines):
        path = " ".join(f"{across(a):.1f},{down(b):.1f}" for a, b in line.points)
        if len(line.points) == 1:
            a, b = line.points[0]
            parts.append(f'<circle class="c{number}" cx="{across(a):.1f}" cy="{down(b):.1f}" r="3"/>')
        parts.append(f'<polyline class="c{number}" points="{path}"/>')
    return parts


def bar_chart(bars: Sequence[Bar], *, title: str) -> str:
    """Horizontal bars with intervals; names and figures are text of the page, which wraps and is never cut."""
    shown = [bar for bar in bars if math.isfinite(bar.value)]
    if not shown:
        return ""
    ends = [value for bar in shown for value in (bar.value, bar.low, bar.high) if math.isfinite(value)]
    scale = _Scale(min(0.0, *ends), max(0.0, *ends), 0.0, 100.0)
    digits = digits_for(ends)
    rows = []
    for bar in shown:
        track = f'<span class="zero" style="left:{scale(0):.2f}%"></span>' + _stretch(
            f"bar {bar.tone}".strip(), scale, 0.0, bar.value
        )
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            track += _stretch("whisker", scale, bar.low, bar.high)
        note = f' <span class="note">{escape(bar.note)}</span>' if bar.note else ""
        rows.append(
            f'<span class="name">{escape(bar.name)}</span><span class="track">{track}</span>'
            f'<span class="figure">{bar.value:.{digits}f}{note}</span>'
        )
    head = ["", "value", *(["low", "high"] if any(math.isfinite(bar.low) for bar in shown) else [])]
    table = [[bar.name, *map(_short, (bar.value, bar.low, bar.high))][: len(head)] for bar in shown]
    values = _values(head, table, summary="Values")
    return _figure(f'<div class="bars">{"".join(rows)}</div>', title=title, values=values)


class _Scale:
    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self.low, self.high = low, high
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self._first + self._last) / 2
        return self._first + (value - self.low) / (self.high - self.low) * (self._last - self._first)


def _stretch(style: str, scale: _Scale, start: float, end: float) -> str:
    left, right = sorted((scale(start), scale(end)))
    return f'<span class="{style}" style="left:{left:.2f}%;width:{right - left:.2f}%"></span>'


def _axes(across: _Scale, down: _Scale, *, x: str, y: str) -> list[str]:
    bottom = HEIGHT - _BOTTOM
    parts = []
    for tick in _ticks(down.low, down.high):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{down(tick):.1f}" y2="{down(tick):.1f}"/>'
            f'<text class="tick down" x="{_LEFT - 6}" y="{down(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in _ticks(across.low, across.high):
        parts.append(
            f'<text class="tick across" x="{across(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{escape(x)}</text>')
    parts.append(f'<text x="2" y="16">{escape(y)}</text>')
    return parts


def _figure(drawn: str, *, title: str, values: str) -> str:
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{drawn}{values}</figure>'


def _values_of_lines(lines: Sequence[Line], *, x: str) -> str:
    """At most `_ROWS` of the points, evenly over x: a table that is read out should have an end."""
    points = [dict(line.points) for line in lines]
    places = sorted({place for known in points for place in known})
    chosen = places
    if len(places) > _ROWS:
        chosen = [places[round(row * (len(places) - 1) / (_ROWS - 1))] for row in range(_ROWS)]
    rows = [[f"{place:g}", *(_short(known.get(place, math.nan)) for known in points)] for place in chosen]
    few = "" if len(chosen) == len(places) else f" at {len(chosen)} of {len(places):,} points"
    return _values([x, *(line.name for line in lines)], rows, summary=f"Values{few}")


def _values(head: Sequence[str], rows: Sequence[Sequence[str]], *, summary: str) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{value}</td>" for value in rest)}</tr>'
        for first, *rest in rows
    )
    return (
        f'<details class="values"><summary>{summary}</summary><div class="scroll"><table>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _short(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _ticks(low: float, high: float) -> list[float]:
    """At most six round numbers within."""
    raw = (high - low) / 4
    if raw < 1e-9:
        return [low]
    step = 10 ** math.floor(math.log10(raw))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if factor * step >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    gap = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - gap, high + gap
