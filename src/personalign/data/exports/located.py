"""JSON whose messages keep the line that they stand on."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from personalign.data.exports.log import ChatLog, ChatMessage
from personalign.data.faults import Fault, error_of, kind

MESSAGES = "messages"
# Exports nest no deeper on the way to their messages: {chats: {list: [{messages}]}}.
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class Located:
    """An element of a `messages` array."""

    line: int
    value: Any


def read_located(text: str, *, file: str) -> Any:
    """The value of a JSON text in which the elements of every `messages` array are `Located`.

    Raises PersonalignError that names the line of what is no JSON.
    """
    reader = _Reader(text)
    try:
        value, place = reader.value(reader.skip(0), depth=0, name="")
        place = reader.skip(place)
        if place < len(text):
            raise json.JSONDecodeError("text after the end of the export", text, place)
    except (ValueError, RecursionError) as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else 0
        problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error) or "nested too deeply"
        cut = " (the file ends in the middle: it was cut off)" if at >= len(text.rstrip()) else ""
        remedy = "export the chat again, or mend the JSON here"
        raise error_of(
            [Fault(file, text.count("\n", 0, at) + 1, "line", f"not JSON: {problem}{cut}", remedy)]
        ) from None
    return value


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode
        self._line, self._counted = 1, 0

    def value(self, place: int, *, depth: int, name: str) -> tuple[Any, int]:
        opening = self._text[place : place + 1]
        if opening == "{" and depth < _DEEPEST:
            return self._object(place, depth)
        if opening == "[" and (depth < _DEEPEST or name == MESSAGES):
            return self._array(place, depth, located=name == MESSAGES)
        return self._decode(self._text, place)

    def skip(self, place: int) -> int:
        while self._text[place : place + 1] in {" ", "\t", "\r", "\n"}:
            place += 1
        return place

    def _object(self, place: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        place = self.skip(place + 1)
        if self._text[place : place + 1] == "}":
            return found, place + 1
        while True:
            if self._text[place : place + 1] != '"':
                raise json.JSONDecodeError("a key in double quotes is missing", self._text, place)
            key, place = self._decode(self._text, place)
            place = self._expect(":", self.skip(place))
            found[key], place = self.value(place, depth=depth + 1, name=key)
            place = self.skip(place)
            if self._text[place : place + 1] == "}":
                return found, place + 1
            place = self._expect(",", place)

    def _array(self, place: int, depth: int, *, located: bool) -> tuple[list[Any], int]:
        found: list[Any] = []
        place = self.skip(place + 1)
        if self._text[place : place + 1] == "]":
            return found, place + 1
        while True:
            if located:
                line = self._line_at(place)
                value, place = self._decode(self._text, place)
                found.append(Located(line, value))
            else:
                value, place = self.value(place, depth=depth + 1, name="")
                found.append(value)
            place = self.skip(place)
            if self._text[place : place + 1] == "]":
                return found, place + 1
            place = self._expect(",", place)

    def _expect(self, mark: str, place: int) -> int:
        if self._text[place : place + 1] != mark:
            raise json.JSONDecodeError(f"'{mark}' is missing", self._text, place)
        return self.skip(place + 1)

    def _line_at(self, place: int) -> int:
        self._line += self._text.count("\n", self._counted, place)
        self._counted = place
        return self._line


def field_fault(file: str, line: int, name: str, value: Any, wanted: str) -> Fault:
    """The fault of a message whose `name` is not `wanted`."""
    found = "missing" if value is None else f"{kind(value)}, not {wanted}"
    return Fault(file, line, name, found, f"write {wanted}, or export the chat again")


def collected(messages: Iterable[Located], read: Callable[[Located], ChatMessage | Fault | str]) -> ChatLog:
    """The log of what `read` makes of every message: the message itself, its fault, or why it is left out.

    Raises PersonalignError where there are faults.
    """
    kept: list[ChatMessage] = []
    left_out: Counter[str] = Counter()
    faults: list[Fault] = []
    for item in messages:
        found = read(item)
        if isinstance(found, Fault):
            faults.append(found)
        elif isinstance(found, str):
            left_out[found] += 1
        else:
            who = None if found.sender_id is None else whole_characters(found.sender_id)
            sender, text = whole_characters(found.sender), whole_characters(found.text)
            kept.append(replace(found, sender=sender, text=text, sender_id=who))
    if faults:
        raise error_of(faults)
    return _told_apart(kept, left_out)


def _told_apart(messages: list[ChatMessage], left_out: Counter[str]) -> ChatLog:
    """Two people of one name would be taken for one: their names are written with their ids."""
    ids: dict[str, set[str | None]] = {}
    for message in messages:
        ids.setdefault(message.sender, set()).add(message.sender_id)
    twice = {name for name, found in ids.items() if len(found) > 1}
    told = tuple(
        replace(message, sender=f"{message.sender} ({message.sender_id})")
        if message.sender in twice
        else message
        for message in messages
    )
    remarks = tuple(
        f"{len(ids[name])} people are called {name}; they are told apart by their ids"
        for name in sorted(twice)
    )
    return ChatLog(told, dict(left_out), remarks)


def whole_characters(text: str) -> str:
    """Escapes may spell half of a character, which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
