"""`personalign judge train | eval`: make an NLI judge, and say how good one is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from personalign.cli._counting import counting
from personalign.cli._output import emit_json, output_console, quieten
from personalign.errors import PersonalignError

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    help="Train and evaluate judges of consistency.", no_args_is_help=True, add_completion=False
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="What to compute in; bfloat16 is quick on CPUs with AMX and on GPUs."),
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:0 or mps.")]
MaxLength = Annotated[int, typer.Option(min=8, help="Tokens of premise and hypothesis together.")]


@app.command()
def train(
    data: Annotated[
        Path, typer.Argument(help="NLI rows {premise, hypothesis, label, split}, JSON or JSON Lines.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the judge; must not exist yet.")],
    encoder: Annotated[
        str | None, typer.Option(help="Folder or hub id to fine-tune; default: the offline MiniLM.")
    ] = None,
    entailed_pairs: Annotated[
        Path | None,
        typer.Option(help="More entailed rows {persona, response}; neutral ones are made from them."),
    ] = None,
    max_entailed: Annotated[int, typer.Option(min=0, help="At most so many entailed pairs.")] = 6000,
    max_neutral: Annotated[int, typer.Option(min=0, help="At most so many random neutral pairs.")] = 4000,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(
            help="Leave out rows whose premise or hypothesis is a text or a sentence of this file; repeatable."
        ),
    ] = None,
    part: Annotated[
        Literal["a", "b", "all"],
        typer.Option(help="Half of the data, for a second judge; no premise in both."),
    ] = "all",
    epochs: Annotated[int, typer.Option(min=1)] = 4,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    max_length: MaxLength = 128,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="Order of rows, sampled pairs, new head.")] = 0,
    json: Json = False,
) -> None:
    """Fine-tune an encoder into a judge that says entailment, neutral or contradiction.

    Rows whose premise or hypothesis occurs in the data's own other splits, or in an --exclude file, are dropped and
    counted.
    """
    from personalign.evaluation.judge_training import JudgeTraining, train_judge

    quieten()
    config = JudgeTraining(
        data=data,
        out=out,
        encoder=encoder,
        entailed_pairs=entailed_pairs,
        max_entailed=max_entailed,
        max_neutral=max_neutral,
        exclude=tuple(exclude or ()),
        part=part,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        max_length=max_length,
        dtype=dtype,
        device=device,
        seed=seed,
    )
    with counting("judge training") as report:
        record = train_judge(config, progress=report)
    console = output_console()
    for name, count in record["rows"].items():
        console.print(f"{count:>7,}  {name.replace('_', ' ')}")
    console.print(_table(record["valid"]))
    console.print(f"saved in {out}", markup=False)
    if json:
        emit_json({"out": out, **record})


@app.command(name="eval")
def evaluate(
    judge: Annotated[str, typer.Argument(help="Folder or hub id of a three-class NLI model.")],
    data: Annotated[
        Path, typer.Argument(help="NLI rows {premise, hypothesis, label, split}, JSON or JSON Lines.")
    ],
    split: Annotated[str, typer.Option(help="Which rows of the file.")] = "valid",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    max_length: MaxLength = 128,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Accuracy, macro-F1 and confusion matrix of a judge on labelled rows."""
    from personalign.evaluation.judge import LABELS
    from personalign.evaluation.judge_training import evaluate_judge
    from personalign.evaluation.nli_data import read_nli_rows
    from personalign.evaluation.nli_judge import load_judge

    quieten()
    all_rows = read_nli_rows(data)
    rows = [row for row in all_rows if row.split == split]
    if not rows:
        splits = ", ".join(sorted({row.split for row in all_rows}))
        raise PersonalignError(f"{data} has no rows of split '{split}'; it has {splits}: give --split")
    with counting("judging") as report:
        loaded = load_judge(
            judge, batch_size=batch_size, max_length=max_length, dtype=dtype, device=device, progress=report
        )
        scores = evaluate_judge(loaded, rows).as_dict(LABELS)
    output_console().print(_table(scores))
    if json:
        emit_json({"judge": judge, "data": data, "split": split, "rows": len(rows), **scores})


def _table(scores: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(title=f"accuracy {scores['accuracy']:.3f}, macro-F1 {scores['macro_f1']:.3f}")
    table.add_column("true \\ judged")
    for label in scores["confusion"]:
        table.add_column(label, justify="right")
    for label, row in scores["confusion"].items():
        table.add_row(label, *(f"{count:,}" for count in row.values()))
    return table
