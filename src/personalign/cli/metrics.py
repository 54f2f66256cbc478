"""`personalign metrics list | show`: what each metric is."""

from typing import Annotated, Any

import typer

from personalign.cli._output import emit_json, output_console
from personalign.evaluation.measuring import sacrebleu_signature
from personalign.evaluation.metrics import METRICS, Metric, find_metrics
from personalign.evaluation.needs import NEEDS

app = typer.Typer(help="List and explain the metrics.", no_args_is_help=True, add_completion=False)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command(name="list")
def list_metrics(as_json: JsonOption = False) -> None:
    """Every metric by its exact name, and which way is better."""
    from rich.table import Table

    table = Table("metric", "better", "what it is")
    for metric in METRICS.values():
        table.add_row(metric.name, _better(metric), metric.description)
    output_console().print(table)
    if as_json:
        emit_json({"metrics": [_plain(metric) for metric in METRICS.values()]})


@app.command()
def show(
    names: Annotated[list[str], typer.Argument(help="Exact names, or what stands before the slash.")],
    as_json: JsonOption = False,
) -> None:
    """Definition, source, range, direction and needs of a metric."""
    found = find_metrics(names)
    console = output_console()
    for metric in found:
        console.print(metric.name, style="bold", markup=False)
        for label, value in _facts(metric):
            console.print(f"  {label:<10}{value}", markup=False, soft_wrap=True)
    if as_json:
        emit_json({"metrics": [_plain(metric) for metric in found]})


def _facts(metric: Metric) -> list[tuple[str, str]]:
    facts = [
        ("what", metric.description),
        ("source", metric.source),
        ("range", metric.range),
        ("better", _better(metric)),
        ("interval", f"{metric.interval} by dialogue"),
        ("needs", "; ".join(NEEDS[need] for need in metric.needs) or "the replies alone"),
    ]
    if metric.name.endswith("/sacrebleu") and metric.name.startswith("bleu-"):
        order = int(metric.name.removeprefix("bleu-").partition("/")[0])
        facts.append(("signature", sacrebleu_signature(order=order, language="en")))
    if not metric.by_default:
        facts.append(("computed", "only where it is asked for by name"))
    return facts


def _better(metric: Metric) -> str:
    return {"higher": "higher", "lower": "lower", "none": "neither"}[metric.direction]


def _plain(metric: Metric) -> dict[str, Any]:
    return {"name": metric.name, **dict(_facts(metric))}
