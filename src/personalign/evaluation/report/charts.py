"""Charts as SVG that takes its colours from the page, so that it is readable in light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34
COLOURS = 6
"""Classes c0 to c5 of the page's style; further lines begin anew, dashed."""


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """`low`, `high`: its interval, NaN where it has none."""

    name: str
    value: float
    low: float
    high: float


def line_chart(lines: Sequence[Line], *, title: str, x: str, y: str) -> str:
    """Lines over a common x, with a legend; empty where there is no finite point."""
    shown = [
        Line(line.name, [(a, b) for a, b in line.points if math.isfinite(a) and math.isfinite(b)])
        for line in lines
    ]
    shown = [line for line in shown if line.points]
    if not shown:
        return ""
    xs = [a for line in shown for a, _ in line.points]
    ys = [b for line in shown for _, b in line.points]
    across = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    down = _Scale(*_padded(min(ys), max(ys)), HEIGHT - _BOTTOM, _TOP)
    parts = [*_axes(across, down, x=x, y=y)]
    for number, line in enumerate(shown):
        path = " ".join(f"{across(a):.1f},{down(b):.1f}" for a, b in line.points)
        dash = ' stroke-dasharray="5 3"' if number >= COLOURS else ""
        mark = f"c{number % COLOURS}"
        if len(line.points) == 1:
            a, b = line.points[0]
            parts.append(f'<circle class="{mark}" cx="{across(a):.1f}" cy="{down(b):.1f}" r="3"/>')
        parts.append(f'<polyline class="line {mark}"{dash} points="{path}"/>')
    return _figure(parts, title=title, names=[line.name for line in shown])


def bar_chart(bars: Sequence[Bar], *, title: str) -> str:
    """Horizontal bars with intervals and figures; names in full, whatever their number."""
    shown = [bar for bar in bars if math.isfinite(bar.value)]
    if not shown:
        return ""
    row, top = 26, 8
    height = top + row * len(shown) + 26
    ends = [value for bar in shown for value in (bar.value, bar.low, bar.high) if math.isfinite(value)]
    scale = _Scale(min(0.0, *ends), max(0.0, *ends) or 1.0, 190, WIDTH - 64)
    parts = [f'<line class="axis" x1="{scale(0):.1f}" x2="{scale(0):.1f}" y1="{top}" y2="{height - 24}"/>']
    for number, bar in enumerate(shown):
        middle = top + row * number + row / 2
        start, end = sorted((scale(0), scale(bar.value)))
        parts.append(
            f'<text class="name" x="182" y="{middle + 4:.1f}" text-anchor="end">{escape(_short(bar.name, 30))}</text>'
            f'<rect class="bar c0" x="{start:.1f}" y="{middle - 8:.1f}" width="{max(1.0, end - start):.1f}" height="16"/>'
        )
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            parts.append(
                f'<line class="whisker" x1="{scale(bar.low):.1f}" x2="{scale(bar.high):.1f}" y1="{middle:.1f}" '
                f'y2="{middle:.1f}"/>'
            )
        parts.append(f'<text class="figure" x="{WIDTH - 58}" y="{middle + 4:.1f}">{bar.value:.3f}</text>')
    for tick in _ticks(scale.low, scale.high):
        parts.append(
            f'<text class="tick" x="{scale(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>'
        )
    return _figure(parts, title=title, names=[], height=height)


class _Scale:
    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self.low, self.high = low, high
        self._first, self._last = first, last

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self._first + self._last) / 2
        return self._first + (value - self.low) / (self.high - self.low) * (self._last - self._first)


def _axes(across: _Scale, down: _Scale, *, x: str, y: str) -> list[str]:
    bottom = HEIGHT - _BOTTOM
    parts = []
    for tick in _ticks(down.low, down.high):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{down(tick):.1f}" y2="{down(tick):.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{down(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in _ticks(across.low, across.high):
        parts.append(
            f'<text class="tick" x="{across(tick):.1f}" y="{bottom + 15}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(
        f'<text class="label" x="{WIDTH - _RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x)}</text>'
    )
    parts.append(f'<text class="label" x="2" y="{_TOP}">{escape(y)}</text>')
    return parts


def _figure(parts: Sequence[str], *, title: str, names: Sequence[str], height: int = HEIGHT) -> str:
    legend = "".join(
        f'<li><span class="key c{number % COLOURS}"></span>{escape(name)}</li>'
        for number, name in enumerate(names)
    )
    drawn = "".join(parts)
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}">{drawn}</svg>'
        + (f'<ul class="legend">{legend}</ul>' if names else "")
        + "</figure>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """At most six round numbers within."""
    if high == low:
        return [low]
    raw = (high - low) / 4
    step = 10 ** math.floor(math.log10(raw))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if factor * step >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _padded(low: float, high: float) -> tuple[float, float]:
    gap = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return low - gap, high + gap


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
