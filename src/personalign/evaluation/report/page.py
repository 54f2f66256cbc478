"""The report as one HTML file that asks nothing of a network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Any

from personalign.evaluation.evaluate import Evaluation
from personalign.evaluation.metrics import metric_of
from personalign.evaluation.report.tables import Cell, cells_of, competes, family_tables, metrics_of, rows_of
from personalign.evaluation.tokens import Language

# The page's own style and script, and nothing from anywhere else.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Section:
    """Charts under a heading, with a remark; `tables` fold out below them. All of it HTML but for title and remark."""

    title: str
    charts: Sequence[str]
    remark: str = ""
    tables: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """`cases`: plain values of `cases_of`. `facts`: label and text of what the figures rest on.

    `further`: what other judges than that of the evaluation say of the same systems, by the judge's name. `language` is
    that of the dialogues; the page's own words are English.
    """

    title: str
    evaluation: Evaluation
    cases: Mapping[str, Any]
    sections: Sequence[Section] = ()
    facts: Sequence[tuple[str, str]] = ()
    language: Language = "en"
    further: Mapping[str, Evaluation] = field(default_factory=dict)


def page(report: Report) -> str:
    """The whole page: tables, charts and the case browser, with style, script and data inside."""
    found = report.evaluation
    tables = "".join(
        _family(title, some, metrics) for title, some, metrics in family_tables(found, report.further)
    )
    shown = [section for section in report.sections if section.charts or section.tables]
    links = ["Figures", *(section.title for section in shown), "Cases", "Method"]
    nav = "".join(f'<a href="#{_anchor(link)}">{escape(link)}</a>' for link in links)
    # A closing tag inside a text would end the script early.
    data = json.dumps(report.cases, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(report.title)}</title>
<style>{_resource("page.css")}</style>
</head>
<body>
<header><h1>{escape(report.title)}</h1><nav aria-label="Sections">{nav}</nav>
<button id="theme" type="button">Theme</button></header>
<main>
<section id="figures"><h2>Figures</h2>
<p class="soft">{found.turns:,} turns of {found.dialogues:,} dialogues. Small: intervals by dialogue.
<span class="best">Bold</span>: best, <span class="second">underlined</span>: second.{_roles(found)}</p>
{tables}</section>
{"".join(map(_section, shown))}
<section id="cases"><h2>Cases</h2>
{_seeds(found)}{_browser(report.cases, language=report.language)}
</section>
<section id="method"><h2>Method</h2>
<dl class="facts">{"".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in report.facts)}</dl>
<h3>Metrics</h3>
<dl class="facts">{"".join(_definition(metric) for metric in metrics_of(found))}</dl>
{_left_out(found)}
</section>
</main>
<footer>Made by personalign. Figures of different test sets, tokenizers or judges do not compare.</footer>
<script type="application/json" id="data">{data}</script>
<script>{_resource("page.js")}</script>
</body>
</html>
"""


def _roles(found: Evaluation) -> str:
    """Which rows are no competitors, and which one the stars are about."""
    text = ""
    if found.reference is not None:
        text += f" <em>{escape(found.reference)}</em>: for orientation, compared with nothing."
    if found.bounds:
        named = ", ".join(f"<em>{escape(name)}</em>" for name in rows_of(found) if name in found.bounds)
        text += f" {named}: reads the label of the gold reply, an upper bound and no system."
    if found.against is not None:
        text += (
            f" Stars: differs from <em>{escape(found.against)}</em> (* p &lt; .05, ** p &lt; .01, *** p &lt; .001, "
            "Holm's correction over the whole report)."
        )
    return text


def _seeds(found: Evaluation) -> str:
    if not any(len(score.per_seed) > 1 for scores in found.scores.values() for score in scores.values()):
        return ""
    return (
        '<p class="soft">The replies are those of the first seed; the figures above average all seeds.</p>\n'
    )


def _browser(cases: Mapping[str, Any], *, language: Language) -> str:
    """Its tools and its empty frame; what the cases cannot answer is not offered."""
    orders = {
        "apart": ("systems furthest apart", cases["compared"]),
        "contradicted": ("most contradicted", cases["judged"]),
        "given": ("in order", True),
    }
    filters = {
        "all": ("all turns", True),
        "line": ("labelled with a line", cases["labelled"]),
        "none": ("labelled none", cases["labelled"]),
        "contradicted": ("somebody contradicts", cases["judged"]),
        "lines": ("different lines selected", cases["selects"]),
    }
    return f"""<div class="tools">
<label>Search<input id="search" type="search" placeholder="words of persona, dialogue or replies"></label>
<label>Sort<select id="sort">{_options(orders)}</select></label>
<label>Show<select id="filter">{_options(filters)}</select></label>
<span id="count" class="soft" role="status"></span></div>
<div class="browser" lang="{"en" if language == "en" else "zh"}">
<div id="list" role="listbox" tabindex="0" aria-label="Turns; arrow keys move, Enter reads the case"></div>
<article id="case"></article></div>
<p id="announced" class="hidden" aria-live="polite"></p>"""


def _options(choices: Mapping[str, tuple[str, bool]]) -> str:
    return "".join(
        f'<option value="{value}">{text}</option>' for value, (text, offered) in choices.items() if offered
    )


def _family(title: str, found: Evaluation, metrics: Sequence[str]) -> str:
    columns = {metric: cells_of(found, metric) for metric in metrics}
    head = "".join(f'<th scope="col">{escape(metric)}{_arrow(metric)}</th>' for metric in metrics)
    rows = "".join(
        f'<tr{_reference_class(found, name)}><th scope="row">{escape(name)}</th>'
        f"{''.join(_cell(columns[metric][name]) for metric in metrics)}</tr>"
        for name in rows_of(found)
    )
    return (
        f'<h3>{escape(title)}</h3><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(title, quote=True)}">'
        f'<table><thead><tr><th scope="col">system</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _reference_class(found: Evaluation, name: str) -> str:
    return "" if competes(found, name) else ' class="reference"'


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td>–</td>"
    style = {1: ' class="best"', 2: ' class="second"'}.get(cell.place, "")
    interval = f'<span class="interval">{cell.low} to {cell.high}</span>' if cell.low else ""
    return f"<td><span{style}>{cell.figure}</span>{cell.stars}{interval}</td>"


def _arrow(metric: str) -> str:
    direction = metric_of(metric).direction
    return {
        "higher": ' <span title="higher is better">↑</span>',
        "lower": ' <span title="lower is better">↓</span>',
        "none": "",
    }[direction]


def _definition(metric: str) -> str:
    described = metric_of(metric)
    text = f"{described.description} ({described.source}; {described.range})"
    return f"<dt>{escape(metric)}</dt><dd>{escape(text)}</dd>"


def _left_out(found: Evaluation) -> str:
    if not found.left_out:
        return ""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(why)}</dd>" for name, why in found.left_out.items())
    return f'<h3>Left out</h3><dl class="facts">{rows}</dl>'


def _section(section: Section) -> str:
    remark = f'<p class="soft">{escape(section.remark)}</p>' if section.remark else ""
    return (
        f'<section id="{_anchor(section.title)}"><h2>{escape(section.title)}</h2>{remark}'
        f'<div class="charts">{"".join(section.charts)}</div>{"".join(section.tables)}</section>'
    )


def _anchor(title: str) -> str:
    return "-".join(title.lower().split())


def _resource(name: str) -> str:
    return (files("personalign.evaluation.report") / name).read_text(encoding="utf-8")
