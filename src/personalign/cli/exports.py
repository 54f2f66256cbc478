"""`personalign data import`: an exported chat as the sessions of one person."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from personalign.cli._options import column_map, keep_existing
from personalign.cli._output import clean, emit_json
from personalign.data.exports import (
    SILENCE,
    ChatLog,
    DateOrder,
    ExportFormat,
    Sessions,
    read_export,
    sessions_of,
)
from personalign.data.formats import check_writable, write_dialogues
from personalign.errors import PersonalignError

_MOST_HOURS = 1_000_000
HOURS = SILENCE.total_seconds() / 3600

Export = Annotated[
    Path, typer.Argument(help="WhatsApp's .txt or .zip, Telegram's or Discord's .json, or a .csv.")
]
Person = Annotated[str, typer.Option(help="Whom the sessions are of, as the export names them.")]
Silence = Annotated[float, typer.Option(help="Hours without a message after which another session begins.")]
ChatFormat = Annotated[
    ExportFormat | None, typer.Option("--format", help="Format of the export; recognised when left out.")
]
ChatName = Annotated[str | None, typer.Option("--chat", help="Which chat of a whole Telegram account.")]
Dates = Annotated[
    DateOrder | None, typer.Option(help="Order of WhatsApp's dates, where the file does not tell.")
]
Columns = Annotated[
    list[str] | None, typer.Option("--column", help="FIELD=COLUMN of a table: sender, text, date.")
]


def import_chat(
    export: Export,
    target: Annotated[Path, typer.Argument(help="The file of sessions to write, .jsonl or .jsonl.gz.")],
    person: Person,
    silence: Silence = HOURS,
    format: ChatFormat = None,
    chat: ChatName = None,
    date_order: Dates = None,
    column: Columns = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Cut an exported chat into the sessions of one person. Nothing leaves the machine; ask those who wrote."""
    check_writable(target)
    keep_existing(target, force=force)
    log, found = read_sessions(
        export, person, silence, format=format, chat=chat, date_order=date_order, column=column
    )
    write_dialogues(target, found.dialogues)
    replies = sum(len(dialogue.reply_indices()) for dialogue in found.dialogues)
    if as_json:
        counts = {"sessions": len(found.dialogues), "replies": replies, "messages": found.messages}
        more = {
            "without_reply": found.without_reply,
            "left_out": dict(log.left_out),
            "remarks": list(log.remarks),
        }
        emit_json({"target": str(target), "person": found.person, **counts, **more})
        return
    typer.echo(
        f"{target}: {len(found.dialogues):,} sessions of {clean(found.person)} with {replies:,} replies, "
        f"{found.first:%Y-%m-%d} to {found.last:%Y-%m-%d}, from {found.messages:,} messages"
    )
    tell_losses(export, log, found)


def read_sessions(
    export: Path,
    person: str,
    silence: float,
    *,
    format: ExportFormat | None,
    chat: str | None,
    date_order: DateOrder | None,
    column: list[str] | None,
) -> tuple[ChatLog, Sessions]:
    """What the options of both commands that read exports ask for."""
    if not 0 < silence <= _MOST_HOURS:
        raise PersonalignError(
            f"--silence is {silence:g}; write a number of hours above 0, at most {_MOST_HOURS:,}"
        )
    log = read_export(export, format=format, chat=chat, date_order=date_order, columns=column_map(column))
    return log, sessions_of(log, person, silence=timedelta(hours=silence))


def tell_losses(export: Path, log: ChatLog, found: Sessions) -> None:
    """What of the export is in no session, and what was guessed of it."""
    for remark in log.remarks:
        typer.echo(f"{export}: {clean(remark)}", err=True)
    if found.without_reply:
        typer.echo(
            f"{found.without_reply:,} sessions with nothing by {clean(found.person)}, or by nobody else: left out"
        )
    for reason, count in sorted(log.left_out.items()):
        typer.echo(f"{count:,} {clean(reason)}: left out")
