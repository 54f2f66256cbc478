"""How systems differ from the one that they are held against: every test, as a chart and as a table."""

import math
from collections.abc import Mapping
from html import escape

from personalign.evaluation.evaluate import Difference, Evaluation
from personalign.evaluation.report.charts import Bar, bar_chart
from personalign.evaluation.report.page import Section
from personalign.evaluation.report.tables import better_or_worse, digits_for, interval_of

_HEAD = ("metric", "difference", "interval", "d_z", "p", "p (Holm)", "test", "")


def differences_section(found: Evaluation, *, judge: str | None = None) -> Section:
    """Charts in standard deviations of the dialogues' own, so that metrics stand side by side; tables of all tests."""
    charts, tables = [], []
    for name, differences in found.differences.items():
        if differences:
            charts.append(_chart(f"{name} minus {found.against}: effect size d_z by metric", differences))
            tables.append(_table(f"{name} minus {found.against}", differences))
    return Section(
        "Differences",
        [chart for chart in charts if chart],
        "d_z: the difference in standard deviations of the dialogues' differences. Intervals are over dialogues or, "
        "where the t-test gave p, over seeds. Better and worse go by the metric's direction, stars by Holm's p."
        + (f" Consistency is judged by {judge}." if judge else ""),
        tables,
    )


def _chart(title: str, differences: Mapping[str, Difference]) -> str:
    bars = []
    for metric, difference in differences.items():
        word = better_or_worse(metric, difference.comparison.difference)
        note = f"{difference.stars} {word}".strip()
        bars.append(Bar(metric, difference.comparison.effect, note=note, tone=word))
    return bar_chart(bars, title=title)


def _table(title: str, differences: Mapping[str, Difference]) -> str:
    words = [
        better_or_worse(metric, difference.comparison.difference)
        for metric, difference in differences.items()
        if difference.stars
    ]
    head = "".join(f'<th scope="col">{text}</th>' for text in _HEAD)
    rows = "".join(_row(metric, difference) for metric, difference in differences.items())
    return (
        f"<details><summary>{escape(title)}: {len(differences)} tests, {words.count('better')} significantly better, "
        f'{words.count("worse")} significantly worse</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(title, quote=True)}"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></details>"
    )


def _row(metric: str, difference: Difference) -> str:
    comparison = difference.comparison
    low, high = interval_of(difference)
    # One more than figures have: a difference is smaller than what it is between.
    digits = digits_for([comparison.difference]) + 1
    word = better_or_worse(metric, comparison.difference)
    interval = "–" if math.isnan(low) else f"{low:+.{digits}f} to {high:+.{digits}f}"
    cells = (
        _signed(comparison.difference, digits),
        interval,
        _signed(comparison.effect, 2),
        _p(difference.p),
        _p(difference.p_holm),
        difference.test,
    )
    return (
        f'<tr><th scope="row">{escape(metric)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}'
        f'<td class="{word}">{word} {difference.stars}</td></tr>'
    )


def _signed(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:+.{digits}f}"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "&lt; .0001" if value < 0.0001 else f"{value:.4f}"
