"""Any system's predictions, set against the turns of a test set: by id, or line by line in their order."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from personalign.data.dialogue import Dialogue
from personalign.data.faults import SHOWN, Fault, excerpt, kind
from personalign.data.text import read_text
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Question, Reply

Key = tuple[str, int]

_SURROGATE = re.compile("[\ud800-\udfff]")


def questions_of(dialogues: Sequence[Dialogue]) -> list[Question]:
    """Every assistant turn, in the order of the data.

    A person's past is what `person` says in other dialogues; where that is not given, what whoever has the same persona
    lines says there. Without other dialogues it is what the person said before in this one.
    """
    by_person: defaultdict[object, list[Dialogue]] = defaultdict(list)
    for dialogue in dialogues:
        by_person[_person(dialogue)].append(dialogue)
    questions = []
    for dialogue in dialogues:
        elsewhere = tuple(
            text
            for other in by_person[_person(dialogue)]
            if other is not dialogue
            for text in _said(other, "assistant", len(other.messages))
        )
        for nth, turn in enumerate(dialogue.reply_indices()):
            own = _said(dialogue, "assistant", turn)
            questions.append(
                Question(
                    dialogue.id,
                    turn,
                    dialogue.persona,
                    gold=dialogue.messages[turn].content,
                    own=own,
                    partner=_said(dialogue, "user", turn),
                    past=elsewhere or own,
                    relevant=None if dialogue.relevant is None else dialogue.relevant[nth],
                )
            )
    return questions


def read_predictions(path: Path | str, questions: Sequence[Question]) -> list[Reply]:
    """One reply per question, in their order.

    JSON Lines, compressed or not, in any order: `{"dialogue": ID, "turn": N, "response": TEXT}`, N being the place of
    the reply among the dialogue's messages, from 0, and left out where the dialogue has one reply only; or
    `{"id": ID, "responses": [TEXT, ...]}` with all replies of a dialogue. Or plain lines, as many as there are replies.

    Raises PersonalignError that names the file and, up to ten of them, every line that is malformed and every id that is
    missing, there twice, or not in the data.
    """
    text, faults = read_text(Path(path))
    if faults:
        raise PersonalignError(
            f"{path} cannot be read:\n" + "\n".join(f"  {fault}" for fault in faults[:SHOWN])
        )
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    first = next((line for line in lines if line.strip()), "")
    if not first.lstrip().startswith(("{", "[")):
        return _in_order(path, lines, questions)
    return _by_id(path, lines, questions)


def _in_order(path: Path | str, lines: Sequence[str], questions: Sequence[Question]) -> list[Reply]:
    if len(lines) != len(questions):
        raise PersonalignError(
            f"{path} has {len(lines):,} lines but the data has {len(questions):,} replies; write one line per reply in "
            'the order of the data, an empty one for an empty reply, or JSON Lines {"dialogue", "turn", "response"}'
        )
    return [Reply(line.strip()) for line in lines]


def _by_id(path: Path | str, lines: Sequence[str], questions: Sequence[Question]) -> list[Reply]:
    asked: dict[str, dict[int, Question]] = {}
    for question in questions:
        asked.setdefault(question.dialogue, {})[question.turn] = question
    found: dict[Key, Reply] = {}
    place: dict[Key, int] = {}
    faults: list[Fault] = []
    file = str(path)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            for key, reply in _replies_in(line, asked):
                if key in found:
                    raise _RowError(
                        "turn", f"{_named(key)} is there twice, first on line {place[key]}", "keep one"
                    )
                found[key], place[key] = reply, number
        except _RowError as fault:
            faults.append(Fault(file, number, *fault.parts))
    missing = [question.key for question in questions if question.key not in found]
    if missing:
        shown = ", ".join(map(_named, missing[:SHOWN])) + (" ..." if len(missing) > SHOWN else "")
        problem = f"{len(missing):,} of {len(questions):,} replies of the data are missing: {shown}"
        faults.append(Fault(file, 0, "dialogue", problem, "predict every assistant turn"))
    if faults:
        hidden = f"\n  ... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        # What is missing as a whole comes first: it is told once, the lines one by one.
        faults.sort(key=lambda fault: fault.line)
        shown = "\n".join(f"  {fault}" for fault in faults[:SHOWN])
        raise PersonalignError(f"{path} does not fit the data:\n{shown}{hidden}")
    return [found[question.key] for question in questions]


class _RowError(Exception):
    """field, problem, remedy."""

    @property
    def parts(self) -> tuple[str, str, str]:
        field, problem, remedy = self.args
        return field, problem, remedy


def _replies_in(line: str, asked: Mapping[str, Mapping[int, Question]]) -> Iterable[tuple[Key, Reply]]:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        raise _RowError("line", f"not JSON ({str(error)[:80]})", "write one JSON object per line") from None
    if not isinstance(row, dict):
        raise _RowError("line", f"{kind(row)} instead of an object", 'write {"dialogue", "turn", "response"}')
    dialogue = row.get("dialogue", row.get("id"))
    if not isinstance(dialogue, str):
        raise _RowError(
            "dialogue", f"{kind(dialogue)} instead of a dialogue's id", "write the id that the data has"
        )
    if dialogue not in asked:
        raise _RowError(
            "dialogue", f"{excerpt(dialogue)} is not in the data", "write the id that the data has"
        )
    if "responses" in row and "response" not in row:
        return _of_whole_dialogue(row, dialogue, list(asked[dialogue]))
    turn = _turn(row, list(asked[dialogue]))
    return [((dialogue, turn), _reply(row, lines=len(asked[dialogue][turn].persona)))]


def _of_whole_dialogue(
    row: Mapping[str, Any], dialogue: str, turns: Sequence[int]
) -> list[tuple[Key, Reply]]:
    texts = row["responses"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _RowError("responses", "not a list of texts", "write one text per reply of the dialogue")
    if len(texts) != len(turns):
        problem = f"{len(texts)} texts for the {len(turns)} replies of {excerpt(dialogue)}"
        raise _RowError("responses", problem, "write one text per reply of the dialogue")
    return [((dialogue, turn), Reply(_clean(text))) for turn, text in zip(turns, texts, strict=True)]


def _turn(row: Mapping[str, Any], turns: Sequence[int]) -> int:
    turn = row.get("turn")
    if turn is None and len(turns) == 1:
        return turns[0]
    if isinstance(turn, bool) or not isinstance(turn, int) or turn not in turns:
        given = "is missing" if turn is None else f"{turn!r:.40} is no reply of this dialogue"
        raise _RowError("turn", given, f"write the place of the reply among the messages: {_some(turns)}")
    return turn


def _reply(row: Mapping[str, Any], *, lines: int) -> Reply:
    """`lines`: how many the persona has."""
    text = row.get("response")
    if not isinstance(text, str):
        raise _RowError(
            "response", f"{kind(text)} instead of a text", "write the reply, empty if there is none"
        )
    selected = row.get("selected")
    selects = row.get("selects", "selected" in row)
    if selected is not None and (isinstance(selected, bool) or selected not in range(lines)):
        problem = f"{selected!r:.40} is none of the {lines} persona lines"
        raise _RowError("selected", problem, "write 0 for the first, null for none")
    if not isinstance(selects, bool):
        raise _RowError(
            "selects", f"{kind(selects)} instead of true or false", "leave it out, or write true or false"
        )
    probabilities = row.get("probabilities")
    if probabilities is not None:
        if not isinstance(probabilities, list) or len(probabilities) != lines + 1:
            raise _RowError(
                "probabilities", f"not a list of {lines + 1} numbers", "write one per line, then that of none"
            )
        probabilities = tuple(_number(item, "probabilities", least=0.0) for item in probabilities)
    return Reply(
        _clean(text),
        selects=selects,
        line=selected if selects else None,
        probabilities=probabilities,
        gold_nll=_optional(row, "gold_nll", least=0.0),
        gold_tokens=_whole(row, "gold_tokens"),
        rank=_whole(row, "rank"),
        candidates=_whole(row, "candidates"),
    )


def _optional(row: Mapping[str, Any], field: str, *, least: float) -> float | None:
    return None if row.get(field) is None else _number(row[field], field, least=least)


def _number(value: Any, field: str, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise _RowError(
            field, f"{value!r:.40} is not a number from {least:g} up", "write one, or leave the field out"
        )
    return float(value)


def _whole(row: Mapping[str, Any], field: str) -> int | None:
    value = row.get(field)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise _RowError(
            field, f"{value!r:.40} is not a whole number from 1 up", "write one, or leave the field out"
        )
    return value


def _clean(text: str) -> str:
    """A reply is one line, as in every file format of the field."""
    if _SURROGATE.search(text):
        raise _RowError("response", "half of a surrogate pair", "write the whole character")
    return " ".join(text.splitlines()).strip()


def _person(dialogue: Dialogue) -> object:
    if dialogue.person is not None:
        return dialogue.person
    return frozenset(dialogue.persona) if dialogue.persona else dialogue.id


def _said(dialogue: Dialogue, role: str, before: int) -> tuple[str, ...]:
    return tuple(message.content for message in dialogue.messages[:before] if message.role == role)


def _named(key: Key) -> str:
    return f"{key[0]!r:.60} turn {key[1]}"


def _some(turns: Sequence[int]) -> str:
    return ", ".join(map(str, turns[:6])) + (" ..." if len(turns) > 6 else "")
