"""Telegram Desktop's `result.json`: one chat, or all chats of an account."""

from datetime import datetime
from functools import partial
from typing import Any

from personalign.data.exports.located import (
    MESSAGES,
    Located,
    collected,
    field_fault,
    read_located,
    whole_characters,
)
from personalign.data.exports.log import (
    BLANK,
    FORWARDED,
    MEDIA,
    NOBODY,
    SYSTEM,
    ChatLog,
    ChatMessage,
    in_utc,
)
from personalign.data.faults import Fault, error_of
from personalign.errors import PersonalignError

_MEDIA_KEYS = (
    "photo",
    "file",
    "media_type",
    "location_information",
    "contact_information",
    "poll",
    "sticker_emoji",
)


def read_telegram(text: str, *, file: str, chat: str | None = None) -> ChatLog:
    """Raises PersonalignError with the line of the first messages that are not as Telegram writes them."""
    messages = _chosen(read_located(text, file=file), file=file, chat=chat)
    return collected(messages, partial(_message, file=file))


def _chosen(export: Any, *, file: str, chat: str | None) -> list[Located]:
    if not isinstance(export, dict):
        raise error_of(
            [Fault(file, 1, "file", "no Telegram export", "give the result.json of Telegram Desktop")]
        )
    if MESSAGES in export:
        return _list(export[MESSAGES], file)
    found = export.get("chats")
    chats = [
        item
        for item in (found.get("list") if isinstance(found, dict) else None) or ()
        if isinstance(item, dict)
    ]
    named = [whole_characters(str(item.get("name") or item.get("id"))) for item in chats]
    if chat is not None and named.count(chat) != 1:
        # Another chat may have the same name; no other has its id.
        named = [
            str(item.get("id")) if str(item.get("id")) == chat or named.count(name) > 1 else name
            for item, name in zip(chats, named, strict=True)
        ]
    if not chats:
        raise error_of(
            [Fault(file, 1, "file", "holds neither messages nor chats", "export a chat again, as JSON")]
        )
    if chat is None or chat not in named:
        what = "no chat was chosen" if chat is None else f"there is no chat '{chat}'"
        some = ", ".join(named[:20])
        raise PersonalignError(
            f"{file} holds {len(chats)} chats, and {what}; write --chat with one of: {some}"
        )
    return _list(chats[named.index(chat)].get(MESSAGES), file)


def _list(value: Any, file: str) -> list[Located]:
    if not isinstance(value, list):
        raise error_of([Fault(file, 1, MESSAGES, "is not a list", "export the chat again, as JSON")])
    return value


def _message(item: Located, *, file: str) -> ChatMessage | Fault | str:
    """The message, its fault, or why it is left out."""
    value = item.value
    if not isinstance(value, dict):
        return field_fault(file, item.line, "message", value, "an object")
    if value.get("type") == "service":
        return SYSTEM
    if value.get("forwarded_from") is not None:
        return FORWARDED
    text = _plain(value.get("text", ""))
    if text is None:
        return field_fault(file, item.line, "text", value.get("text"), "a string or a list of its parts")
    if not text.strip():
        return MEDIA if any(key in value for key in _MEDIA_KEYS) else BLANK
    sender = value.get("from")
    if sender is None:
        # Telegram keeps no name of accounts that are gone.
        return NOBODY
    if not isinstance(sender, str):
        return field_fault(file, item.line, "from", sender, "a string")
    try:
        sent = in_utc(datetime.fromisoformat(value.get("date")))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return field_fault(file, item.line, "date", value.get("date"), "a date such as 2024-05-31T18:05:00")
    return ChatMessage(sender, text.strip(), sent, item.line, str(value.get("from_id", "")))


def _plain(text: Any) -> str | None:
    """Text is a string, or a list of strings and of entities such as links."""
    parts = text if isinstance(text, list) else [text]
    said = [part.get("text") if isinstance(part, dict) else part for part in parts]
    words = [part for part in said if isinstance(part, str)]
    return "".join(words) if len(words) == len(said) else None
