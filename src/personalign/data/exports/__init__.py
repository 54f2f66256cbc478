"""A person's own chats, exported from WhatsApp, Telegram, Discord or as a table, as sessions of one person."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from personalign.data.exports.discord import read_discord
from personalign.data.exports.log import ChatLog, ChatMessage
from personalign.data.exports.sessions import SILENCE, Sessions, find_person, sessions_of
from personalign.data.exports.table import read_table
from personalign.data.exports.telegram import read_telegram
from personalign.data.exports.whatsapp import DateOrder, check_date_order, read_whatsapp
from personalign.data.faults import error_of
from personalign.data.text import decode_text, read_text
from personalign.errors import PersonalignError

__all__ = [
    "SILENCE",
    "ChatLog",
    "ChatMessage",
    "DateOrder",
    "ExportFormat",
    "Sessions",
    "find_person",
    "read_export",
    "recognise",
    "sessions_of",
]

ExportFormat = Literal["whatsapp", "telegram", "discord", "csv"]
_TABLES = (".csv", ".tsv")
_MOST_BYTES = 2**30


def read_export(
    path: str | Path,
    *,
    format: ExportFormat | None = None,
    chat: str | None = None,
    date_order: DateOrder | None = None,
    columns: Mapping[str, str] | None = None,
) -> ChatLog:
    """The messages of an exported chat.

    That is WhatsApp's .txt or .zip, Telegram's result.json, DiscordChatExporter's JSON, or a table, recognised where
    `format` is None. `chat` chooses among the chats of a Telegram account, `date_order` settles WhatsApp's dates, and
    `columns` names a table's (see the readers). Raises PersonalignError that names the line at fault.
    """
    if format is not None and format not in get_args(ExportFormat):
        raise PersonalignError(f"unknown format {format!r}; write one of {', '.join(get_args(ExportFormat))}")
    text = _text(Path(path))
    file = str(path)
    format = format or recognise(text, name=file)
    options = {
        "telegram": ("chat", chat),
        "whatsapp": ("date_order", date_order),
        "csv": ("columns", columns),
    }
    for owner, (option, given) in options.items():
        if given and owner != format:
            raise PersonalignError(
                f"{path}: {option} belongs to format {owner}, and this is {format}; leave it out"
            )
    match format:
        case "telegram":
            return read_telegram(text, file=file, chat=chat)
        case "discord":
            return read_discord(text, file=file)
        case "csv":
            return read_table(text, file=file, columns=columns)
        case _:
            return read_whatsapp(text, file=file, date_order=date_order and check_date_order(date_order))


def recognise(text: str, *, name: str = "") -> ExportFormat:
    """The format that a text has, by its name's ending and its first characters."""
    if name.lower().removesuffix(".gz").endswith(_TABLES):
        return "csv"
    if text.lstrip("\ufeff \t\r\n")[:1] == "{":
        beginning = text[:4000]
        return "discord" if '"guild"' in beginning or '"dateRange"' in beginning else "telegram"
    return "whatsapp"


def _text(path: Path) -> str:
    if not path.is_file():
        raise PersonalignError(f"{path} is no file; write the path of an exported chat")
    if zipfile.is_zipfile(path):
        return _zipped(path)
    text, faults = read_text(path)
    if faults:
        raise error_of(faults)
    return text


def _zipped(path: Path) -> str:
    """WhatsApp zips a chat with its media: one text file, whatever else there is."""
    try:
        with zipfile.ZipFile(path) as archive:
            texts = [item for item in archive.infolist() if item.filename.lower().endswith(".txt")]
            if len(texts) != 1 or texts[0].file_size > _MOST_BYTES:
                raise PersonalignError(
                    f"{path} holds {len(texts)} text files, where an exported chat has one, of less than a gigabyte; "
                    "unpack it and name the file"
                )
            data = archive.read(texts[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise PersonalignError(f"{path} cannot be unpacked ({error}); export the chat again") from None
    text, faults = decode_text(data, f"{path}:{texts[0].filename}")
    if faults:
        raise error_of(faults)
    return text
