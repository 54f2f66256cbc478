"""`personalign report`: one HTML page, and tables for papers, of runs or of anybody's predictions."""

from pathlib import Path
from typing import Annotated

import typer

from personalign.cli._counting import counting
from personalign.cli._output import emit_json, output_console, progress
from personalign.cli._systems import chosen_metrics, judge_ahead, named_files, opened_judge
from personalign.data.formats import Format, read_dialogues
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Reply
from personalign.evaluation.evaluate import Part, Settings, evaluate
from personalign.evaluation.predictions import questions_of, read_predictions
from personalign.evaluation.report.page import Section
from personalign.evaluation.tokens import Language


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
    judge: Annotated[
        str | None,
        typer.Option(help="Judge of consistency; the run's first one by default. `none` for no judge."),
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
    samples: Annotated[int, typer.Option(min=100, help="Resamples of every interval and test.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Write a report that opens in any browser without a network, and its table in Markdown, LaTeX and CSV.

    It shows every figure with its interval, training curves, selection strategies, differences, and a browser of all
    turns: dialogue, persona, each system's reply, the line that it selected and the judge's verdict on every line.
    """
    from personalign.methods import reporting
    from personalign.methods.lineup import GOLD

    folders = [Path(source) for source in sources if Path(source).is_dir()]
    if folders and (len(folders) < len(sources) or data is not None):
        raise PersonalignError("give either run folders, or files of predictions with --data")
    if not folders and data is None:
        raise PersonalignError("files of predictions need --data, the dialogues that they answer")
    chosen = chosen_metrics(metrics)
    target = out or (folders[0] / "report" if folders else Path("report"))
    if target.exists() and not (target / "report.html").is_file() and any(target.iterdir()):
        raise PersonalignError(f"{target} holds something else than a report; name another folder with --out")
    facts: list[tuple[str, str]] = []
    sections: list[Section] = []
    systems: dict[str, list[Answers]]
    if folders:
        runs = [reporting.open_run(folder) for folder in folders]
        recipe = runs[0].recipe
        spoken: Language = language or recipe.language
        judge = judge or next(iter(recipe.evaluation.judges), None)
        with counting("judging") as done:
            opened = opened_judge(None if judge == "none" else judge, language=spoken, progress=done)
            systems = dict(reporting.answers_of_runs(runs, language=spoken, judge=opened))
            judge_ahead(systems, chosen)
        dialogues = runs[0].dialogues
        against = against or next((name for name in systems if name == "fine-tuning"), None)
        sections.append(reporting.training_section(runs))
        facts += [("recipe", recipe.name), ("runs", ", ".join(run.folder.name for run in runs))]
        facts.append(("seeds", ", ".join(str(run.recipe.seed) for run in runs)))
        heading = title or f"{recipe.name}: {recipe.description}"
    else:
        assert data is not None
        spoken = language or "en"
        dialogues = read_dialogues(data, format=format)
        questions = questions_of(dialogues)
        if not questions:
            raise PersonalignError(f"{data} has no assistant turn; there is nothing to answer")
        with counting("judging") as done:
            opened = opened_judge(None if judge == "none" else judge, language=spoken, progress=done)
            gold = [Reply(question.gold or "") for question in questions]
            systems = {GOLD: [Answers(questions, gold, language=spoken, judge=opened)]}
            for name, files in named_files(sources).items():
                systems[name] = [
                    Answers(questions, read_predictions(file, questions), language=spoken, judge=opened)
                    for file in files
                ]
            judge_ahead(systems, chosen)
        facts.append(("data", data.name))
        heading = title or f"Predictions on {data.name}"
    with progress("measuring", total=len(systems) * len(chosen)) as advance:
        found = evaluate(
            systems,
            metrics=chosen,
            against=against,
            settings=Settings(samples=samples, seed=seed, part=part),
            tell=lambda _: advance(1),
        )
    sections += [reporting.selection_section(found), reporting.differences_section(found)]
    facts += [
        ("judge", "none" if opened is None else opened.name),
        ("figures", {"all": "of all turns"}.get(part, f"of turns in the part {part}")),
        ("language", spoken),
        ("intervals", f"95 %, {samples} resamples by dialogue, seed {seed}"),
    ]
    written = reporting.write_report(
        target,
        title=heading,
        found=found,
        systems=systems,
        dialogues=dialogues,
        sections=sections,
        facts=facts,
        judged=opened is not None,
    )
    console = output_console()
    for path in written.values():
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    if as_json:
        emit_json({"files": written, "turns": found.turns, "systems": list(found.scores)})
