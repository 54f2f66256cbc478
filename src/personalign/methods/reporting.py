"""Reports on finished runs: their systems on the test turns, what training looked like, how selection mattered."""

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from personalign._files import read_whole_lines, write_text
from personalign.data.dialogue import Dialogue
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.evaluate import Evaluation
from personalign.evaluation.metrics import metric_of
from personalign.evaluation.predictions import questions_of, read_predictions
from personalign.evaluation.report.cases import cases_of
from personalign.evaluation.report.charts import Bar, Line, bar_chart, line_chart
from personalign.evaluation.report.page import Report, Section, page
from personalign.evaluation.report.tables import csv_table, latex_tables, markdown_tables, metrics_of
from personalign.evaluation.tokens import Language
from personalign.methods.idl_lineup import IdlSystem, counted, idl_systems
from personalign.methods.idl_recipe import IdlRecipe
from personalign.methods.lineup import GOLD, compared_systems
from personalign.methods.recipe import Recipe, read_recipe
from personalign.methods.shipped import parse_run_recipe
from personalign.methods.steps import undone
from personalign.methods.systems import System

REPORT_FILES = ("report.html", "table.md", "table.tex", "table.csv")

_CURVES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "loss",
        "loss (nats)",
        ("loss_reply", "loss_selection", "loss_trunk", "loss_text", "loss_copy", "sft_loss"),
    ),
    ("DPO loss", "loss (nats)", ("dpo_loss",)),
    ("DPOC loss", "loss (nats)", ("dpoc_loss",)),
    ("implicit rewards", "nats x beta", ("reward_chosen", "reward_criterion", "reward_rejected", "margin")),
    ("the gold reply's own log-ratio", "nats", ("chosen_log_ratio",)),
    ("pairs ranked right, orders violated", "share", ("pair_accuracy", "violated")),
    # PAL, Figure 4.
    ("C.score while aligning", "c_score/max on the stopping part", ("validation",)),
    ("BLEU-1 while aligning", "bleu-1/coco on the stopping part", ("bleu-1/coco",)),
    ("contradictions while aligning", "contradict_rate on the stopping part", ("contradict_rate",)),
)
# What PAL's selection should move.
_SELECTED = ("recall", "c_score/max", "contradict_rate", "selection/accuracy", "bleu-1/coco")
# Where the recipes of a system's seeds may differ: the seeds, what a run is called, and where it computes.
_OF_ONE_RUN = {
    "seed",
    "data.synthetic.seed",
    "data.split_seed",
    "name",
    "description",
    "measured",
    "backbone.device",
}


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run as a report needs it: its recipe, its test dialogues, and where it keeps what its systems said."""

    folder: Path
    recipe: Recipe | IdlRecipe
    dialogues: Sequence[Dialogue]

    def bounds(self) -> frozenset[str]:
        """Titles of the systems that read the label of the gold reply."""
        if isinstance(self.recipe, IdlRecipe):
            return frozenset()
        return frozenset(
            system.title
            for system in compared_systems(self.recipe)
            if system.strategy == "oracle" and system.part == "test"
        )

    def titles(self) -> dict[str, str]:
        """Title and file name of every system that answered the test turns; the other parts are other turns."""
        systems: Sequence[System | IdlSystem] = (
            compared_systems(self.recipe)
            if isinstance(self.recipe, Recipe)
            else [
                # Clusters are compared on some of the turns alone.
                system
                for system in idl_systems(self.recipe)
                if system.clusters is None
            ]
        )
        return {system.title: system.name for system in systems if system.part == "test"}


def open_run(folder: Path) -> FinishedRun:
    """Raises PersonalignError where the folder is no run, or its predictions are not all there."""
    recipe_file = folder / "recipe.yaml"
    if not recipe_file.is_file():
        raise PersonalignError(
            f"{folder} is no run: it has no recipe.yaml; give a run folder or files of predictions"
        )
    recipe = parse_run_recipe(read_recipe(recipe_file), source=str(recipe_file))
    data = folder / ("tested" if isinstance(recipe, IdlRecipe) else "data") / "test.jsonl.gz"
    run = FinishedRun(folder, recipe, read_dialogues(data) if data.is_file() else [])
    left = undone(folder)
    missing = [
        name
        for name in run.titles().values()
        if f"predict:{name}" in left or not (folder / "predictions" / f"{name}.jsonl").is_file()
    ]
    if missing or not run.dialogues:
        again = shlex.join(["personalign", "run", str(recipe_file), "--out", str(folder), "--resume"])
        raise PersonalignError(
            f"the run {folder} is not finished: it lacks {', '.join(missing) or 'its dialogues'}; go on with `{again}`"
        )
    return run


def check_seeds(runs: Sequence[FinishedRun]) -> None:
    """Raises PersonalignError unless the runs are of one recipe, on the same test turns, each with a seed of its own."""
    first = runs[0]
    settings = _settings(_from_its_beginning(first))
    for run in runs[1:]:
        other = _settings(_from_its_beginning(run))
        differing = [key for key in settings | other if settings.get(key) != other.get(key)]
        if differing:
            key = differing[0]
            raise PersonalignError(
                f"{first.folder} and {run.folder} are no seeds of one recipe: `{key}` is "
                f"{json.dumps(settings.get(key))} in the first, {json.dumps(other.get(key))} in the second; report them "
                "apart"
            )
        if questions_of(run.dialogues) != questions_of(first.dialogues):
            raise PersonalignError(
                f"{run.folder} was tested on other dialogues than {first.folder}; report them apart"
            )
    for earlier, later in combinations(runs, 2):
        if earlier.recipe.seed == later.recipe.seed:
            raise PersonalignError(
                f"{earlier.folder} and {later.folder} both have the seed {later.recipe.seed}; give runs of different "
                "seeds"
            )


def share_a_backbone(runs: Sequence[FinishedRun]) -> bool:
    """Whether one run made the backbone that all begin from: then its making is one draw for all of them."""
    return len(runs) > 1 and len({_made_by(run) or run.folder.resolve() for run in runs}) == 1


def _made_by(run: FinishedRun) -> Path | None:
    """The folder of the run that made the backbone from random weights, where it was another run."""
    backbone = Path(run.recipe.backbone.name or "")
    if backbone.parts[-2:] != ("models", "backbone"):
        return None
    # The name holds where the run was started: mostly in a folder above it, whatever the working folder is now.
    for start in (*run.folder.resolve().parents, Path.cwd()):
        maker = (start / backbone).parent.parent
        if (maker / "recipe.yaml").is_file():
            return maker.resolve()
    return None


def _from_its_beginning(run: FinishedRun) -> dict[str, Any]:
    """The recipe; one that starts from another run's backbone as if it had made it, so that seeds may share one."""
    values = run.recipe.model_dump(mode="json")
    if (made_by := _made_by(run)) is not None:
        recipe_file = made_by / "recipe.yaml"
        maker = parse_run_recipe(read_recipe(recipe_file), source=str(recipe_file)).model_dump(mode="json")
        values["backbone"] |= {name: maker["backbone"][name] for name in ("name", "scratch")}
        values["stages"] |= {name: maker["stages"][name] for name in ("copying", "pretrain")}
    return values


def _settings(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What runs of one recipe share, by dotted key."""
    settings: dict[str, Any] = {}
    for name, value in section.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            settings |= _settings(value, f"{key}.")
        elif key not in _OF_ONE_RUN:
            settings[key] = value
    return settings


def answers_of_runs(runs: Sequence[FinishedRun], *, language: Language) -> dict[str, list[Answers]]:
    """The gold replies, and every system of the runs, of which each run is a seed.

    Raises PersonalignError where the runs are no seeds of one recipe.
    """
    check_seeds(runs)
    questions = questions_of(runs[0].dialogues)
    systems = {GOLD: [_gold(questions, language=language)]}
    for run in runs:
        for title, name in run.titles().items():
            replies = read_predictions(run.folder / "predictions" / f"{name}.jsonl", questions)
            systems.setdefault(title, []).append(Answers(questions, replies, language=language))
    return systems


def answers_of_files(
    files: Mapping[str, Sequence[Path]], dialogues: Sequence[Dialogue], *, language: Language
) -> dict[str, list[Answers]]:
    """The gold replies, and every system by its name, each file being a seed of it.

    Raises PersonalignError where there is nothing to answer, a system has the name of the gold replies, or a file does
    not fit the dialogues.
    """
    if GOLD in files:
        raise PersonalignError(
            f"a system cannot be called '{GOLD}', as the row of the data's own replies is; write another NAME=FILE"
        )
    questions = questions_of(dialogues)
    if not questions:
        raise PersonalignError("the data has no assistant turn; there is nothing to answer")
    systems = {GOLD: [_gold(questions, language=language)]}
    for name, seeds in files.items():
        systems[name] = [
            Answers(questions, read_predictions(file, questions), language=language) for file in seeds
        ]
    return systems


def _gold(questions: Sequence[Question], *, language: Language) -> Answers:
    return Answers(questions, [Reply(question.gold or "") for question in questions], language=language)


def training_section(runs: Sequence[FinishedRun]) -> Section:
    """Every stage's curves, one figure per kind of curve, from the runs' journals."""
    charts = []
    for run in runs:
        stages: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        journal = run.folder / "metrics.jsonl"
        if journal.is_file():
            for row in read_whole_lines(journal):
                if {"reward_chosen", "reward_rejected"} <= set(row):
                    row["margin"] = row["reward_chosen"] - row["reward_rejected"]
                stages[row["stage"]].append(row)
        suffix = f", {run.folder.name}" if len(runs) > 1 else ""
        for stage, rows in stages.items():
            for title, unit, keys in _CURVES:
                lines = [Line(key, [(row["step"], row[key]) for row in rows if key in row]) for key in keys]
                charts.append(line_chart(lines, title=f"{stage}: {title}{suffix}", x="update", y=unit))
    return Section("Training", [chart for chart in charts if chart])


def sessions_section(runs: Sequence[FinishedRun], found: Evaluation) -> Section:
    """How much more sessions help (IDL, Figure 4), by each figure that they should move."""
    numbers = sorted(
        {most for run in runs if isinstance(run.recipe, IdlRecipe) for most in run.recipe.compared.sessions}
    )
    printed = {metric_of(metric).name: metric for metric in metrics_of(found)}
    charts = []
    for metric in (printed[name] for name in _SELECTED if name in printed):
        lines = []
        for title in ("in-context learning", "IDL"):
            points = [
                (float(number), found.scores[name][metric].estimate.value)
                for number in numbers
                if metric in found.scores.get(name := f"{title}, {counted(number)}", {})
            ]
            lines.append(Line(title, points))
        charts.append(line_chart(lines, title=metric, x="sessions told", y=metric))
    return Section("Number of sessions", [chart for chart in charts if chart])


def attention_section(runs: Sequence[FinishedRun]) -> Section:
    """What is looked at in the sessions (IDL, Figure 5), of the first run that has it."""
    for run in runs:
        path = run.folder / "attention.html"
        if isinstance(run.recipe, IdlRecipe) and run.recipe.compared.attention and path.is_file():
            return Section("Attention", [path.read_text(encoding="utf-8")])
    return Section("Attention", [])


def selection_section(found: Evaluation) -> Section:
    """PAL's ways of selecting side by side (its Figure 3), by each figure that selection should move."""
    names = [name for name in found.scores if name == "PAL" or name.startswith("PAL,")]
    printed = {metric_of(metric).name: metric for metric in metrics_of(found)}
    charts = []
    for metric in (printed[name] for name in _SELECTED if name in printed):
        estimates = {
            name: found.scores[name][metric].estimate for name in names if metric in found.scores[name]
        }
        bars = [Bar(name, one.value, one.low, one.high) for name, one in estimates.items()]
        if len(bars) > 1:
            charts.append(bar_chart(bars, title=metric))
    return Section(
        "Selection strategies",
        [chart for chart in charts if chart],
        "Oracle selection reads the label of the gold reply. Compare systems that select at one share of none.",
    )


def write_report(
    folder: Path,
    *,
    title: str,
    found: Evaluation,
    systems: Mapping[str, Sequence[Answers]],
    dialogues: Sequence[Dialogue],
    sections: Sequence[Section],
    facts: Sequence[tuple[str, str]],
    judge: str | None,
    note: str = "",
    language: Language = "en",
    further: Mapping[str, Evaluation] = {},
) -> dict[str, Path]:
    """Write `REPORT_FILES`, each whole, and touch nothing else in the folder.

    `judge`: the name of the systems' own, None where they have none; `further`: what other judges say of them; `note`:
    what the tables say of their figures.
    """
    cases = cases_of(
        {name: seeds[0] for name, seeds in systems.items()},
        {dialogue.id: dialogue for dialogue in dialogues},
        judged=judge is not None,
        reference=found.reference,
    )
    texts = (
        page(Report(title, found, cases, sections, facts, language, further)),
        markdown_tables(found, title=title, note=note, further=further),
        latex_tables(found, caption=title, note=note, further=further),
        csv_table(found, judge=judge or "", further=further),
    )
    for name, text in zip(REPORT_FILES, texts, strict=True):
        write_text(folder / name, text)
    return {name: folder / name for name in REPORT_FILES}
