"""The native format: one JSON object per dialogue, TRL's conversational `messages` plus `persona`.

    {"id": "a1", "persona": ["i keep bees."], "messages": [{"role": "user", "content": "any pets?"},
     {"role": "assistant", "content": "only bees."}], "relevant": [[0]]}

Every other reader turns its source into such rows, so that all sources meet the same checks.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.faults import Fault, excerpt, kind
from personalign.data.text import half_character, read_json_values

FIELDS = ("id", "persona", "messages", "partner_persona", "candidates", "relevant", "person")
SUFFIXES = {".gz", ".jsonl", ".json", ".txt", ".csv", ".tsv", ".parquet"}
_ROLES = ("user", "assistant")
_MESSAGE_FIELDS = ("role", "content")
_OTHER_NAMES = ("text", "value", "utterance", "message", "body")
_MISSPELT = 0.85

_Problem = tuple[str, str, str]  # field, problem, remedy

read_rows = read_json_values


def parse_row(
    value: Any, *, file: str, line: int, place: int = 1
) -> tuple[Dialogue | None, tuple[Fault, ...]]:
    """The dialogue of one row, or all of the row's faults.

    A row without `id` is called after its file, its line and, in a JSON array that puts several on a line,
    its `place` there. Keys that personalign does not read stay in
    `extra`, those of a message under `extra["messages"]`, one object per message.
    """
    faults = tuple(Fault(file, line, *problem) for problem in _problems(value))
    return (None, faults) if faults else (_build(value, default_id(file, line, place=place)), ())


def dialogue_to_row(dialogue: Dialogue) -> dict[str, Any]:
    """The native row of `dialogue`; `parse_row` gives the same dialogue back."""
    extra = dict(dialogue.extra)
    message_keys = extra.pop("messages", None) or [{}] * len(dialogue.messages)
    row: dict[str, Any] = {
        "id": dialogue.id,
        "persona": list(dialogue.persona),
        "messages": [
            {"role": turn.role, "content": turn.content, **keys}
            for turn, keys in zip(dialogue.messages, message_keys, strict=True)
        ],
    }
    if dialogue.partner_persona:
        row["partner_persona"] = list(dialogue.partner_persona)
    if dialogue.candidates is not None:
        row["candidates"] = [list(candidates) for candidates in dialogue.candidates]
    if dialogue.relevant is not None:
        row["relevant"] = [list(indices) for indices in dialogue.relevant]
    if dialogue.person is not None:
        row["person"] = dialogue.person
    return {**extra, **row}


def suffix_of(path: str | Path) -> str:
    """What a file is by its name, in small letters: `.csv` of `TALK.CSV.gz`."""
    return Path(Path(path).name.lower().removesuffix(".gz")).suffix


def default_id(file: str, line: int, *, place: int = 1) -> str:
    name = Path(file).name
    while Path(name).suffix.lower() in SUFFIXES:
        name = Path(name).stem
    return f"{name}:{line}" if place == 1 else f"{name}:{line}.{place}"


def _build(row: Mapping[str, Any], name: str) -> Dialogue:
    given = row.get("id")
    extra = {key: value for key, value in row.items() if key not in FIELDS}
    message_keys = [
        {key: value for key, value in message.items() if key not in {"role", "content"}}
        for message in row["messages"]
    ]
    if any(message_keys):
        extra["messages"] = message_keys
    return Dialogue(
        id=name if given is None else str(given),
        persona=tuple(row.get("persona") or ()),
        messages=tuple(Turn(message["role"], message["content"]) for message in row["messages"]),
        partner_persona=tuple(line for line in row.get("partner_persona") or () if line.strip()),
        candidates=_nested(row.get("candidates")),
        relevant=_nested(row.get("relevant")),
        person=None if row.get("person") is None else str(row["person"]),
        extra=extra,
    )


def _nested(lists: list[list[Any]] | None) -> tuple[tuple[Any, ...], ...] | None:
    return None if lists is None else tuple(tuple(items) for items in lists)


def _problems(row: Any) -> Iterator[_Problem]:
    if not isinstance(row, dict):
        yield "line", f"is {kind(row)}", 'write an object such as {"persona": [...], "messages": [...]}'
        return
    misspelt = _misspelt_keys(row, FIELDS)
    for key, field in misspelt.items():
        yield key, f"is not read, and {field!r} is missing", f"rename it to {field!r}"
    # The rest is checked as if the keys were right: what is wrong below them is found in the same pass.
    row = {misspelt.get(key, key): value for key, value in row.items()}
    for name in ("id", "person"):
        yield from _name_problems(name, row.get(name))
    for name in ("persona", "partner_persona"):
        yield from _persona_problems(name, row.get(name))
    messages = row.get("messages")
    if not isinstance(messages, list):
        problem = f"is {kind(messages)}" if "messages" in row else "is missing"
        yield "messages", problem, 'write a list of {"role": ..., "content": ...}, [] for an empty dialogue'
        return
    for index, message in enumerate(messages):
        yield from _message_problems(f"messages[{index}]", message)
    replies = [m.get("content") for m in messages if isinstance(m, dict) and m.get("role") == "assistant"]
    yield from _candidate_problems(row.get("candidates"), replies)
    persona = row.get("persona") or []
    if isinstance(persona, list):
        yield from _relevant_problems(row.get("relevant"), len(replies), len(persona))


def _misspelt_keys(row: Mapping[str, Any], fields: Sequence[str]) -> dict[str, str]:
    """Which of `fields` each key of `row` seems to mean, where that field is missing."""
    absent = [field for field in fields if field not in row]
    return {
        key: field
        for key in row
        if key not in fields
        for field in difflib.get_close_matches(key.lower(), absent, n=1, cutoff=_MISSPELT)
    }


def _name_problems(name: str, value: Any) -> Iterator[_Problem]:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, str | int):
        yield name, f"is {kind(value)}", "write a string, or leave the key out"
    elif not str(value).strip():
        yield name, "is empty", "write a name, or leave the key out"
    elif half := half_character(str(value)):
        yield name, half, "write whole characters"


def _persona_problems(name: str, lines: Any) -> Iterator[_Problem]:
    if lines is None:
        return
    if not isinstance(lines, list):
        yield name, f"is {kind(lines)}", "write a list of sentences, [] if there are none"
        return
    for index, line in enumerate(lines):
        # Nothing points into the partner's persona, so that a blank line of it can be left out.
        if name == "persona" or not isinstance(line, str):
            yield from _text_problems(f"{name}[{index}]", line, "write a sentence, or take the line out")


def _text_problems(field: str, text: Any, remedy: str) -> Iterator[_Problem]:
    if not isinstance(text, str):
        yield field, f"is {kind(text)}", remedy
    elif not text.strip():
        yield field, "is empty", remedy
    elif half := half_character(text):
        yield field, half, "write whole characters"


def _message_problems(field: str, message: Any) -> Iterator[_Problem]:
    if not isinstance(message, dict):
        yield field, f"is {kind(message)}", 'write {"role": "user" or "assistant", "content": "..."}'
        return
    misspelt = _misspelt_keys(message, _MESSAGE_FIELDS)
    for key, name in misspelt.items():
        yield f"{field}.{key}", f"is not read, and {name!r} is missing", f"rename it to {name!r}"
    message = {misspelt.get(key, key): value for key, value in message.items()}
    role = message.get("role")
    if role == "system":
        yield f"{field}.role", "'system' is no speaker", "move its sentences into `persona`"
    elif role not in _ROLES:
        shown = excerpt(role) if isinstance(role, str) else kind(role) if "role" in message else "missing"
        yield f"{field}.role", f"is {shown}", "write 'user' (the partner) or 'assistant' (has the persona)"
    remedy = (
        "write what was said, or take the turn out, or `personalign data convert FILE NEW --drop-empty-turns`"
    )
    content = message.get("content")
    if "content" not in message:
        other = next((key for key in _OTHER_NAMES if isinstance(message.get(key), str)), None)
        # What was said is there, under the name that another format has for it.
        yield f"{field}.content", "is missing", remedy if other is None else f"rename {other!r} to 'content'"
    elif content is not None and not isinstance(content, str):
        yield f"{field}.content", f"is {kind(content)}", "write what was said, as a string"
    else:
        yield from _text_problems(f"{field}.content", content, remedy)


def _per_reply_problems(name: str, lists: Any, replies: int) -> Iterator[_Problem]:
    if not isinstance(lists, list) or not all(isinstance(items, list) for items in lists):
        what = kind(lists) if not isinstance(lists, list) else "a list of other things than lists"
        yield name, f"is {what}", "write one list per assistant turn"
    elif len(lists) != replies:
        problem = f"has {len(lists)} lists for {replies} assistant turns"
        yield name, problem, "write one list per assistant turn, [] where there is none"


def _candidate_problems(lists: Any, replies: list[Any]) -> Iterator[_Problem]:
    if lists is None:
        return
    shape = tuple(_per_reply_problems("candidates", lists, len(replies)))
    yield from shape
    if shape:
        return
    for turn, candidates in enumerate(lists):
        for index, candidate in enumerate(candidates):
            yield from _text_problems(
                f"candidates[{turn}][{index}]", candidate, "write a reply, or take it out"
            )
        if candidates and replies[turn] not in candidates:
            problem = "the reply that was given is not among the candidates"
            yield f"candidates[{turn}]", problem, "add the assistant's reply as the last candidate"


def _relevant_problems(lists: Any, replies: int, lines: int) -> Iterator[_Problem]:
    if lists is None:
        return
    shape = tuple(_per_reply_problems("relevant", lists, replies))
    yield from shape
    if shape:
        return
    for turn, indices in enumerate(lists):
        field = f"relevant[{turn}]"
        if not all(isinstance(index, int) and not isinstance(index, bool) for index in indices):
            yield field, "holds something that is no whole number", "write indices into `persona`, from 0"
        elif any(not 0 <= index < lines for index in indices):
            outside = next(index for index in indices if not 0 <= index < lines)
            problem = f"index {outside} is outside the persona's {lines} lines"
            yield field, problem, "write indices into `persona`, from 0; [] is the label none"
        elif len(set(indices)) < len(indices):
            yield field, "names a line twice", "name each line once"
