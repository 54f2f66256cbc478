"""Tables of results, in Markdown: what was measured, under the metrics' exact names."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Results = Mapping[str, Mapping[str, Any]]
Column = tuple[str, str]

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
    ("selection/macro_f1", ".3f"),
)
LEGEND = {
    "states": "share of the turns that need a line whose reply states that line",
    "contra.": "share of all turns whose reply contradicts the persona",
    "selects": "share of all turns on which the right line, or rightly none, was chosen",
    "none": "share of all turns on which no line was chosen",
    "BLEU-1": "overlap of words with the gold reply, bleu-1/coco",
    "ppl": "perplexity of the gold reply per token; compare within this table only",
}
_CONSISTENCY = ("c_score/max", "c_score/sum", "entail_rate", "contradict_rate")
_PARTS = {"all": "all turns", "needs_line": "turns labelled with a line", "needs_none": "turns labelled none"}


def read_results(folder: Path) -> dict[str, Any]:
    """The results of a finished run."""
    value: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return value


def summary_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the one table that a run prints: the first judge, the headline metrics that there are."""
    header = ["system", "states", "contra.", "selects", "none", "BLEU-1", "ppl"]
    rows = []
    for system in results.values():
        judged = _first_judge(system)
        rows.append(
            [
                str(system["title"]),
                # A shuffled persona answers next to no question of the dialogue: there is no line to state.
                "-" if system["part"] == "shuffled" else _number(_mean(judged, "recall"), ".2f"),
                _number(_mean(judged, "contradict_rate/all"), ".2f"),
                _number(system.get("selection/accuracy"), ".2f"),
                _number(system.get("share_none"), ".2f"),
                _number(system.get("bleu-1/coco"), ".1f"),
                _number(system.get("ppl/token"), ".2f"),
            ]
        )
    filled = [index for index in range(len(header)) if any(row[index] != "-" for row in rows)]
    return [header[index] for index in filled], [[row[index] for index in filled] for row in rows]


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
        *(f"- *{name}*: {meaning}" for name, meaning in LEGEND.items()),
        "",
        *markdown(*summary_rows(results)),
        "",
    ]
    blocks += [
        "## Text",
        "",
        *_plain_table(results, _TEXT),
        "",
        "## Selection",
        "",
        *_plain_table(results, _SELECTION),
        "",
    ]
    blocks += _another_persona(results)
    for judge in dict.fromkeys(
        key for system in results.values() for key in system if key.startswith("judge:")
    ):
        blocks += [f"## Consistency, {judge.removeprefix('judge:')}", ""]
        for part, title in _PARTS.items():
            header = ["system", *_CONSISTENCY, *(["recall"] if part == "needs_line" else [])]
            rows = []
            for system in results.values():
                judged = system.get(judge, {})
                keys = [f"{metric}/{part}" for metric in _CONSISTENCY]
                keys += ["recall"] if part == "needs_line" else []
                rows.append([str(system["title"]), *(_interval(judged.get(key)) for key in keys)])
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
            new = None if system["part"] == "shuffled" else _mean(system[f"judge:{judge}"], "recall")
            rows.append([str(system["title"]), judge, _number(new, ".3f"), _number(share, ".3f")])
    note = (
        "The same histories under another persona: one with the same kinds of fact and other values (swapped), or "
        "somebody else's (shuffled), which answers next to none of the questions."
    )
    return ["## Another persona", "", note, "", *markdown(header, rows), ""]


def _plain_table(results: Results, columns: Sequence[Column]) -> list[str]:
    header = ["system", *(name for name, _ in columns)]
    rows = [
        [str(system["title"]), *(_number(system.get(name), form) for name, form in columns)]
        for system in results.values()
    ]
    return markdown(header, rows)


def _first_judge(system: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((value for key, value in system.items() if key.startswith("judge:")), {})


def _mean(judged: Mapping[str, Any], key: str) -> float | None:
    return judged[key]["mean"] if key in judged else None


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _interval(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
