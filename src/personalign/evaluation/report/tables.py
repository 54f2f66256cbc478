"""Tables of an evaluation for papers and spreadsheets: systems down, metrics across."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from personalign.evaluation.evaluate import Evaluation
from personalign.evaluation.metrics import metric_of

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
}


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
    return list(dict.fromkeys(metric for scores in found.scores.values() for metric in scores))


def cells_of(found: Evaluation, metric: str) -> dict[str, Cell | None]:
    """The column of a metric by system; None where a system has no figure."""
    scores = {name: scores.get(metric) for name, scores in found.scores.items()}
    ranked = _places({name: score.estimate.value for name, score in scores.items() if score}, metric)
    digits = digits_for([score.estimate.value for score in scores.values() if score])
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


def markdown_table(found: Evaluation, metrics: Sequence[str]) -> str:
    """Intervals in brackets, the best bold."""
    lines = ["| system | " + " | ".join(metrics) + " |", "|---|" + "---|" * len(metrics)]
    columns = {metric: cells_of(found, metric) for metric in metrics}
    for name in found.scores:
        cells = []
        for metric in metrics:
            cell = columns[metric][name]
            if cell is None:
                cells.append("-")
                continue
            figure = f"**{cell.figure}**" if cell.place == 1 else cell.figure
            interval = f" [{cell.low}, {cell.high}]" if cell.low else ""
            cells.append(figure + cell.stars.replace("*", r"\*") + interval)
        lines.append(f"| {name.replace('|', '&#124;')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def latex_table(found: Evaluation, metrics: Sequence[str], *, caption: str) -> str:
    """booktabs; the best bold, the second underlined, stars raised, half of the interval's width behind it in small."""
    columns = {metric: cells_of(found, metric) for metric in metrics}
    head = " & ".join(["System", *(f"{_tex(metric)}{_arrow(metric)}" for metric in metrics)])
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        head + r" \\",
        r"\midrule",
    ]
    for name in found.scores:
        row = [_tex(name), *(_tex_cell(columns[metric][name]) for metric in metrics)]
        lines.append(" & ".join(row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_tex(caption)}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def csv_table(found: Evaluation, metrics: Sequence[str]) -> str:
    """One row per system and metric, at full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["system", "metric", "value", "low", "high", "difference", "p", "p_holm"])
    for name, scores in found.scores.items():
        for metric in metrics:
            if metric not in scores:
                continue
            one = scores[metric].estimate
            difference = found.differences.get(name, {}).get(metric)
            tested = ["", "", ""]
            if difference is not None:
                tested = [*map(_plain, (difference.comparison.difference, difference.p, difference.p_holm))]
            writer.writerow([name, metric, *map(_plain, (one.value, one.low, one.high)), *tested])
    return stream.getvalue()


def _places(values: dict[str, float], metric: str) -> dict[str, int]:
    """1 for the best, 2 for the second, equal figures sharing a place; nothing where no direction is better."""
    described = metric_of(metric)
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    if described.direction == "none" or len(known) < 2:
        return {}
    best = sorted(set(known.values()), reverse=described.direction == "higher")
    return {name: place for name, value in known.items() if (place := best.index(value) + 1) <= 2}


def _tex_cell(cell: Cell | None) -> str:
    if cell is None:
        return "--"
    figure = {1: rf"\textbf{{{cell.figure}}}", 2: rf"\underline{{{cell.figure}}}"}.get(
        cell.place, cell.figure
    )
    return figure + (f"$^{{{cell.stars}}}$" if cell.stars else "")


def _arrow(metric: str) -> str:
    return {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "none": ""}[metric_of(metric).direction]


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _plain(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))
