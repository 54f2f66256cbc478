"""`personalign evaluate`: score any system's predictions, and hold systems against one another."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from personalign.cli._output import emit_json, message_console, print_table, progress
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
from personalign.evaluation.answers import Answers
from personalign.evaluation.evaluate import Evaluation, Part, Settings, check_choices, too_few_to_test
from personalign.evaluation.evaluate import evaluate as evaluate_systems
from personalign.evaluation.predictions import questions_of, read_predictions
from personalign.evaluation.report.tables import better_or_worse, digits_for, interval_of
from personalign.evaluation.tokens import Language


def evaluate(
    predictions: Annotated[
        list[str],
        typer.Argument(
            help="[NAME=]FILE of one system, or FILE,FILE,... of its seeds: JSON Lines {dialogue, turn, response} in "
            "any order, or plain lines in the order of the data.",
            show_default=False,
        ),
    ],
    data: Annotated[Path, typer.Option(help="The dialogues that were answered.")],
    format: Annotated[
        Format | None, typer.Option("--format", help="Format of the data; recognised when left out.")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Metrics by name, repeatable or joined by commas; all when left out."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Judge of consistency: a folder, a hub id, `oracle` for the synthetic corpus, or llm:MODEL."
        ),
    ] = None,
    coherence_judge: Annotated[
        str | None, typer.Option(help="CLV's judge of persona, context and reply: a folder or hub id.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Name of the system that the others are tested against.")
    ] = None,
    part: Annotated[
        Part, typer.Option(help="Which turns: those labelled with a line, or labelled none.")
    ] = "all",
    language: Annotated[Language, typer.Option(help="zh counts characters, zh-word words.")] = "en",
    samples: Annotated[
        int, typer.Option(min=100, help="Resamples of every interval and, at least, of every test.")
    ] = 1000,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Score predictions of any systems on the same turns, with intervals, and with tests against one of them.

    Metrics that lack what they need are left out, and it is said why. Stars: * p < .05, ** p < .01, *** p < .001 after
    Holm's correction for every test of the table, by the t-test over seeds where both systems have several, by the paired
    bootstrap over dialogues where one has more seeds than the other, else by approximate randomisation over dialogues.
    The tests of a table get as many resamples as one star needs, 20 for each or, with a bootstrap among them, 40; three
    stars need --samples of a thousand or two thousand for each.
    """
    chosen = chosen_metrics(metrics)
    questions = questions_of(read_dialogues(data, format=format))
    if not questions:
        raise PersonalignError(f"{data} has no assistant turn; there is nothing to answer")
    given = {
        name: [Answers(questions, read_predictions(file, questions), language=language) for file in files]
        for name, files in named_files(predictions).items()
    }
    check_choices(given, against=against, part=part)
    coherence = opened_coherence_judge(coherence_judge)
    systems, _ = judged_by(judge, given, chosen, coherence=coherence)
    found = evaluate_systems(
        systems,
        metrics=chosen,
        against=against,
        settings=Settings(samples=samples, seed=seed, level=level, part=part),
        progress=progress,
    )
    if not any(found.scores.values()):
        print_left_out(found)
        raise PersonalignError("none of the metrics can be computed of these predictions")
    _print(found, level=level)
    print_left_out(found)
    print_remarks([remark_on_language(systems), too_few_to_test(found)])
    if coherence is not None and coherence.shortened:
        message_console().print(
            f"{len(coherence.shortened):,} triples were too long for {coherence_judge}: their context was shortened",
            markup=False,
        )
    if as_json:
        emit_json(as_object(found, settings=Settings(samples, seed, level, part), judge=judge, data=data))


def as_object(found: Evaluation, *, settings: Settings, judge: str | None, data: Path) -> dict[str, Any]:
    """An evaluation as plain values."""
    return {
        "data": data,
        "judge": judge,
        "turns": found.turns,
        "dialogues": found.dialogues,
        "settings": settings,
        "systems": {
            name: {
                metric: {**score.estimate.as_dict(), "seeds": list(score.per_seed)}
                for metric, score in scores.items()
            }
            for name, scores in found.scores.items()
        },
        "against": found.against,
        "differences": {
            name: {
                metric: {
                    **_fields(difference.comparison),
                    "test": difference.test,
                    "over_seeds": None if difference.over_seeds is None else _fields(difference.over_seeds),
                    "p": difference.p,
                    "p_holm": difference.p_holm,
                }
                for metric, difference in differences.items()
            }
            for name, differences in found.differences.items()
        },
        "test_samples": found.test_samples,
        "left_out": dict(found.left_out),
    }


def _fields(value: Any) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(value)


def _print(found: Evaluation, *, level: float) -> None:
    from rich.markup import escape
    from rich.table import Table

    names = list(found.scores)
    metrics = list(dict.fromkeys(metric for scores in found.scores.values() for metric in scores))
    title = f"{found.turns:,} turns of {found.dialogues:,} dialogues, {level:.0%} intervals by dialogue"
    if found.against is not None:
        title += f"; stars: differs from {found.against}"
    table = Table("metric", *map(escape, names), title=escape(title))
    for metric in metrics:
        table.add_row(metric, *(escape(_cell(found, name, metric)) for name in names))
    print_table(table)
    _print_differences(found, level=level)
    remarks = message_console()
    tests = sorted({one.test for some in found.differences.values() for one in some.values()})
    if tests:
        remarks.print(f"stars by {', '.join(tests)}; {found.test_samples:,} resamples", markup=False)


def _print_differences(found: Evaluation, *, level: float) -> None:
    from rich.markup import escape
    from rich.table import Table

    for name, differences in found.differences.items():
        if not differences:
            continue
        title = f"{name} minus {found.against}, {level:.0%} intervals, p after Holm's correction"
        table = Table("metric", "difference", "interval", "p", "", title=escape(title))
        for metric, one in differences.items():
            low, high = interval_of(one)
            digits = digits_for([one.comparison.difference]) + 1
            table.add_row(
                metric,
                _figure(one.comparison.difference, f"+.{digits}f"),
                f"{low:+.{digits}f} to {high:+.{digits}f}" if math.isfinite(low) else "-",
                "< .0001" if one.p_holm < 0.0001 else _figure(one.p_holm, ".4f"),
                f"{better_or_worse(metric, one.comparison.difference)} {one.stars}",
            )
        print_table(table)


def _cell(found: Evaluation, name: str, metric: str) -> str:
    score = found.scores[name].get(metric)
    if score is None or not math.isfinite(score.estimate.value):
        return "-"
    estimate = score.estimate
    digits = 2 if abs(estimate.value) >= 10 else 3
    difference = found.differences.get(name, {}).get(metric)
    mark = "" if difference is None else difference.stars
    known = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    interval = f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]" if known else ""
    return f"{estimate.value:.{digits}f}{mark}{interval}"


def _figure(value: float, form: str) -> str:
    """A figure that may not exist, as that of no turn or of one dialogue's interval."""
    return format(value, form) if math.isfinite(value) else "-"
