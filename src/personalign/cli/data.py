"""`personalign data`: look at dialogues, count them, check, convert and split them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from personalign.cli._options import column_map, keep_existing, pairs_of
from personalign.cli._output import clean, emit_json, output_console
from personalign.cli.exports import import_chat
from personalign.data.dialogue import Dialogue
from personalign.data.formats import (
    Format,
    WriteFormat,
    check_writable,
    read_dialogues,
    write_dialogues,
)
from personalign.data.pal import left_out
from personalign.data.split import overlap, split_by_persona
from personalign.data.statistics import statistics
from personalign.data.validate import validate as faults_of
from personalign.errors import PersonalignError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Look at dialogues, count them, check, convert and split them.",
)

app.command("import")(import_chat)

# How far a part may be from its share before it is said.
_FAR_FROM_SHARE = 0.05

Source = Annotated[str, typer.Argument(help="A file, a folder of a saved data set, or a hub id.")]
FormatOption = Annotated[
    Format | None, typer.Option("--format", help="Format of the source; recognised when left out.")
]
ColumnsOption = Annotated[
    list[str] | None, typer.Option("--column", help="FIELD=COLUMN of a table, once per field.")
]
PartOption = Annotated[str | None, typer.Option("--split", help="Part of a hub or saved data set.")]
MergeOption = Annotated[bool, typer.Option("--merge-turns", help="Join turns in a row by one speaker.")]
DropOption = Annotated[bool, typer.Option("--drop-empty-turns", help="Take blank turns out.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def show(
    source: Source,
    number: Annotated[int, typer.Option(help="Which dialogue, counted from 1.", min=1)] = 1,
    id: Annotated[str | None, typer.Option(help="Which dialogue, by its id; wins over --number.")] = None,
    format: FormatOption = None,
    column: ColumnsOption = None,
    split: PartOption = None,
    merge_turns: MergeOption = False,
    drop_empty_turns: DropOption = False,
    tree: Annotated[
        bool,
        typer.Option("--tree", help="Show the packed tree of PAL's stage 1, supervised tokens in colour."),
    ] = False,
    tokenizer: Annotated[
        str | None, typer.Option(help="For --tree: a model folder or hub id; plain words when left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print one dialogue: the persona, the turns, and beside each reply the lines that it expresses."""
    dialogues = read_dialogues(
        source,
        format=format,
        columns=column_map(column),
        split=split,
        merge_turns=merge_turns,
        drop_empty_turns=drop_empty_turns,
    )
    dialogue = _chosen(dialogues, number=number, id=id, source=source)
    if as_json:
        from personalign.data.native import dialogue_to_row

        emit_json(dialogue_to_row(dialogue))
    elif tree:
        from personalign.cli._tree_view import print_tree

        print_tree(dialogue, tokenizer=tokenizer, console=output_console())
    else:
        print_dialogue(dialogue, console=output_console())
    if not as_json and len(dialogues) > 1:
        place = dialogues.index(dialogue) + 1
        typer.echo(f"dialogue {place} of {len(dialogues)}; --number or --id shows another", err=True)


@app.command()
def stats(
    source: Source,
    format: FormatOption = None,
    column: ColumnsOption = None,
    split: PartOption = None,
    merge_turns: MergeOption = False,
    drop_empty_turns: DropOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print the counts that papers print of a dialogue set."""
    counts = dataclasses.asdict(
        statistics(
            read_dialogues(
                source,
                format=format,
                columns=column_map(column),
                split=split,
                merge_turns=merge_turns,
                drop_empty_turns=drop_empty_turns,
            )
        )
    )
    if as_json:
        emit_json(counts)
        return
    table = Table(show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, value in counts.items():
        table.add_row(name.replace("_", " "), _number(value))
    output_console().print(table)


@app.command()
def validate(
    source: Source,
    format: FormatOption = None,
    column: ColumnsOption = None,
    split: PartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find every fault of a source in one pass; exit code 1 when there is one."""
    faults = faults_of(source, format=format, columns=column_map(column), split=split)
    if as_json:
        emit_json({"source": source, "faults": [dataclasses.asdict(fault) for fault in faults]})
    else:
        for fault in faults:
            typer.echo(clean(str(fault)))
        typer.echo(f"{source}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}")
    if faults:
        raise typer.Exit(1)


@app.command()
def convert(
    source: Source,
    target: Annotated[Path, typer.Argument(help="The file to write; .gz compresses native and trl.")],
    to: Annotated[WriteFormat, typer.Option("--to", help="Format to write.")] = "native",
    force: ForceOption = False,
    format: FormatOption = None,
    column: ColumnsOption = None,
    split: PartOption = None,
    merge_turns: MergeOption = False,
    drop_empty_turns: DropOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the dialogues of any source in another format."""
    check_writable(target)
    keep_existing(target, force=force)
    dialogues = read_dialogues(
        source,
        format=format,
        columns=column_map(column),
        split=split,
        merge_turns=merge_turns,
        drop_empty_turns=drop_empty_turns,
    )
    written = write_dialogues(target, dialogues, format=to)
    replies = sum(len(dialogue.reply_indices()) for dialogue in dialogues)
    lost = left_out(dialogues) if to == "pal" else None
    if as_json:
        counts = {"dialogues": len(dialogues), "replies": replies, "records": written}
        more = {} if lost is None else {"left_out": lost}
        emit_json({"target": str(target), "format": to, **counts, **more})
        return
    typer.echo(f"{target}: {written} {_RECORDS[to]} of {len(dialogues)} dialogues with {replies} replies")
    if to == "trl" and written < replies:
        typer.echo(f"{replies - written} replies have no rejected one or open their dialogue: not written")
    if lost is not None and (lost.turns or lost.dialogues):
        typer.echo(
            f"{lost.turns} turns that no reply follows, and with them {lost.dialogues} dialogues: not written"
        )


_RECORDS: dict[WriteFormat, str] = {
    "native": "rows",
    "trl": "preference rows",
    "parlai": "lines",
    "pal": "tuples",
}


@app.command()
def split(
    source: Source,
    folder: Annotated[Path, typer.Argument(help="Where the parts go, one NAME.jsonl each.")],
    share: Annotated[
        list[str] | None,
        typer.Option(
            "--share", help="NAME=SHARE, once per part; train=.8, valid=.1 and test=.1 when left out."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the assignment.")] = 0,
    force: ForceOption = False,
    format: FormatOption = None,
    column: ColumnsOption = None,
    part: PartOption = None,
    merge_turns: MergeOption = False,
    drop_empty_turns: DropOption = False,
    as_json: JsonOption = False,
) -> None:
    """Split dialogues into parts that share no persona set and no person."""
    shares = _shares(share)
    keep_existing(*(folder / f"{name}.jsonl" for name in shares), force=force)
    dialogues = read_dialogues(
        source,
        format=format,
        columns=column_map(column),
        split=part,
        merge_turns=merge_turns,
        drop_empty_turns=drop_empty_turns,
    )
    parts = split_by_persona(dialogues, shares, seed=seed)
    for name, members in parts.items():
        write_dialogues(folder / f"{name}.jsonl", members)
    others = sorted(path.name for path in folder.glob("*.jsonl") if path.stem not in parts)
    if others:
        typer.echo(f"{folder} holds {', '.join(others)} too, which this split did not make", err=True)
    names = list(parts)
    common = {
        f"{first} & {second}": dataclasses.asdict(overlap(parts[first], parts[second]))
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    }
    if as_json:
        sizes = {name: len(members) for name, members in parts.items()}
        emit_json({"folder": str(folder), "seed": seed, "dialogues": sizes, "overlap": common})
        return
    for name, members in parts.items():
        typer.echo(f"{folder / f'{name}.jsonl'}: {len(members)} dialogues")
    got = {name: len(members) / len(dialogues) for name, members in parts.items()}
    if any(abs(got[name] - wanted) > _FAR_FROM_SHARE for name, wanted in shares.items()):
        shown = ", ".join(f"{name} {got[name]:.0%} (asked {wanted:.0%})" for name, wanted in shares.items())
        typer.echo(
            f"nobody is in two parts, and so few people cannot be shared out as asked: {shown}", err=True
        )
    for pair, counts in common.items():
        shown = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items())
        typer.echo(f"{pair} share {shown}")


def print_dialogue(dialogue: Dialogue, *, console: Console) -> None:
    """Print `dialogue` with numbered persona lines; a reply names the lines that it is labelled with."""
    for line in _shown(dialogue):
        console.print(line, soft_wrap=True)


def _shown(dialogue: Dialogue) -> Iterator[Text]:
    """The lines to print, without signs that a terminal obeys.

    As `Text`: rich would change marks such as `:dog:` and `[b]` in a plain string.
    """
    of_person = "" if dialogue.person is None else f" person {clean(dialogue.person)}"
    yield Text.assemble((clean(dialogue.id), "bold"), (of_person, "dim"))
    for title, lines in (("persona", dialogue.persona), ("partner's persona", dialogue.partner_persona)):
        if lines or title == "persona":
            yield Text.assemble((title, "bold"), "" if lines else " (none)")
        for index, line in enumerate(lines):
            yield Text(f"  {index} {clean(line)}")
    reply = 0
    for turn in dialogue.messages:
        if turn.role == "user":
            yield Text.assemble(("user", "cyan"), f"      {clean(turn.content)}")
            continue
        yield Text.assemble(
            ("assistant", "green"), f" {clean(turn.content)}", (_notes(dialogue, reply), "dim")
        )
        reply += 1


def _notes(dialogue: Dialogue, reply: int) -> str:
    notes = []
    if dialogue.relevant is not None:
        lines = ", ".join(str(index) for index in dialogue.relevant[reply])
        notes.append(f"<- line {lines}" if lines else "<- none")
    if dialogue.candidates is not None and dialogue.candidates[reply]:
        notes.append(f"({len(dialogue.candidates[reply])} candidates)")
    return "".join(f"  {note}" for note in notes)


def _chosen(dialogues: list[Dialogue], *, number: int, id: str | None, source: str) -> Dialogue:
    if id is not None:
        found = next((dialogue for dialogue in dialogues if dialogue.id == id), None)
        if found is None:
            raise PersonalignError(f"{source} has no dialogue {id!r}; its first is {dialogues[0].id!r}")
        return found
    if number > len(dialogues):
        raise PersonalignError(f"{source} has {len(dialogues)} dialogues; write a --number up to that")
    return dialogues[number - 1]


def _shares(values: list[str] | None) -> dict[str, float]:
    pairs = pairs_of(values or ["train=.8", "valid=.1", "test=.1"], option="--share", example="train=.8")
    for name, value in pairs.items():
        if not value.replace(".", "", 1).isdecimal():
            raise PersonalignError(f"--share {name}={value}: write a number such as .8")
        if "/" in name or name.startswith("."):
            raise PersonalignError(f"--share {name}={value}: the name becomes a file name; write letters")
    return {name: float(value) for name, value in pairs.items()}


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
