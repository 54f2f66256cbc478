"""WhatsApp's exported `_chat.txt`, of Android and iOS, whatever the phone's language writes for a date."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Literal

from personalign.data.exports.log import BLANK, DELETED, MEDIA, SYSTEM, ChatLog, ChatMessage
from personalign.data.faults import Fault, error_of, excerpt
from personalign.errors import PersonalignError

DateOrder = Literal["dmy", "mdy", "ymd"]

# Marks that tell in which direction to write; WhatsApp puts the first before what it says itself.
_MARKS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_OWN_WORDS = "\u200e"

_DATE = r"(?P<a>\d{1,4})[./-] ?(?P<b>\d{1,2})[./-] ?(?P<c>\d{1,4})\.?"
_TIME = (
    r"(?P<part>凌晨|清晨|早上|上午|中午|下午|傍晚|晚上)?\s?"
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2}))?(?:\s?(?P<half>[AaPp])\.?\s?[Mm]\.?)?"
)
_STAMP = rf"{_DATE}(?:,|\s(?:à|at|um|a las))?\s{{1,2}}{_TIME}"
# "[31.12.23, 21:05:33] Ann: hello" on iOS, "31/12/2023, 9:05 pm - Ann: hello" on Android.
_HEAD = re.compile(rf"(?:\[{_STAMP}\]\s|{_STAMP.replace('?P<', '?P<_')}\s[-–]\s)(?P<rest>.*)", re.DOTALL)
_SENDER = re.compile(r"(?:~\s?)?(?P<name>[^:\n]{1,60}?):(?:\s(?P<text>.*))?", re.DOTALL)

_MEDIA = re.compile(
    r"<[^<>]*(?:omitted|attached|weggelassen|ausgeschlossen|omis|omess[oi]|omitid[oa]|ocult[oa]|weggelaten|省略|忽略|附件)[^<>]*>"
    r"|(?:image|video|audio|sticker|gif|document|contact card|video note|voice message) omitted"
    r"|(?:图像|图片|圖片|影像|视频|視頻|影片|音频|音訊|贴图|貼圖|文档|文件|GIF|联系人名片)\s?已?(?:省略|忽略|略去)"
    r"|\S.*\s?[(（](?:file attached|Datei angehängt|archivo adjunto|fichier joint|文件附件|附件)[)）]"
    r"|null",
    re.IGNORECASE,
)
_DELETED = re.compile(
    r"(?:this message was deleted|you deleted this message"
    r"|diese nachricht wurde gelöscht|du hast diese nachricht gelöscht"
    r"|se eliminó este mensaje|eliminaste este mensaje"
    r"|ce message a été supprimé|vous avez supprimé ce message"
    r"|questo messaggio è stato eliminato|hai eliminato questo messaggio"
    r"|(?:esta mensagem foi|mensagem) apagada|você apagou esta mensagem"
    r"|dit bericht is verwijderd|je hebt dit bericht verwijderd"
    r"|(?:此|这条|這則)(?:消息|訊息)已(?:被)?(?:删除|刪除)"
    r"|(?:你|您)?已?(?:删除|刪除)了?此(?:消息|訊息))[.。]?",
    re.IGNORECASE,
)
_EDITED = re.compile(
    r"\s*<(?:this message was edited|diese nachricht wurde bearbeitet|此(?:消息|訊息)已(?:编辑|編輯))>$",
    re.IGNORECASE,
)

# "report.pdf • 3 pages", as iOS names a document that was sent.
_DOCUMENT = re.compile(r"\S.* • .*")


@dataclass(slots=True)
class _Entry:
    """A line that begins with a date, and the lines after it that do not; `raw` has its marks."""

    line: int
    stamp: dict[str, str | None]
    rest: str
    raw: str
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
        match = _HEAD.fullmatch(_MARKS.sub("", line[:80]) + line[80:]) if line[:1] else None
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
        # With its marks, which tell what the program says from what people do.
        own = _OWN_WORDS if _says_itself(line) else ""
        entries.append(_Entry(number, stamp, own + groups["rest"], line))
    if not entries:
        raise error_of([Fault(file, 0, "file", "holds no message", "give WhatsApp's exported chat")])
    return entries


_PARTS = ("a", "b", "c", "part", "hour", "minute", "second", "half")


def _says_itself(line: str) -> bool:
    """On iOS what the program says stands behind the sender's name, after a mark."""
    return f": {_OWN_WORDS}" in line[:160]


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
        match = _SENDER.fullmatch(entry.rest.removeprefix(_OWN_WORDS))
        if match is None:
            left_out[SYSTEM] += 1
            continue
        if _DELETED.fullmatch(_MARKS.sub("", match["text"] or "").strip()):
            left_out[DELETED] += 1
            continue
        # No date and no sender has a colon before a space.
        lines = [_beside_media(line) for line in (entry.raw.partition(": ")[2], *entry.more)]
        sent_something = any(line.sent for line in lines)
        text = _EDITED.sub("", "\n".join(line.text for line in lines)).strip()
        if sent_something and not text:
            left_out[MEDIA] += 1
        elif entry.rest.startswith(_OWN_WORDS) and not sent_something:
            left_out[SYSTEM] += 1
        elif not text:
            left_out[BLANK] += 1
        elif sent is not None:
            kept.append(ChatMessage(match["name"].strip(), text, sent, entry.line))
    return ChatLog(tuple(kept), dict(left_out), tuple(remarks))


@dataclass(frozen=True, slots=True)
class _Line:
    """What somebody wrote in a line, and whether they sent something besides, such as a picture."""

    text: str
    sent: bool


def _beside_media(line: str) -> _Line:
    text = _MARKS.sub("", line).strip()
    if _MEDIA.fullmatch(text):
        return _Line("", sent=True)
    # iOS puts a mark before its own words: "look <attached: PHOTO.jpg>", "report.pdf • 3 pages document omitted".
    written, mark, own = line.rpartition(_OWN_WORDS)
    if not mark or not _MEDIA.fullmatch(_MARKS.sub("", own).strip()):
        return _Line(text, sent=False)
    caption = _MARKS.sub("", written).strip()
    return _Line("" if _DOCUMENT.fullmatch(caption) else caption, sent=True)


def check_date_order(text: str) -> DateOrder:
    """Raises PersonalignError for anything but dmy, mdy and ymd."""
    if text in {"dmy", "mdy", "ymd"}:
        return text  # type: ignore[return-value]
    raise PersonalignError(f"date order '{text}' is unknown; write dmy, mdy or ymd")
