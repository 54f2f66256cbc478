"""The report as one HTML file that asks nothing of a network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from personalign.evaluation.evaluate import Evaluation
from personalign.evaluation.metrics import metric_of
from personalign.evaluation.report.tables import Cell, cells_of, metrics_of

# Metrics by what stands before the slash or, without one, by name; what is in no family comes last.
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Consistency with the persona": (
        "c_score",
        "entail_rate",
        "contradict_rate",
        "recall",
        "apc",
        "coh",
        "coh_con",
        "self_contradiction",
        "copy_rate",
    ),
    "Selection": ("selection", "share_none", "share_none_labelled"),
    "Overlap with the gold reply": ("bleu-", "rouge-", "chrf", "f1"),
    "Likelihood and ranking": ("ppl", "hits@1", "mrr"),
    "Diversity": ("distinct-", "entropy-", "length", "repetition-", "repeated_replies"),
    "The person's past": ("p_cover", "p_f1", "p_co"),
}
_OTHERS = "Others"
# The page's own style and script, and nothing from anywhere else.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Section:
    """Charts (SVG figures) under a heading, with a remark."""

    title: str
    charts: Sequence[str]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """`cases`: plain values of `cases_of`. `facts`: label and text of what the figures rest on."""

    title: str
    evaluation: Evaluation
    cases: Mapping[str, Any]
    sections: Sequence[Section] = ()
    facts: Sequence[tuple[str, str]] = ()


def page(report: Report) -> str:
    """The whole page: tables, charts and the case browser, with style, script and data inside."""
    found = report.evaluation
    tables = "".join(_family(title, found, metrics) for title, metrics in families(metrics_of(found)).items())
    sections = "".join(_section(section) for section in report.sections if any(section.charts))
    links = [
        "Figures",
        *(section.title for section in report.sections if any(section.charts)),
        "Cases",
        "Method",
    ]
    nav = "".join(f'<a href="#{_anchor(link)}">{escape(link)}</a>' for link in links)
    against = (
        ""
        if found.against is None
        else f" Stars: differs from <em>{escape(found.against)}</em> (* p &lt; .05, ** p &lt; .01, *** p &lt; .001, "
        "Holm's correction over the whole report)."
    )
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
<span class="best">Bold</span>: best, <span class="second">underlined</span>: second.{against}</p>
{tables}</section>
{sections}
<section id="cases"><h2>Cases</h2>
{_BROWSER}
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


_BROWSER = """<div class="tools">
<label>Search<input id="search" type="search" placeholder="words of persona, dialogue or replies"></label>
<label>Sort<select id="sort"><option value="apart">systems furthest apart</option>
<option value="contradicted">most contradicted</option><option value="given">in order</option></select></label>
<label>Show<select id="filter"><option value="all">all turns</option><option value="line">labelled with a line</option>
<option value="none">labelled none</option><option value="contradicted">somebody contradicts</option>
<option value="lines">different lines selected</option></select></label>
<span id="count" class="soft" role="status"></span></div>
<div class="browser">
<div id="list" role="listbox" tabindex="0" aria-label="Turns; arrow keys move, Enter reads the case"></div>
<article id="case" aria-live="polite"></article></div>"""


def families(metrics: Sequence[str]) -> dict[str, list[str]]:
    """Metrics by family, in the order of the families and, within, of `metrics`."""
    grouped: dict[str, list[str]] = {title: [] for title in (*_FAMILIES, _OTHERS)}
    for metric in metrics:
        grouped[_family_of(metric)].append(metric)
    return {title: names for title, names in grouped.items() if names}


def _family_of(metric: str) -> str:
    stem = metric_of(metric).name.partition("/")[0]
    for title, members in _FAMILIES.items():
        if any(stem == member or (member.endswith("-") and stem.startswith(member)) for member in members):
            return title
    return _OTHERS


def _family(title: str, found: Evaluation, metrics: Sequence[str]) -> str:
    columns = {metric: cells_of(found, metric) for metric in metrics}
    head = "".join(f'<th scope="col">{escape(metric)}{_arrow(metric)}</th>' for metric in metrics)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_cell(columns[metric][name]) for metric in metrics)}</tr>'
        for name in found.scores
    )
    return (
        f'<h3>{escape(title)}</h3><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escape(title, quote=True)}">'
        f'<table><thead><tr><th scope="col">system</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


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
        f'<div class="charts">{"".join(section.charts)}</div></section>'
    )


def _anchor(title: str) -> str:
    return "-".join(title.lower().split())


def _resource(name: str) -> str:
    return (files("personalign.evaluation.report") / name).read_text(encoding="utf-8")
