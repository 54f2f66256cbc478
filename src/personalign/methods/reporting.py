"""Reports on finished runs: their systems on the test turns, what training looked like, how selection mattered."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from personalign._files import whole_folder, write_text
from personalign.data.dialogue import Dialogue
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Reply
from personalign.evaluation.evaluate import Evaluation
from personalign.evaluation.judge import Judge
from personalign.evaluation.predictions import questions_of, read_predictions
from personalign.evaluation.report.cases import cases_of
from personalign.evaluation.report.charts import Bar, Line, bar_chart, line_chart
from personalign.evaluation.report.page import Report, Section, page
from personalign.evaluation.report.tables import csv_table, latex_table, markdown_table, metrics_of
from personalign.evaluation.tokens import Language
from personalign.methods.lineup import GOLD, compared_systems
from personalign.methods.recipe import Recipe, parse_recipe, read_recipe

_CURVES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "loss",
        "loss (nats)",
        ("loss_reply", "loss_selection", "loss_trunk", "loss_text", "loss_copy", "sft_loss"),
    ),
    ("DPO loss", "loss (nats)", ("dpo_loss",)),
    ("implicit rewards", "nats x beta", ("reward_chosen", "reward_rejected", "margin")),
    ("pairs ranked right", "share", ("pair_accuracy",)),
    ("C.score while aligning", "c_score/max on the stopping part", ("validation",)),
)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run as a report needs it: its recipe, its test dialogues, and where it keeps what its systems said."""

    folder: Path
    recipe: Recipe
    dialogues: Sequence[Dialogue]

    def titles(self) -> dict[str, str]:
        """Title and file name of every system that answered the test turns; the other parts are other turns."""
        return {
            system.title: system.name for system in compared_systems(self.recipe) if system.part == "test"
        }


def open_run(folder: Path) -> FinishedRun:
    """Raises PersonalignError where the folder is no run, or its predictions are not all there."""
    recipe_file, data = folder / "recipe.yaml", folder / "data" / "test.jsonl.gz"
    if not recipe_file.is_file():
        raise PersonalignError(
            f"{folder} is no run: it has no recipe.yaml; give a run folder or files of predictions"
        )
    recipe = parse_recipe(read_recipe(recipe_file), source=str(recipe_file))
    run = FinishedRun(folder, recipe, read_dialogues(data) if data.is_file() else [])
    missing = [
        name for name in run.titles().values() if not (folder / "predictions" / f"{name}.jsonl").is_file()
    ]
    if missing or not run.dialogues:
        raise PersonalignError(
            f"the run {folder} is not finished: it lacks {', '.join(missing) or 'its dialogues'}; go on with "
            f"`personalign run {recipe_file} --out {folder} --resume`"
        )
    return run


def answers_of_runs(
    runs: Sequence[FinishedRun], *, language: Language, judge: Judge | None
) -> dict[str, list[Answers]]:
    """The gold replies, and every system of the runs, runs of one recipe with other seeds being its seeds.

    Raises PersonalignError where the runs were tested on other dialogues.
    """
    questions = questions_of(runs[0].dialogues)
    gold = [Reply(question.gold or "") for question in questions]
    systems: dict[str, list[Answers]] = {GOLD: [Answers(questions, gold, language=language, judge=judge)]}
    for run in runs:
        own = questions_of(run.dialogues)
        if [q.key for q in own] != [q.key for q in questions] or [q.gold for q in own] != [
            q.gold for q in questions
        ]:
            raise PersonalignError(
                f"{run.folder} was tested on other dialogues than {runs[0].folder}; report them apart"
            )
        for title, name in run.titles().items():
            replies = read_predictions(run.folder / "predictions" / f"{name}.jsonl", own)
            # Another seed of the synthetic corpus has other people of the same names: each keeps its own questions.
            systems.setdefault(title, []).append(Answers(own, replies, language=language, judge=judge))
    return systems


def training_section(runs: Sequence[FinishedRun]) -> Section:
    """Every stage's curves, one figure per kind of curve, from the runs' journals."""
    charts = []
    for run in runs:
        stages: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        journal = run.folder / "metrics.jsonl"
        if journal.is_file():
            for line in journal.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                if {"reward_chosen", "reward_rejected"} <= set(row):
                    row["margin"] = row["reward_chosen"] - row["reward_rejected"]
                stages[row["stage"]].append(row)
        suffix = f", {run.folder.name}" if len(runs) > 1 else ""
        for stage, rows in stages.items():
            for title, unit, keys in _CURVES:
                lines = [Line(key, [(row["step"], row[key]) for row in rows if key in row]) for key in keys]
                charts.append(line_chart(lines, title=f"{stage}: {title}{suffix}", x="update", y=unit))
    return Section("Training", [chart for chart in charts if chart])


def selection_section(found: Evaluation) -> Section:
    """PAL's ways of selecting side by side (its Figure 3), by each figure that selection should move."""
    names = [name for name in found.scores if name == "PAL" or name.startswith("PAL,")]
    charts = []
    for metric in ("recall", "c_score/max", "contradict_rate", "selection/accuracy", "bleu-1/coco"):
        estimates = {
            name: found.scores[name][metric].estimate for name in names if metric in found.scores[name]
        }
        bars = [Bar(name, one.value, one.low, one.high) for name, one in estimates.items()]
        if len(bars) > 1:
            charts.append(bar_chart(bars, title=metric))
    return Section(
        "Selection strategies",
        charts,
        "Oracle selection reads the label of the gold reply. Compare systems that select at one share of none.",
    )


def differences_section(found: Evaluation) -> Section:
    """Every tested difference in standard deviations of the dialogues' own, so that metrics can stand side by side."""
    charts = []
    for name, differences in found.differences.items():
        bars = [
            Bar(f"{metric} {difference.stars}".strip(), difference.comparison.effect, np.nan, np.nan)
            for metric, difference in differences.items()
            if np.isfinite(difference.comparison.effect)
        ]
        charts.append(bar_chart(bars, title=f"{name} minus {found.against}: effect size d_z by metric"))
    return Section("Differences", [chart for chart in charts if chart])


def write_report(
    folder: Path,
    *,
    title: str,
    found: Evaluation,
    systems: Mapping[str, Sequence[Answers]],
    dialogues: Sequence[Dialogue],
    sections: Sequence[Section],
    facts: Sequence[tuple[str, str]],
    judged: bool,
) -> dict[str, Path]:
    """Write `report.html`, `table.md`, `table.tex` and `table.csv`; the folder appears, or changes, whole."""
    first_seeds = {name: seeds[0] for name, seeds in systems.items()}
    cases = cases_of(first_seeds, {dialogue.id: dialogue for dialogue in dialogues}, judged=judged)
    metrics = metrics_of(found)
    texts = {
        "report.html": page(Report(title, found, cases, sections, facts)),
        "table.md": f"# {title}\n\n{markdown_table(found, metrics)}",
        "table.tex": latex_table(found, metrics, caption=title),
        "table.csv": csv_table(found, metrics),
    }
    with whole_folder(folder, replace=True) as whole:
        for name, text in texts.items():
            write_text(whole / name, text)
    return {name: folder / name for name in texts}
