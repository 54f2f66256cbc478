"""The JSON of DiscordChatExporter: one channel or direct chat."""

from datetime import datetime
from functools import partial
from typing import Any

from personalign.data.exports.located import MESSAGES, Located, collected, field_fault, read_located
from personalign.data.exports.log import BLANK, MEDIA, SYSTEM, ChatLog, ChatMessage, in_utc
from personalign.data.faults import Fault, error_of

_SPOKEN = ("Default", "Reply")


def read_discord(text: str, *, file: str) -> ChatLog:
    """Raises PersonalignError with the line of the first messages that are not as the exporter writes them."""
    export = read_located(text, file=file)
    messages = export.get(MESSAGES) if isinstance(export, dict) else None
    if not isinstance(messages, list):
        remedy = "give the JSON of DiscordChatExporter"
        raise error_of([Fault(file, 1, "file", "holds no list of messages", remedy)])
    return collected(messages, partial(_message, file=file))


def _message(item: Located, *, file: str) -> ChatMessage | Fault | str:
    """The message, its fault, or why it is left out."""
    value = item.value
    if not isinstance(value, dict):
        return field_fault(file, item.line, "message", value, "an object")
    if value.get("type", "Default") not in _SPOKEN:
        return SYSTEM
    text = value.get("content")
    if not isinstance(text, str):
        return field_fault(file, item.line, "content", text, "a string")
    if not text.strip():
        return MEDIA if any(value.get(key) for key in ("attachments", "embeds", "stickers")) else BLANK
    author: Any = value.get("author")
    name = (author.get("nickname") or author.get("name")) if isinstance(author, dict) else None
    if not isinstance(name, str):
        return field_fault(file, item.line, "author", author, "an object with the author's name")
    try:
        sent = in_utc(datetime.fromisoformat(value.get("timestamp")))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        wanted = "a date such as 2024-05-31T18:05:00+00:00"
        return field_fault(file, item.line, "timestamp", value.get("timestamp"), wanted)
    return ChatMessage(name, text.strip(), sent, item.line, str(author.get("id", "")))
