"""`personalign judge train | eval | score`: make an NLI judge, say how good one is, and use it on pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from personalign.cli._counting import counting
from personalign.cli._output import clean, emit_json, output_console, quieten
from personalign.cli._systems import print_remarks
from personalign.errors import PersonalignError

if TYPE_CHECKING:
    from rich.table import Table

    from personalign.evaluation.judge import Judge, Progress

app = typer.Typer(
    help="Train, evaluate and use judges of consistency.", no_args_is_help=True, add_completion=False
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="What to compute in; bfloat16 is quick on GPUs and on CPUs with AMX or AVX512-BF16."),
]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:0 or mps.")]
MaxLength = Annotated[int, typer.Option(min=8, help="Tokens of premise and hypothesis together.")]
Cached = Annotated[bool, typer.Option(help="Look verdicts up that were given before.")]
JudgeName = Annotated[
    str,
    typer.Argument(
        help="Folder or hub id of a three-class NLI model, `oracle` for the synthetic corpus, or llm:MODEL at "
        "OPENAI_BASE_URL."
    ),
]


@app.command()
def train(
    data: Annotated[
        Path, typer.Argument(help="NLI rows {premise, hypothesis, label, split}, JSON or JSON Lines.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the judge; must not exist yet.")],
    encoder: Annotated[
        str | None, typer.Option(help="Folder or hub id to fine-tune; default: the offline MiniLM.")
    ] = None,
    more: Annotated[
        list[Path] | None, typer.Option(help="Another NLI file whose training rows join; repeatable.")
    ] = None,
    entailed_pairs: Annotated[
        Path | None,
        typer.Option(help="More entailed rows {persona, response}; neutral ones are made from them."),
    ] = None,
    max_entailed: Annotated[int, typer.Option(min=0, help="At most so many entailed pairs.")] = 6000,
    max_neutral: Annotated[int, typer.Option(min=0, help="At most so many random neutral pairs.")] = 3000,
    facts: Annotated[
        list[Path] | None,
        typer.Option(help="Sentences with triples {text, triples}, to make rows from; repeatable."),
    ] = None,
    max_facts: Annotated[int, typer.Option(min=0, help="At most so many rows from facts.")] = 16_000,
    babble: Annotated[int, typer.Option(min=0, help="Rows of word salad, as neutral.")] = 3500,
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
    dev_share: Annotated[
        float,
        typer.Option(min=0.0, max=0.5, help="Of the training premises, to choose epoch and temperature on."),
    ] = 0.08,
    epochs: Annotated[int, typer.Option(min=1, help="At most; the best one is kept.")] = 3,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = 2e-4,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    max_length: MaxLength = 128,
    dtype: Dtype = "auto",
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
        more=tuple(more or ()),
        facts=tuple(facts or ()),
        max_facts=max_facts,
        babble=babble,
        dev_share=dev_share,
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
        if not count:
            continue
        console.print(f"{count:>7,}  {name.replace('_', ' ')}")
    console.print(_table(record["valid"]))
    _print_figures(
        {
            "temperature": record["temperature"],
            **{f"babble, {k}": v for k, v in record["held_out_babble"].items()},
        }
    )
    console.print(f"saved in {out}", markup=False)
    most = max(sum(row.values()) for row in record["valid"]["confusion"].values()) / record["rows"]["valid"]
    if record["valid"]["accuracy"] <= most < 1:
        worthless = (
            f"this judge is right on {record['valid']['accuracy']:.3f} of the validation rows, no better than always "
            f"giving the most frequent label ({most:.3f}); it needs more rows or epochs"
        )
        print_remarks([worthless])
    if json:
        emit_json({"out": out, **record})


@app.command(name="eval")
def evaluate(
    judge: JudgeName,
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Files to measure on: NLI rows, DialogueNLI's ranking sets, published entail_scores, CDConv or KvPI."
        ),
    ],
    split: Annotated[str, typer.Option(help="Which rows of a file of labelled pairs.")] = "valid",
    max_length: MaxLength = 128,
    dtype: Dtype = "float32",
    device: Device = "cpu",
    cached: Cached = True,
    json: Json = False,
) -> None:
    """How good a judge is, on one file or several: accuracy, calibration, ranking, agreement, by what the rows hold."""
    from personalign.evaluation.judge_checks import check_judge

    quieten()
    # The judge is opened once, and each file has a bar of its own.
    reports: list[Progress] = []
    opened = _opened(
        judge,
        max_length=max_length,
        dtype=dtype,
        device=device,
        cached=cached,
        progress=lambda done, total: reports[-1](done, total),
    )
    found: dict[str, Any] = {}
    for file in data:
        with counting(f"judging {file.name}") as report:
            reports.append(report)
            found[str(file)] = check_judge(opened, file, split=split)
    console = output_console()
    for name, result in found.items():
        console.print(f"{name}: {result['rows']:,} rows", markup=False, style="bold")
        if "confusion" in result:
            console.print(_table(result))
        _print_figures(result)
    if json:
        emit_json({"judge": judge, "files": found})


@app.command()
def score(
    judge: JudgeName,
    pairs: Annotated[
        Path,
        typer.Argument(
            help="Rows {premise, hypothesis}, or {persona: [line, ...], response}; JSON or JSON Lines."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="JSON Lines: each row with the judge's verdicts.")],
    max_length: MaxLength = 128,
    dtype: Dtype = "auto",
    device: Device = "cpu",
    cached: Cached = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
    json: Json = False,
) -> None:
    """Judge pairs: every row gets `verdicts`, one {label, entailment, neutral, contradiction} per line of the persona."""
    from personalign._files import write_jsonl
    from personalign.cli._options import keep_existing
    from personalign.evaluation.judge import LABELS
    from personalign.evaluation.nli_rows import read_objects
    from personalign.methods.judges import check_knows

    keep_existing(out, force=force)
    rows = [(row, _pairs_of(row, place)) for place, row in read_objects(pairs)]
    quieten()
    with counting("judging") as report:
        opened = _opened(
            judge, max_length=max_length, dtype=dtype, device=device, cached=cached, progress=report
        )
        check_knows(opened, [line for _, some in rows for line, _ in some])
        verdicts = opened.judge([pair for _, some in rows for pair in some])
    classes = iter(verdicts.classes().tolist())
    probabilities = iter(verdicts.probabilities.tolist())
    judged = []
    counts = dict.fromkeys(LABELS, 0)
    for row, some in rows:
        mine = []
        for _ in some:
            label = LABELS[next(classes)]
            counts[label] += 1
            shares = dict(zip(LABELS, (round(p, 6) for p in next(probabilities)), strict=True))
            mine.append({"label": label, **shares})
        judged.append({**row, "verdicts": mine})
    write_jsonl(out, judged)
    total = max(1, sum(counts.values()))
    _print_figures({label: count / total for label, count in counts.items()})
    output_console().print(f"wrote {out}", markup=False)
    if json:
        emit_json({"judge": judge, "out": out, "rows": len(rows), "counts": counts})


def _pairs_of(row: Mapping[str, Any], place: str) -> list[tuple[str, str]]:
    persona = row.get("persona", row.get("premise", row.get("sentence1")))
    response = row.get("response", row.get("hypothesis", row.get("sentence2")))
    lines = [persona] if isinstance(persona, str) else persona
    if (
        not isinstance(response, str)
        or not isinstance(lines, list)
        or not all(isinstance(p, str) for p in lines)
    ):
        raise PersonalignError(
            f"{place}: expected {{premise, hypothesis}} or {{sentence1, sentence2}}, texts, or {{persona, response}}, "
            "a list of lines and a text"
        )
    return [(line, response) for line in lines]


def _opened(
    judge: str, *, max_length: int, dtype: Dtype, device: str, cached: bool, progress: "Progress"
) -> "Judge":
    from personalign.methods.judges import open_judge, with_cache

    opened = open_judge(
        judge, language="en", dtype=dtype, device=device, max_length=max_length, progress=progress
    )
    return with_cache(opened) if cached else opened


def _print_figures(figures: Mapping[str, Any]) -> None:
    console = output_console()
    for name, value in figures.items():
        if isinstance(value, float):
            # Some are called as a file calls its parts.
            console.print(f"  {clean(name).replace('_', ' '):<32} {value:.3f}", markup=False)
        elif isinstance(value, Mapping) and name != "confusion":
            _print_figures({f"{name}, {key}": item for key, item in value.items()})


def _table(scores: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(title=f"accuracy {scores['accuracy']:.3f}, macro-F1 {scores['macro_f1']:.3f}")
    table.add_column("true \\ judged")
    for label in scores["confusion"]:
        table.add_column(label, justify="right")
    for label, row in scores["confusion"].items():
        table.add_row(label, *(f"{count:,}" for count in row.values()))
    return table
