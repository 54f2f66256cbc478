"""WhatsApp's exported `_chat.txt`, of Android and iOS, whatever the phone's language writes for a date."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Literal

from personalign.data.exports.log import BLANK, DELETED, MEDIA, SYSTEM, ChatLog, ChatMessage
from personalign.data.exports.whatsapp_words import (
    DIRECTIONS,
    OWN_WORDS,
    breaks_off_in_a_name,
    ends_in_own_words,
    is_awaited,
    marks_of,
    stands_for_media,
    unmarked,
    was_deleted,
    without_edit,
)
from personalign.data.faults import Fault, error_of, excerpt
from personalign.errors import PersonalignError

DateOrder = Literal["dmy", "mdy", "ymd"]

_DATE = r"(?P<a>\d{1,4})[./-] ?(?P<b>\d{1,2})[./-] ?(?P<c>\d{1,4})\.?"
_TIME = (
    r"(?P<part>凌晨|清晨|早上|上午|中午|下午|傍晚|晚上)?\s?"
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2}))?(?:\s?(?P<half>[AaPp])\.?\s?[Mm]\.?)?"
)
_STAMP = rf"{_DATE}(?:,|\s(?:à|at|um|a las))?\s{{1,2}}{_TIME}"
# "[31.12.23, 21:05:33] Ann: hello" on iOS, "31/12/2023, 9:05 pm - Ann: hello" on Android.
_HEAD = re.compile(rf"(?:\[{_STAMP}\]\s|{_STAMP.replace('?P<', '?P<_')}\s[-–]\s)(?P<rest>.*)", re.DOTALL)
# A name may have colons, as in "Mom :)", and be of any length.
_SENDER = re.compile(rf"(?P<name>.+?):[{DIRECTIONS}]*(?:\s(?P<text>.*))?")
# Before the name of who is in no address book.
_UNKNOWN = re.compile(r"~\s?(?=.)")

# "report.pdf • 3 pages", as iOS names a document that was sent.
_DOCUMENT = re.compile(r"\S.* • .*")


@dataclass(slots=True)
class _Entry:
    """A line that begins with a date, with what stands behind the date, and the lines after it that do not.

    With their marks, which tell what the program says from what people do.
    """

    line: int
    stamp: dict[str, str | None]
    rest: str
    more: list[str] = field(default_factory=list)


def read_whatsapp(text: str, *, file: str, date_order: DateOrder | None = None) -> ChatLog:
    """Read the export; messages of several lines are kept whole.

    Day and month are told apart by what is a date and what follows what, or by `date_order`. Raises PersonalignError with
    the line of the first dates that cannot be, and for a text that does not begin with a message.
    """
    entries = _entries(text, file=file)
    orders: Sequence[DateOrder] = (date_order,) if date_order else _possible(entries)
    read = {order: [_time(entry.stamp, order) for entry in entries] for order in orders}
    # The order under which fewest dates are none; among those, under which time goes back least.
    order = min(orders, key=lambda name: (read[name].count(None), _steps_back(read[name])))
    faults = [
        Fault(
            file,
            entry.line,
            "date",
            f"{_shown(entry.stamp)} is no date and time",
            "export the chat again, or mend it",
        )
        for entry, sent in zip(entries, read[order], strict=True)
        if sent is None
    ]
    if faults:
        raise error_of(faults)
    remarks = []
    others = [name for name in orders if name != order and None not in read[name]]
    if any(
        _steps_back(read[name]) == _steps_back(read[order]) and read[name] != read[order] for name in others
    ):
        remarks.append(
            f"dates are read as {order}: day and month could be the other way round; --date-order decides"
        )
    return _log(entries, read[order], remarks)


def _entries(text: str, *, file: str) -> list[_Entry]:
    entries: list[_Entry] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        match = _HEAD.fullmatch(unmarked(line[:80]) + line[80:]) if line[:1] else None
        if match is None:
            if entries:
                entries[-1].more.append(line)
            elif line.strip():
                problem = f"no message begins here: {excerpt(line)}"
                remedy = (
                    "give WhatsApp's exported chat, whose lines are such as 31/12/2023, 21:05 - Ann: hello"
                )
                raise error_of([Fault(file, number, "line", problem, remedy)])
            continue
        groups = match.groupdict()
        stamp = {name: groups[name] if groups[name] is not None else groups[f"_{name}"] for name in _PARTS}
        entries.append(_Entry(number, stamp, _behind(line, match.start("rest"))))
    if not entries:
        raise error_of([Fault(file, 0, "file", "holds no message", "give WhatsApp's exported chat")])
    return entries


_PARTS = ("a", "b", "c", "part", "hour", "minute", "second", "half")


def _behind(line: str, signs: int) -> str:
    """What stands in the line behind so many characters, marks not counted."""
    place = signs
    while (found := signs + marks_of(line[:place])) > place:
        place = found
    return line[place:]


def _possible(entries: Sequence[_Entry]) -> tuple[DateOrder, ...]:
    if any(len(entry.stamp["a"] or "") == 4 for entry in entries):
        return ("ymd",)
    return ("dmy", "mdy")


def _time(stamp: dict[str, str | None], order: DateOrder) -> datetime | None:
    numbers = [int(stamp[name] or 0) for name in ("a", "b", "c")]
    places = {"dmy": (2, 1, 0), "mdy": (2, 0, 1), "ymd": (0, 1, 2)}[order]
    year, month, day = (numbers[place] for place in places)
    hour = int(stamp["hour"] or 0)
    half, part = (stamp["half"] or "").lower(), stamp["part"]
    if half or part:
        if not 0 <= hour <= 12:
            return None
        late = half == "p" or part in {"下午", "傍晚", "晚上"} or (part == "中午" and hour < 11)
        hour = hour % 12 + (12 if late or (part == "中午" and hour == 12) else 0)
    try:
        return datetime(
            year + 2000 if year < 100 else year,
            month,
            day,
            hour,
            int(stamp["minute"] or 0),
            int(stamp["second"] or 0),
        )
    except ValueError:
        return None


def _steps_back(times: Sequence[datetime | None]) -> int:
    return sum(a is not None and b is not None and b < a for a, b in pairwise(times))


def _shown(stamp: dict[str, str | None]) -> str:
    return f"{stamp['a']}/{stamp['b']}/{stamp['c']} {stamp['hour']}:{stamp['minute']}"


def _log(entries: Sequence[_Entry], times: Sequence[datetime | None], remarks: Sequence[str]) -> ChatLog:
    kept: list[ChatMessage] = []
    left_out: Counter[str] = Counter()
    for entry, sent in zip(entries, times, strict=True):
        found = _said(entry)
        if isinstance(found, str):
            left_out[found] += 1
        elif sent is not None:
            name, text = found
            kept.append(ChatMessage(name, text, sent, entry.line))
    return ChatLog(tuple(kept), dict(left_out), tuple(remarks))


def _said(entry: _Entry) -> tuple[str, str] | str:
    """Who wrote what, or why it is left out."""
    match = _SENDER.fullmatch(entry.rest)
    name = _UNKNOWN.sub("", unmarked(match["name"]).strip(), count=1) if match else ""
    if match is None or not name or breaks_off_in_a_name(name):
        return SYSTEM
    first = match["text"] or ""
    whole = unmarked("\n".join([first, *entry.more])).strip()
    if was_deleted(whole):
        return DELETED
    if is_awaited(whole):
        return SYSTEM
    # On iOS what the program says stands behind the sender's name, after a mark.
    itself = first.startswith(OWN_WORDS)
    *begin, last = without_edit("\n".join([first, *entry.more]).rstrip()).split("\n")
    lines = [*map(_beside_media, begin), _beside_media(last, ends=not itself)]
    text = "\n".join(line.text for line in lines).strip()
    sent_something = any(line.sent for line in lines)
    if sent_something and not text:
        return MEDIA
    if itself and not sent_something:
        return SYSTEM
    return (name, text) if text else BLANK


@dataclass(frozen=True, slots=True)
class _Line:
    """What somebody wrote in a line, and whether they sent something besides, such as a picture."""

    text: str
    sent: bool


def _beside_media(line: str, *, ends: bool = False) -> _Line:
    """`ends`: the message ends here, and somebody wrote it."""
    text = unmarked(line).strip()
    if stands_for_media(text, marked=False):
        return _Line("", sent=True)
    # iOS puts a mark before its own words: "look <attached: PHOTO.jpg>", "report.pdf • 3 pages document omitted".
    written, mark, own = line.rpartition(OWN_WORDS)
    behind = unmarked(own).strip()
    if not mark or not (
        stands_for_media(behind, marked=True) or (ends and ends_in_own_words(written, behind))
    ):
        return _Line(text, sent=False)
    caption = unmarked(written).strip()
    return _Line("" if _DOCUMENT.fullmatch(caption) else caption, sent=True)


def check_date_order(text: str) -> DateOrder:
    """Raises PersonalignError for anything but dmy, mdy and ymd."""
    if text in {"dmy", "mdy", "ymd"}:
        return text  # type: ignore[return-value]
    raise PersonalignError(f"date order '{text}' is unknown; write dmy, mdy or ymd")
