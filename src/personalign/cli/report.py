"""`personalign report`: one HTML page, and tables for papers, of runs or of anybody's predictions."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalign.cli._options import keep_existing
from personalign.cli._output import emit_json, output_console, progress
from personalign.cli._systems import (
    chosen_metrics,
    judged_by,
    named_files,
    opened_coherence_judge,
    print_left_out,
    print_remarks,
    remark_on_language,
)
from personalign.data.formats import Format, read_dialogues
from personalign.errors import PersonalignError
from personalign.evaluation.evaluate import (
    Evaluation,
    Part,
    Settings,
    check_choices,
    evaluate_together,
    too_few_to_test,
)
from personalign.evaluation.metrics import METRICS
from personalign.evaluation.report.differences import differences_section
from personalign.evaluation.report.page import Section
from personalign.evaluation.tokens import Language

if TYPE_CHECKING:
    from personalign.evaluation.judge import Judge
    from personalign.models.precision import Dtype


ONE_BACKBONE = ", all from one backbone: what varies with its making is in no range or test over the seeds"


def report(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Run folders (several: seeds), or [NAME=]FILE[,FILE...] of predictions with --data.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="The dialogues that were answered; for files of predictions.")
    ] = None,
    format: Annotated[
        Format | None, typer.Option("--format", help="Format of the data; recognised when left out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; RUN/report, or report, by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a report that exists.")] = False,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="Judge of consistency, repeatable; the run's own by default. The first one's verdicts stand with the "
            "cases. `none` for no judge."
        ),
    ] = None,
    coherence_judge: Annotated[
        str | None, typer.Option(help="CLV's judge of persona, context and reply: a folder or hub id.")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Metrics by name, repeatable or joined by commas; all when left out."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="System that the others are tested against; fine-tuning in a report on runs."),
    ] = None,
    part: Annotated[
        Part, typer.Option(help="Which turns the figures are of: labelled with a line, or labelled none.")
    ] = "all",
    language: Annotated[
        Language | None, typer.Option(help="zh counts characters, zh-word words; the run's by default.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the report.")] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=100,
            help="Resamples of every interval and, at least, of every test; the run's by default, else 1,000.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the resampling; the first run's own by default, else 0.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Write a report that opens in any browser without a network, and its tables in Markdown, LaTeX and CSV.

    It shows every figure with its interval, training curves, selection strategies, differences, and a browser of all
    turns: dialogue, persona, each system's reply, the line that it selected and the judge's verdict on every line.
    """
    from personalign.methods import reporting
    from personalign.methods.judges import described
    from personalign.methods.lineup import GOLD

    folders = _run_folders(sources, data)
    chosen = chosen_metrics(metrics)
    target = out or (folders[0] / "report" if folders else Path("report"))
    _check_target(target, reporting.REPORT_FILES, force=force)
    facts: list[tuple[str, str]] = []
    sections: list[Section] = []
    shared = ""
    runs: list[reporting.FinishedRun] = []
    dtype: Dtype = "auto"
    bounds: frozenset[str] = frozenset()
    if folders:
        runs = [reporting.open_run(folder) for folder in folders]
        recipe = runs[0].recipe
        spoken: Language = language or recipe.language
        systems = reporting.answers_of_runs(runs, language=spoken)
        dialogues = runs[0].dialogues
        judge = judge or list(recipe.evaluation.judges)
        dtype = recipe.evaluation.judge_dtype
        competing = [name for name in systems if name != GOLD]
        if against is None and "fine-tuning" in competing and len(competing) > 1:
            against = "fine-tuning"
        bounds = runs[0].bounds()
        # As in the run's own tables.
        seed = recipe.seed if seed is None else seed
        samples = recipe.evaluation.bootstrap if samples is None else samples
        sections.append(reporting.training_section(runs))
        sections.append(reporting.attention_section(runs))
        facts += [("recipe", recipe.name), ("runs", "; ".join(run.folder.name for run in runs))]
        shared = ONE_BACKBONE if reporting.share_a_backbone(runs) else ""
        facts.append(("seeds", "; ".join(str(run.recipe.seed) for run in runs) + shared))
        heading = title or f"{recipe.name}: {recipe.description}"
    else:
        assert data is not None
        spoken = language or "en"
        dialogues = read_dialogues(data, format=format)
        systems = reporting.answers_of_files(named_files(sources), dialogues, language=spoken)
        facts.append(("data", data.name))
        heading = title or f"Predictions on {data.name}"
    settings = Settings(samples=samples or 1000, seed=seed or 0, part=part)
    check_choices(
        {name: seeds for name, seeds in systems.items() if name != GOLD}, against=against, part=part
    )
    names = _named_judges(judge or [])
    coherence = opened_coherence_judge(coherence_judge)
    # The page shows the first judge's verdict on every line, whatever figures are asked for.
    systems, opened = judged_by(
        next(iter(names), None), systems, [*chosen, METRICS["c_score/max"]], dtype=dtype, coherence=coherence
    )
    asking = [metric for metric in chosen if "judge" in metric.needs]
    parts = [(systems, chosen)]
    judges = {} if opened is None else {names[0]: opened}
    for name in names[1:] if asking else []:
        again, other = judged_by(name, systems, asking, dtype=dtype)
        assert other is not None
        parts.append((again, asking))
        judges[name] = other
    found, *others = evaluate_together(
        parts, against=against, reference=GOLD, bounds=bounds, settings=settings, progress=progress
    )
    called = _told_apart(judges)
    first = next(iter(called), None)
    further = dict(zip(called[1:], others, strict=True))
    sections.append(reporting.selection_section(found))
    sections.append(reporting.sessions_section(runs, found))
    sections.append(differences_section(found, judge=first))
    told = [
        text if title != source or text.startswith(source) else f"{source}: {text}"
        for source, title, text in zip(judges, called, map(described, judges), strict=True)
    ]
    facts.append(("judge", "; ".join(told) or "none"))
    if coherence_judge is not None and coherence is not None:
        shortened = f"; {len(coherence.shortened):,} contexts shortened" if coherence.shortened else ""
        facts.append(("coherence judge", f"{coherence_judge}{shortened}"))
    facts += [
        ("figures", _turns_of(part)),
        ("language", spoken),
        ("intervals", f"95 %, {settings.samples:,} resamples by dialogue, seed {settings.seed}"),
    ]
    if found.test_samples:
        facts.append(("tests", f"{found.test_samples:,} resamples by dialogue"))
    if remark := too_few_to_test(found):
        facts.append(("too few", remark))
    written = reporting.write_report(
        target,
        title=heading,
        found=found,
        systems=systems,
        dialogues=dialogues,
        sections=sections,
        facts=facts,
        judge=first,
        note=_note([found, *others], part=part, judges=told, seeds=shared),
        language=spoken,
        further=further,
    )
    console = output_console()
    for path in written.values():
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    print_left_out(found)
    print_remarks([remark_on_language(systems), too_few_to_test(found)])
    if as_json:
        emit_json({"files": written, "turns": found.turns, "systems": list(found.scores)})


def _turns_of(part: Part) -> str:
    return {"needs_line": "of turns labelled with a line", "needs_none": "of turns labelled none"}.get(
        part, "of all turns"
    )


def _named_judges(given: Sequence[str]) -> list[str]:
    """The judges that are asked for, without `none`. Raises PersonalignError for one that is named twice."""
    names = [name for name in given if name != "none"]
    for earlier, later in combinations(names, 2):
        # A folder can be written in several ways.
        if earlier == later or (Path(earlier).is_dir() and Path(earlier).resolve() == Path(later).resolve()):
            raise PersonalignError(
                f"the judges '{earlier}' and '{later}' are one; name every judge once, with --judge"
            )
    return names


def _told_apart(judges: "Mapping[str, Judge]") -> list[str]:
    """What each judge is called in the tables: by its name or, where another one has that too, as it was asked for."""
    names = [one.name for one in judges.values()]
    return [given if names.count(one.name) > 1 else one.name for given, one in judges.items()]


def _note(evaluations: Sequence[Evaluation], *, part: Part, judges: Sequence[str], seeds: str) -> str:
    """What a table must say that stands alone in a paper; `evaluations` are those by each judge."""
    found = evaluations[0]
    differences = [
        one for by_judge in evaluations for some in by_judge.differences.values() for one in some.values()
    ]
    said = [f"Figures {_turns_of(part)}: {found.turns:,} turns of {found.dialogues:,} dialogues."]
    said.append("Brackets: 95 % intervals by dialogue.")
    if differences:
        tests = sorted({one.test for one in differences})
        said.append(
            f"Stars: differs from {found.against} (* p < .05, ** p < .01, *** p < .001; {', '.join(tests)}, Holm's "
            f"correction for {len(differences)} tests{', of all judges together' if len(evaluations) > 1 else ''})."
        )
    if seeds:
        said.append(f"Seeds{seeds}.")
    if judges:
        said.append(f"Judges of consistency: {'; '.join(judges)}.")
    if found.bounds:
        said.append(f"{', '.join(sorted(found.bounds))}: reads the label of the gold reply, an upper bound.")
    return " ".join(said)


def _run_folders(sources: Sequence[str], data: Path | None) -> list[Path]:
    """The sources as run folders; none where they are files of predictions."""
    for source in sources:
        if not Path(source).exists() and not {"=", ","} & set(source):
            raise PersonalignError(f"{source} is neither a run folder nor a file of predictions")
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    if folders and (len(folders) < len(sources) or data is not None):
        raise PersonalignError("give either run folders, or files of predictions with --data")
    if not folders and data is None:
        raise PersonalignError("files of predictions need --data, the dialogues that they answer")
    return folders


def _check_target(target: Path, names: Sequence[str], *, force: bool) -> None:
    """Raises PersonalignError where the report cannot be written, or would overwrite files, before anything is judged."""
    there = next(place for place in (target, *target.parents) if place.exists())
    if not there.is_dir():
        raise PersonalignError(f"{there} is a file; name a folder with --out")
    keep_existing(*(target / name for name in names), force=force)
