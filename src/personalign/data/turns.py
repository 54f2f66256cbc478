"""Turns that models cannot use as they are: several in a row by one speaker, and empty ones."""

import dataclasses
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from personalign.data.dialogue import Dialogue, Turn


def merge_turns(dialogue: Dialogue) -> Dialogue:
    """Join turns in a row by one speaker with a space.

    A merged reply is relevant to the lines of all its parts. It has no candidates, since none of them is
    what it says now. Extra keys of merged messages are put together, the later ones winning.
    """
    groups = [
        list(group) for _, group in groupby(enumerate(dialogue.messages), key=lambda item: item[1].role)
    ]
    if len(groups) == len(dialogue.messages):
        return dialogue
    replies = [len(group) for group in groups if group[0][1].role == "assistant"]
    starts = [sum(replies[:index]) for index in range(len(replies))]
    spans = [slice(start, start + count) for start, count in zip(starts, replies, strict=True)]
    candidates = dialogue.candidates
    relevant = dialogue.relevant
    extra = dict(dialogue.extra)
    if "messages" in extra:
        extra["messages"] = [_united([extra["messages"][index] for index, _ in group]) for group in groups]
    return dataclasses.replace(
        dialogue,
        messages=tuple(
            Turn(group[0][1].role, " ".join(turn.content for _, turn in group)) for group in groups
        ),
        candidates=None
        if candidates is None
        else tuple(
            candidates[span.start] if count == 1 else () for span, count in zip(spans, replies, strict=True)
        ),
        relevant=None
        if relevant is None
        else tuple(tuple(sorted({line for lines in relevant[span] for line in lines})) for span in spans),
        extra=extra,
    )


def _united(parts: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


def drop_empty_turns(row: Any) -> Any:
    """A native row without its blank messages, and without their candidates and labels.

    Rows of another shape are returned as they are: the check of the native format says what is wrong.
    """
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not any(_is_blank(message) for message in messages):
        return row
    replies = [m for m in messages if isinstance(m, dict) and m.get("role") == "assistant"]
    kept = {**row, "messages": [message for message in messages if not _is_blank(message)]}
    for name in ("candidates", "relevant"):
        lists = row.get(name)
        if isinstance(lists, list) and len(lists) == len(replies):
            pairs = zip(lists, replies, strict=True)
            kept[name] = [items for items, reply in pairs if not _is_blank(reply)]
    return kept


def _is_blank(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, str) and not content.strip()
