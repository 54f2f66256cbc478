"""The figures of a run: every system's rows measured and judged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from personalign.data.dialogue import Dialogue
from personalign.decoding.selection import labelled_line
from personalign.evaluation.consistency import judge_consistency
from personalign.evaluation.judge import Judge
from personalign.methods.lineup import GOLD, REVISED, REVISED_TITLE, VERBATIM, compared_systems
from personalign.methods.parts import revised
from personalign.methods.recipe import Recipe
from personalign.methods.steps import Reporter
from personalign.methods.systems import Row, System, evaluate, gold_rows


def measured(
    recipe: Recipe,
    rows_of: Callable[[str], list[Row]],
    test: Sequence[Dialogue],
    judges: Mapping[str, Judge],
    *,
    reporter: Reporter,
) -> dict[str, Any]:
    """Results by system, the gold replies first; `rows_of` gives what a system predicted."""
    systems = [(System("gold", GOLD, "", "unselected"), gold_rows(test))]
    if recipe.evaluation.revised:
        gold = System("gold_revised", REVISED_TITLE.format(GOLD), "", "unselected", REVISED)
        systems.append((gold, gold_rows(revised(test))))
    systems += [(system, rows_of(system.name)) for system in compared_systems(recipe)]
    if recipe.data.synthetic is None:
        verbatim = System("selected_line", VERBATIM, "", "predicted")
        systems.append((verbatim, [_repeating_its_line(row) for row in rows_of("pal_predicted")]))
    results: dict[str, Any] = {}
    with reporter.task("Judging" if judges else "Measuring", len(systems)) as advance:
        for system, rows in systems:
            results[system.name] = {
                "title": system.title,
                "part": system.part,
                **evaluate(
                    rows,
                    judges,
                    language=recipe.language,
                    bootstrap=recipe.evaluation.bootstrap,
                    seed=recipe.seed,
                ),
            }
            advance(1)
    if recipe.data.synthetic is not None:
        for name in ("pal_swapped", "pal_shuffled"):
            results[name]["old_persona"] = _against_old_persona(rows_of(name), test, judges)
    return results


def _repeating_its_line(row: Row) -> Row:
    """Without what was measured of the gold reply under the model's own prompt."""
    said = row["response"] if row["selected"] is None else row["persona"][row["selected"]]
    kept = {name: value for name, value in row.items() if name not in ("gold_nll", "gold_tokens")}
    return {**kept, "system": "selected_line", "response": said}


def _against_old_persona(
    predicted: Sequence[Row], test: Sequence[Dialogue], judges: Mapping[str, Judge]
) -> dict[str, float]:
    """Replies under another persona, against the line of the persona that the dialogue was written for.

    The share of turns that need a line on which the reply entails the old one, per judge.
    """
    rows = {(row["dialogue"], row["turn"]): row for row in predicted}
    asked = [
        (rows[dialogue.id, turn]["response"], [dialogue.persona[line]])
        for dialogue in test
        for turn in dialogue.reply_indices()
        if (line := labelled_line(dialogue, turn)) is not None
    ]
    responses, lines = [reply for reply, _ in asked], [line for _, line in asked]
    return {
        name: judge_consistency(judge, responses, lines).entail_rate().figure()
        for name, judge in judges.items()
    }
