"""Tables of an evaluation for papers and spreadsheets: one per family of metrics, systems down, metrics across."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from personalign.evaluation.evaluate import Difference, Evaluation
from personalign.evaluation.metrics import METRICS, metric_of
from personalign.evaluation.report.families import families

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~])")


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as it is printed; `place` is 1 for the best of its column, 2 for the second, 0 for the others."""

    figure: str
    low: str
    high: str
    stars: str
    place: int


def metrics_of(found: Evaluation) -> list[str]:
    """Every metric that some system has a figure for, in the order of the registry."""
    printed = dict.fromkeys(metric for scores in found.scores.values() for metric in scores)
    order = {name: place for place, name in enumerate(METRICS)}
    return sorted(printed, key=lambda metric: order[metric_of(metric).name])


def rows_of(found: Evaluation) -> list[str]:
    """The systems from top to bottom; the reference, which none of them competes with, comes first, bounds last."""
    return sorted(found.scores, key=lambda name: (name in found.bounds) - (name == found.reference))


def competes(found: Evaluation, name: str) -> bool:
    return name != found.reference and name not in found.bounds


def cells_of(found: Evaluation, metric: str) -> dict[str, Cell | None]:
    """The column of a metric by system; None where a system has no figure.

    The reference and bounds have no place in it and do not decide its digits: a BLEU of 100 would blur all others.
    """
    scores = {name: scores.get(metric) for name, scores in found.scores.items()}
    competing = {
        name: score.estimate.value for name, score in scores.items() if score and competes(found, name)
    }
    ranked = _places(competing, metric)
    digits = digits_for(list(competing.values()))
    cells: dict[str, Cell | None] = {}
    for name, score in scores.items():
        if score is None or math.isnan(score.estimate.value):
            cells[name] = None
            continue
        difference = found.differences.get(name, {}).get(metric)
        one = score.estimate
        cells[name] = Cell(
            f"{one.value:.{digits}f}",
            "" if math.isnan(one.low) else f"{one.low:.{digits}f}",
            "" if math.isnan(one.high) else f"{one.high:.{digits}f}",
            "" if difference is None else difference.stars,
            ranked.get(name, 0),
        )
    return cells


def digits_for(values: Sequence[float]) -> int:
    """Three digits for shares, two from 10 on, one from 100 on."""
    largest = max((abs(value) for value in values if not math.isnan(value)), default=0.0)
    return 1 if largest >= 100 else 2 if largest >= 10 else 3


def better_or_worse(metric: str, difference: float) -> Literal["better", "worse", ""]:
    """What a difference means by the metric's direction; nothing where there is none, or no difference."""
    direction = metric_of(metric).direction
    if direction == "none" or math.isnan(difference) or difference == 0:
        return ""
    return "better" if (difference > 0) == (direction == "higher") else "worse"


def interval_of(difference: Difference) -> tuple[float, float]:
    """The ends that belong to the test which gave p: over seeds with the t-test, else over dialogues."""
    tested = difference.over_seeds or difference.comparison
    return tested.low, tested.high


def family_tables(
    found: Evaluation, further: Mapping[str, Evaluation]
) -> list[tuple[str, Evaluation, list[str]]]:
    """Heading, figures and metrics of each table: by family, and after a family what further judges say of it."""
    own = families(metrics_of(found))
    others = {judge: families(metrics_of(some)) for judge, some in further.items()}
    tables = []
    for family in dict.fromkeys([*own, *(family for some in others.values() for family in some)]):
        if family in own:
            tables.append((family, found, own[family]))
        for judge, some in others.items():
            if family in some:
                tables.append((f"{family}, by {judge}", further[judge], some[family]))
    return tables


def markdown_tables(
    found: Evaluation, *, title: str, note: str = "", further: Mapping[str, Evaluation] = {}
) -> str:
    """One table per family; intervals in brackets, the best bold, the reference and bounds in italics.

    `note` says under the title what the figures rest on.
    """
    parts = [f"# {_markdown(title)}\n"]
    if note:
        parts.append(f"{_markdown(note)}\n")
    for heading, some, metrics in family_tables(found, further):
        parts.append(f"## {_markdown(heading)}\n\n{_markdown_table(some, metrics)}")
    return "\n".join(parts)


def latex_tables(
    found: Evaluation, *, caption: str, note: str = "", further: Mapping[str, Evaluation] = {}
) -> str:
    """One booktabs table per family; the best bold, the second underlined, stars raised, intervals in small.

    Every caption ends with `note`, and every table has a label of its own.
    """
    tables = [
        _latex_table(
            some,
            metrics,
            caption=" ".join(filter(None, (f"{caption.rstrip('.')}: {heading}.", note))),
            label=heading,
        )
        for heading, some, metrics in family_tables(found, further)
    ]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(tables)


def csv_table(found: Evaluation, *, judge: str = "", further: Mapping[str, Evaluation] = {}) -> str:
    """One row per system, metric and judge, at full precision; what was tested, with its test.

    `judge`: the name of that of `found`; rows of metrics that ask no judge have none.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    tested = ["diff", "diff_low", "diff_high", "effect", "p", "p_holm", "test"]
    writer.writerow(["system", "metric", "value", "low", "high", *tested, "judge"])
    for name, some in [(judge, found), *further.items()]:
        for system, scores in some.scores.items():
            for metric in metrics_of(some):
                if metric in scores:
                    asked = name if "judge" in metric_of(metric).needs else ""
                    writer.writerow([system, metric, *_figures(some, system, metric), asked])
    return stream.getvalue()


def _figures(found: Evaluation, system: str, metric: str) -> list[str]:
    """Value and interval, then difference, interval, effect, p, Holm's p and test, empty where nothing was tested."""
    one = found.scores[system][metric].estimate
    figures = [*map(_plain, (one.value, one.low, one.high))]
    difference = found.differences.get(system, {}).get(metric)
    if difference is None:
        return [*figures, *[""] * 7]
    comparison = difference.comparison
    compared = (
        comparison.difference,
        *interval_of(difference),
        comparison.effect,
        difference.p,
        difference.p_holm,
    )
    return [*figures, *map(_plain, compared), difference.test]


def _places(values: dict[str, float], metric: str) -> dict[str, int]:
    """1 for the best, 2 for the second, equal figures sharing a place; nothing where no direction is better.

    Where there are two different figures the second is the last, and has no place.
    """
    described = metric_of(metric)
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    if described.direction == "none" or len(known) < 2:
        return {}
    best = sorted(set(known.values()), reverse=described.direction == "higher")
    if len(best) == 1:
        return {}
    shown = 2 if len(best) > 2 else 1
    return {name: place for name, value in known.items() if (place := best.index(value) + 1) <= shown}


def _markdown_table(found: Evaluation, metrics: Sequence[str]) -> str:
    lines = ["| system | " + " | ".join(metrics) + " |", "|---|" + "---|" * len(metrics)]
    columns = {metric: cells_of(found, metric) for metric in metrics}
    for name in rows_of(found):
        title = _markdown(name) if competes(found, name) else f"*{_markdown(name)}*"
        cells = [_markdown_cell(columns[metric][name]) for metric in metrics]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    figure = f"**{cell.figure}**" if cell.place == 1 else cell.figure
    interval = f" [{cell.low}, {cell.high}]" if cell.low else ""
    return figure + _markdown(cell.stars) + interval


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _latex_table(found: Evaluation, metrics: Sequence[str], *, caption: str, label: str) -> str:
    columns = {metric: cells_of(found, metric) for metric in metrics}
    head = " & ".join(["System", *(f"{_latex(metric)}{_latex_arrow(metric)}" for metric in metrics)])
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        head + r" \\",
        r"\midrule",
    ]
    rows = rows_of(found)
    for name, following in zip(rows, [*rows[1:], None], strict=True):
        # Without the braces a name that begins with [ or * would be an argument of the line break before it.
        cells = ["{}" + _latex(name), *(_latex_cell(columns[metric][name]) for metric in metrics)]
        lines.append(" & ".join(cells) + r" \\")
        if following is not None and competes(found, name) != competes(found, following):
            lines.append(r"\midrule")
    name = "-".join(re.findall(r"[a-z0-9]+", label.lower()))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\caption{{{_latex(caption)}}}", rf"\label{{tab:{name}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    shown = cell.figure.replace("-", "$-$")
    figure = {1: rf"\textbf{{{shown}}}", 2: rf"\underline{{{shown}}}"}.get(cell.place, shown)
    raised = f"$^{{{cell.stars}}}$" if cell.stars else ""
    ends = f"[{cell.low}, {cell.high}]".replace("-", "$-$")
    interval = rf" {{\scriptsize {ends}}}" if cell.low else ""
    return figure + raised + interval


def _latex_arrow(metric: str) -> str:
    return {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "none": ""}[metric_of(metric).direction]


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _plain(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))
