"""`personalign data label`: which persona lines does each reply express?"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from personalign.cli._counting import counting
from personalign.cli._options import column_map, keep_existing
from personalign.cli._output import emit_json, output_console, quieten
from personalign.cli.data import (
    ColumnsOption,
    DropOption,
    ForceOption,
    FormatOption,
    JsonOption,
    MergeOption,
    PartOption,
    Source,
)
from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError

if TYPE_CHECKING:
    from personalign.evaluation.judge import Progress
    from personalign.labels.labeller import Labeller

Method = Literal["nli", "idf", "cosine", "cosine-idf"]


def label(
    source: Source,
    out: Annotated[
        Path | None, typer.Argument(help="Where to write them with `relevant`, native format.")
    ] = None,
    method: Annotated[Method, typer.Option(help="How a line is found relevant.")] = "cosine-idf",
    threshold: Annotated[
        float | None,
        typer.Option(help="Lines scoring at least so much are relevant; default: the method's own."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="For nli: folder or hub id of a judge, `oracle` for the synthetic corpus, or llm:MODEL."
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="For cosine methods: folder or hub id; default: the offline MiniLM.")
    ] = None,
    language: Annotated[Literal["en", "zh"], typer.Option(help="How words are cut for idf.")] = "en",
    check: Annotated[bool, typer.Option(help="Compare with the labels that the source has.")] = False,
    force: ForceOption = False,
    format: FormatOption = None,
    column: ColumnsOption = None,
    split: PartOption = None,
    merge_turns: MergeOption = False,
    drop_empty_turns: DropOption = False,
    as_json: JsonOption = False,
) -> None:
    """Label each reply with the persona lines that it expresses, or none.

    Give OUT to write the labelled dialogues, --check to compare with the labels that SOURCE has, or both.
    """
    from personalign.data.formats import check_writable, read_dialogues, write_dialogues

    if out is None and not check:
        raise PersonalignError(
            "nothing to do: give OUT to write labels, or --check to compare with given ones"
        )
    if out is not None:
        check_writable(out)
        keep_existing(out, force=force)
    dialogues = read_dialogues(
        source,
        format=format,
        columns=column_map(column),
        split=split,
        merge_turns=merge_turns,
        drop_empty_turns=drop_empty_turns,
    )
    if check and any(dialogue.relevant is None for dialogue in dialogues):
        raise PersonalignError(
            f"{source} has dialogues without 'relevant'; leave out --check, or label them first"
        )
    labelled = sum(dialogue.relevant is not None for dialogue in dialogues)
    if labelled and not check:
        typer.echo(f"{labelled:,} of the dialogues have labels, which {out} gets anew", err=True)
    with counting("judging") as report:
        labeller = _labeller(
            method,
            threshold=threshold,
            judge=judge,
            encoder=encoder,
            language=language,
            lines=[line for dialogue in dialogues for line in dialogue.persona],
            progress=report,
        )
        labels = labeller.label(dialogues)
    turns = [lines for dialogue in labels for lines in dialogue]
    result: dict[str, Any] = {
        "method": labeller.name,
        "threshold": labeller.threshold,
        "dialogues": len(dialogues),
        "turns": len(turns),
        "share_none": sum(not lines for lines in turns) / max(1, len(turns)),
    }
    console = output_console()
    console.print(
        f"{len(dialogues):,} dialogues, {len(turns):,} turns, share of none {result['share_none']:.3f} "
        f"({labeller.name}, threshold {labeller.threshold:g})",
        markup=False,
    )
    if check:
        result["agreement"] = _agreement(dialogues, labels)
        for name, value in result["agreement"].items():
            console.print(
                f"{name.replace('_', ' '):<22}{value:.3f}" if name != "turns" else f"{name:<22}{value:,}"
            )
    if out is not None:
        write_dialogues(out, _with_labels(dialogues, labels), format="native")
        typer.echo(f"wrote {out}")
        result["out"] = out
    if as_json:
        emit_json(result)


def _labeller(
    method: Method,
    *,
    threshold: float | None,
    judge: str | None,
    encoder: str | None,
    language: Literal["en", "zh"],
    lines: Sequence[str],
    progress: "Progress",
) -> "Labeller":
    from personalign.labels.labeller import CosineIdfLabeller, CosineLabeller, IdfOverlapLabeller, NliLabeller

    quieten()

    labeller: Labeller
    if method == "nli":
        if judge is None:
            raise PersonalignError(
                "--method nli needs --judge: a folder made by `personalign judge train`, or a hub id"
            )
        from personalign.methods.judges import check_knows, open_judge, with_cache

        opened = open_judge(judge, language=language, progress=progress)
        check_knows(opened, lines)
        labeller = NliLabeller(with_cache(opened))
    elif method == "idf":
        labeller = IdfOverlapLabeller(language=language)
    else:
        from personalign.models.encoder import load_encoder

        loaded = load_encoder(encoder)
        labeller = (
            CosineLabeller(loaded) if method == "cosine" else CosineIdfLabeller(loaded, language=language)
        )
    return labeller if threshold is None else replace(labeller, threshold=threshold)


def _agreement(dialogues: Sequence[Dialogue], labels: Sequence[Sequence[Sequence[int]]]) -> dict[str, Any]:
    from personalign.labels.agreement import compare

    return asdict(compare([dialogue.relevant or () for dialogue in dialogues], labels))


def _with_labels(
    dialogues: Sequence[Dialogue], labels: Sequence[tuple[tuple[int, ...], ...]]
) -> list[Dialogue]:
    return [
        replace(dialogue, relevant=its_labels) for dialogue, its_labels in zip(dialogues, labels, strict=True)
    ]
