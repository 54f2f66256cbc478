"""Tables of results, in Markdown: what was measured, under the metrics' exact names."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = Mapping[str, Any]
Results = Mapping[str, Result]
Column = tuple[str, str]

_JUDGE = "judge:"
_TEXT: tuple[Column, ...] = (
    ("bleu-1/coco", ".1f"),
    ("bleu-2/coco", ".1f"),
    ("rouge-l/coco", ".1f"),
    ("entropy-1/corpus", ".2f"),
    ("entropy-2/corpus", ".2f"),
    ("entropy-3/corpus", ".2f"),
    ("entropy-4/corpus", ".2f"),
    ("distinct-1/corpus", ".3f"),
    ("distinct-2/corpus", ".3f"),
    ("copy_rate", ".3f"),
    ("ppl/token", ".2f"),
)
_SELECTION: tuple[Column, ...] = (
    ("share_none", ".3f"),
    ("selection/accuracy", ".3f"),
    ("selection/accuracy_always_none", ".3f"),
    ("selection/accuracy_needed", ".3f"),
    ("selection/recall@1", ".3f"),
    ("selection/macro_f1", ".3f"),
)
_CONSISTENCY = ("c_score/max", "c_score/sum", "entail_rate", "contradict_rate")
_PARTS = {"all": "all turns", "needs_line": "turns labelled with a line", "needs_none": "turns labelled none"}


def read_results(folder: Path) -> dict[str, Any]:
    """The results of a finished run."""
    value: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return value


def _stated(system: Result) -> float | None:
    # A shuffled persona answers next to no question of the dialogue: there is no line to state.
    return None if system["part"] == "shuffled" else _mean(_first_judge(system), "recall")


def _contradicted(system: Result) -> float | None:
    return _mean(_first_judge(system), "contradict_rate/all")


@dataclass(frozen=True, slots=True)
class Headline:
    """A column of the one table that a run prints; `meaning` may name the `judge` that decides."""

    name: str
    form: str
    read: Callable[[Result], float | None]
    meaning: str
    higher_is_better: bool = True


HEADLINES = (
    Headline(
        "states",
        ".2f",
        _stated,
        "share of the turns that need a line whose reply states that line (recall, judge {judge})",
    ),
    Headline(
        "contra.",
        ".2f",
        _contradicted,
        "share of all turns whose reply contradicts the persona (contradict_rate, judge {judge})",
        higher_is_better=False,
    ),
    Headline(
        "selects",
        ".2f",
        lambda system: system.get("selection/accuracy"),
        "share of all turns on which the right line, or rightly none, was chosen (selection/accuracy)",
    ),
    Headline(
        "none",
        ".2f",
        lambda system: system.get("share_none"),
        "share of all turns on which no line was chosen (share_none)",
        higher_is_better=False,
    ),
    Headline(
        "BLEU-1",
        ".1f",
        lambda system: system.get("bleu-1/coco"),
        "overlap of words with the gold reply (bleu-1/coco)",
    ),
    Headline(
        "ppl",
        ".2f",
        lambda system: system.get("ppl/token"),
        "perplexity of the gold reply (ppl/token); compare within this table only",
        higher_is_better=False,
    ),
)


def summary_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the one table that a run prints: the headlines that any system has a figure for."""
    columns = _filled(results)
    rows = [
        [str(system["title"]), *(_number(column.read(system), column.form) for column in columns)]
        for system in results.values()
    ]
    return ["system", *(column.name for column in columns)], rows


def legend(results: Results) -> dict[str, str]:
    """What each column of the summary means, and which judge decided."""
    judge = next(iter(judged_names(results)), None)
    return {column.name: column.meaning.format(judge=judge) for column in _filled(results)}


def _filled(results: Results) -> list[Headline]:
    return [column for column in HEADLINES if any(_known(column.read(system)) for system in results.values())]


def results_table(results: Results) -> str:
    """Every metric of every system, one table per family, with 95 % intervals where there are any."""
    blocks = [
        "# Results",
        "",
        "Systems that do not select (fine-tuning, no selection, the gold replies) are to be compared with those that do "
        "only apart: on turns labelled with a line, and on turns labelled none. Oracle selection reads the label of the "
        "gold reply. Brackets hold 95 % bootstrap intervals by dialogue.",
        "",
        "## At a glance",
        "",
        *(f"- *{name}*: {meaning}." for name, meaning in legend(results).items()),
        "",
        *markdown(*summary_rows(results)),
        "",
    ]
    blocks += [
        "## Text",
        "",
        *plain_table(results, _TEXT),
        "",
        "## Selection",
        "",
        *plain_table(results, _SELECTION),
        "",
    ]
    blocks += _another_persona(results)
    for judge in judged_names(results):
        blocks += [f"## Consistency, {judge}", ""]
        for part, title in _PARTS.items():
            header = ["system", *_CONSISTENCY, *(["recall"] if part == "needs_line" else [])]
            rows = []
            for system in results.values():
                judged = system.get(_JUDGE + judge, {})
                keys = [f"{metric}/{part}" for metric in _CONSISTENCY]
                keys += ["recall"] if part == "needs_line" else []
                rows.append([str(system["title"]), *(with_interval(judged.get(key)) for key in keys)])
            blocks += [f"### On {title}", "", *markdown(header, rows), ""]
    return "\n".join(blocks)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'|'.join('---' for _ in header)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _another_persona(results: Results) -> list[str]:
    """Replies under another persona than the dialogue was written for."""
    exchanged = [system for system in results.values() if "old_persona" in system]
    if not exchanged:
        return []
    header = ["system", "judge", "states the new persona's line", "states the old persona's line"]
    rows = []
    for system in exchanged:
        for judge, share in system["old_persona"].items():
            new = None if system["part"] == "shuffled" else _mean(system[_JUDGE + judge], "recall")
            rows.append([str(system["title"]), judge, _number(new, ".3f"), _number(share, ".3f")])
    note = (
        "The same histories under another persona: one with the same kinds of fact and other values (swapped), or "
        "somebody else's (shuffled), which answers next to none of the questions."
    )
    return ["## Another persona", "", note, "", *markdown(header, rows), ""]


def plain_table(results: Results, columns: Sequence[Column]) -> list[str]:
    header = ["system", *(name for name, _ in columns)]
    rows = [
        [str(system["title"]), *(_number(system.get(name), form) for name, form in columns)]
        for system in results.values()
    ]
    return markdown(header, rows)


def judged_names(results: Results) -> list[str]:
    """The judges that decided about any system."""
    return list(dict.fromkeys(name for system in results.values() for name in _judge_names(system)))


def _judge_names(system: Result) -> list[str]:
    return [key.removeprefix(_JUDGE) for key in system if key.startswith(_JUDGE)]


def _first_judge(system: Result) -> Mapping[str, Any]:
    return next((system[_JUDGE + name] for name in _judge_names(system)), {})


def _mean(judged: Mapping[str, Any], key: str) -> float | None:
    return judged[key]["mean"] if key in judged else None


def _known(value: float | None) -> bool:
    """Whether there is such a figure: of no turn it is NaN, and a file of results may say null."""
    return value is not None and math.isfinite(value)


def _number(value: float | None, form: str) -> str:
    return format(value, form) if _known(value) else "-"


def with_interval(value: Mapping[str, float | None] | None) -> str:
    """Three digits, and the interval in brackets where it has ends: one dialogue has none."""
    if value is None or not _known(value["mean"]):
        return "-"
    if not _known(value["low"]) or not _known(value["high"]):
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
