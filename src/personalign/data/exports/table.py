"""A chat as a table: one message a row, with its sender, text and date."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter

from personalign.data.exports.located import Located, collected
from personalign.data.exports.log import BLANK, ChatLog, ChatMessage, in_utc
from personalign.data.faults import Fault, error_of
from personalign.data.text import LONGEST_CELL
from personalign.errors import PersonalignError

FIELDS = ("sender", "text", "date")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "sender": ("sender", "author", "from", "speaker", "user", "name", "发送者", "发送人", "發送者"),
    "text": ("text", "message", "content", "body", "内容", "消息", "訊息"),
    "date": ("date", "timestamp", "time", "datetime", "sent", "created_at", "时间", "日期", "時間"),
}
_SECONDS_OF_YEAR_2286 = 10_000_000_000
# Fewer are a date without separators, 20240531.
_DIGITS_OF_SECONDS = 9


def read_table(text: str, *, file: str, columns: Mapping[str, str] | None = None) -> ChatLog:
    """Read comma-, semicolon- or tab-separated rows under a header.

    `columns` maps `sender`, `text` and `date` to column names; those left out are found by their usual names. Dates are
    ISO 8601 or seconds (milliseconds) since 1970; those without an offset are taken for UTC. The rows may stand in any
    order: the messages are in that of their dates. Raises PersonalignError with the lines at fault.
    """
    if unknown := set(columns or {}) - set(FIELDS):
        raise PersonalignError(
            f"--column {sorted(unknown)[0]}: there is no such field; write {', '.join(FIELDS)}"
        )
    csv.field_size_limit(LONGEST_CELL)
    text = text.removeprefix("\ufeff")
    header = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=header.count), strict=True)
    rows: list[Located] = []
    line = 1
    try:
        for row in reader:
            rows.append(Located(line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        remedy = "mend the quotation marks here, or export the chat again"
        raise error_of([Fault(file, line, "line", f"no row of a table: {error}", remedy)]) from None
    if not rows:
        raise error_of([Fault(file, 0, "file", "holds no message", "give a table with a header")])
    places = _places([name.strip() for name in rows[0].value], columns or {}, file=file)
    log = collected(
        (row for row in rows[1:] if any(row.value)),
        partial(_message, places=places, width=len(rows[0].value), file=file),
    )
    return replace(log, messages=tuple(sorted(log.messages, key=attrgetter("sent"))))


def _places(header: Sequence[str], columns: Mapping[str, str], *, file: str) -> dict[str, int]:
    lowered = [name.lower() for name in header]
    places, faults = {}, []
    for name in FIELDS:
        wanted = (columns[name].lower(),) if name in columns else _NAMES[name]
        found = [lowered.index(item) for item in wanted if item in lowered]
        if found:
            places[name] = found[0]
        else:
            problem = f"no column {' or '.join(wanted[:4])} among {', '.join(header)}"
            faults.append(Fault(file, 1, name, problem, f"say which it is with --column {name}=COLUMN"))
    if faults:
        raise error_of(faults)
    return places


def _message(row: Located, *, places: Mapping[str, int], width: int, file: str) -> ChatMessage | Fault | str:
    if len(row.value) != width:
        problem = f"{len(row.value)} cells, where the header has {width}"
        return Fault(
            file, row.line, "row", problem, "mend the row; put cells with separators into quotation marks"
        )
    sender, text, date = (row.value[places[name]].strip() for name in FIELDS)
    if not text:
        return BLANK
    if not sender:
        return Fault(file, row.line, "sender", "is empty", "write who sent the message")
    sent = _time(date)
    if sent is None:
        remedy = "write it as 2024-05-31 18:05:00, or in seconds since 1970"
        return Fault(file, row.line, "date", f"'{date}' is no date", remedy)
    return ChatMessage(sender, text, sent, row.line)


def _time(text: str) -> datetime | None:
    try:
        if text.replace(".", "", 1).isdigit() and len(text.partition(".")[0]) >= _DIGITS_OF_SECONDS:
            seconds = float(text)
            seconds = seconds / 1000 if seconds > _SECONDS_OF_YEAR_2286 else seconds
            return in_utc(datetime.fromtimestamp(seconds, tz=UTC))
        return in_utc(datetime.fromisoformat(text.replace("/", "-")))
    except (ValueError, OverflowError, OSError):
        return None
