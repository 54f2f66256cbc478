"""Any system's predictions, set against the turns of a test set: by id, or line by line in their order."""

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from personalign.data.dialogue import Dialogue
from personalign.data.faults import SHOWN, Fault, excerpt, kind
from personalign.data.split import normalise_line
from personalign.data.text import decode_json, lines_of, read_text
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Question, Reply

Key = tuple[str, int]

# Metrics count in float64, which holds every whole number up to here.
_LARGEST = 2**53
_ROW = '{"dialogue", "turn", "response"}'


def questions_of(dialogues: Sequence[Dialogue]) -> list[Question]:
    """Every assistant turn, in the order of the data.

    A person's past is what `person` says in other dialogues; where that is not given, what whoever has the same persona
    lines says there. Without other dialogues it is what the person said before in this one.
    """
    # All that a person says, read once, and where in it each dialogue lies.
    by_person: defaultdict[object, list[str]] = defaultdict(list)
    spans = []
    for dialogue in dialogues:
        said = by_person[_person(dialogue)]
        start = len(said)
        said += dialogue.said()
        spans.append(slice(start, len(said)))
    questions = []
    for dialogue, span in zip(dialogues, spans, strict=True):
        said = by_person[_person(dialogue)]
        elsewhere = (*said[: span.start], *said[span.stop :])
        for nth, turn in enumerate(dialogue.reply_indices()):
            own = dialogue.said(before=turn)
            questions.append(
                Question(
                    dialogue.id,
                    turn,
                    dialogue.persona,
                    gold=dialogue.messages[turn].content,
                    own=own,
                    partner=dialogue.said("user", before=turn),
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

    A file is JSON Lines if it is named .jsonl or .json, or if any of its lines is a JSON object: then every line must be
    one. Plain lines under such a name are refused, and so are lines that are all JSON strings: their quotes and escapes
    would be scored. Whatever else a plain line begins with, a bracket or a brace, is the reply's own.

    A row may carry the persona and the gold reply that it was made for; other ones than the data's are a fault.

    Raises PersonalignError that names the file and every line that is malformed, up to ten of them, and every id that is
    missing, there twice, or not in the data. A reply whose line is malformed does not also count as missing.
    """
    text, faults = read_text(Path(path))
    if faults:
        raise PersonalignError(
            f"{path} cannot be read:\n" + "\n".join(f"  {fault}" for fault in faults[:SHOWN])
        )
    written = lines_of(text)
    if questions and not text:
        raise PersonalignError(f"{path} is empty; write one reply per line, or JSON Lines {_ROW}")
    if _without_gz(path).endswith((".csv", ".tsv")):
        raise PersonalignError(
            f"{path} is a table, whose commas and quotes would be scored; write JSON Lines {_ROW}, or one plain reply "
            "per line as .txt"
        )
    named_json = _without_gz(path).endswith((".jsonl", ".json"))
    if named_json and isinstance(_json_or_none(text), list):
        raise PersonalignError(
            f"{path} is one JSON array; write each of its objects on a line of its own "
            f"(jq -c '.[]' {shlex.quote(str(path))})"
        )
    if any(isinstance(_json_or_none(line), dict) for _, line in written) or (named_json and not written):
        return _by_id(path, written, questions)
    if named_json:
        number, line = written[0]
        raise PersonalignError(
            f"{path} is named as JSON Lines, but none of its lines is a JSON object (line {number} is {excerpt(line)}); "
            f"name it .txt if it holds one plain reply per line, or write {_ROW} on each"
        )
    if written and all(isinstance(_json_or_none(line), str) for _, line in written):
        raise PersonalignError(
            f"{path} has a JSON string on every line, whose quotes and escapes would be scored; write the bare text of "
            f"each reply, or JSON Lines {_ROW}"
        )
    lines = text.split("\n")
    return _in_order(path, lines if lines[-1] else lines[:-1], questions)


def _without_gz(path: Path | str) -> str:
    return Path(path).name.lower().removesuffix(".gz")


def _json_or_none(line: str) -> Any:
    """What a line is as JSON, also where its keys or numbers are such that it is refused later."""
    try:
        return json.loads(line, parse_int=float)
    except (ValueError, RecursionError):
        return None


def _in_order(path: Path | str, lines: Sequence[str], questions: Sequence[Question]) -> list[Reply]:
    if len(lines) != len(questions):
        raise PersonalignError(
            f"{path} has {len(lines):,} lines but the data has {len(questions):,} replies; write one line per reply in "
            f"the order of the data, an empty one for an empty reply, or JSON Lines {_ROW}"
        )
    return [Reply(line.strip()) for line in lines]


def _by_id(path: Path | str, lines: Sequence[tuple[int, str]], questions: Sequence[Question]) -> list[Reply]:
    asked: dict[str, dict[int, Question]] = {}
    for question in questions:
        asked.setdefault(question.dialogue, {})[question.turn] = question
    found: dict[Key, Reply] = {}
    place: dict[Key, int] = {}
    named: set[Key] = set()
    faults: list[Fault] = []
    for number, line in lines:
        try:
            row = _object(line)
            keys = _keys(row, asked)
            named.update(keys)
            for key, reply in zip(keys, _replies(row, keys, asked), strict=True):
                if key in found:
                    raise _RowError(
                        "turn", f"{_named(key)} is there twice, first on line {place[key]}", "keep one"
                    )
                found[key], place[key] = reply, number
        except _RowError as fault:
            faults.append(Fault(str(path), number, *fault.parts))
    missing = [question.key for question in questions if question.key not in named]
    if faults or missing:
        told = [str(fault) for fault in faults[:SHOWN]]
        if len(faults) > SHOWN:
            told.append(f"... and {len(faults) - SHOWN} more")
        if missing:
            told.append(_missing(path, missing, of=len(questions)))
        raise PersonalignError(f"{path} does not fit the data:\n" + "\n".join(f"  {line}" for line in told))
    return [found[question.key] for question in questions]


def _missing(path: Path | str, keys: Sequence[Key], *, of: int) -> str:
    shown = ", ".join(map(_named, keys[:SHOWN])) + (" ..." if len(keys) > SHOWN else "")
    problem = f"{len(keys):,} of {of:,} replies of the data are missing: {shown}"
    return str(Fault(str(path), 0, "dialogue", problem, "predict every assistant turn"))


class _RowError(Exception):
    """field, problem, remedy."""

    @property
    def parts(self) -> tuple[str, str, str]:
        field, problem, remedy = self.args
        return field, problem, remedy


def _object(line: str) -> Mapping[str, Any]:
    row, problem = decode_json(line)
    if problem is not None:
        raise _RowError("line", problem, "write one JSON object per line")
    if not isinstance(row, dict):
        raise _RowError("line", f"{kind(row)} instead of an object", f"write {_ROW}")
    return row


def _keys(row: Mapping[str, Any], asked: Mapping[str, Mapping[int, Question]]) -> list[Key]:
    """The replies that a row is about: all of its dialogue, or one."""
    named = next((key for key in ("dialogue", "id") if key in row), None)
    if named is None:
        raise _missing_key(row, "dialogue")
    # A number is taken as its digits, as in the data.
    whole = _integer(row[named])
    dialogue = row[named] if whole is None else str(whole)
    if not isinstance(dialogue, str):
        raise _RowError(
            "dialogue", f"{kind(dialogue)} instead of a dialogue's id", "write the id that the data has"
        )
    if dialogue not in asked:
        raise _RowError(
            "dialogue", f"{excerpt(dialogue)} is not in the data", "write the id that the data has"
        )
    turns = list(asked[dialogue])
    return [(dialogue, turn) for turn in (turns if _is_whole(row) else [_turn(row, turns)])]


def _is_whole(row: Mapping[str, Any]) -> bool:
    return "responses" in row and "response" not in row


def _replies(
    row: Mapping[str, Any], keys: Sequence[Key], asked: Mapping[str, Mapping[int, Question]]
) -> list[Reply]:
    if not _is_whole(row):
        [(dialogue, turn)] = keys
        question = asked[dialogue][turn]
        _check_made_for(row, question)
        return [_reply(row, lines=len(question.persona))]
    texts = row["responses"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _RowError("responses", "not a list of texts", "write one text per reply of the dialogue")
    if len(texts) != len(keys):
        problem = f"{len(texts)} texts for the {len(keys)} replies of {excerpt(keys[0][0])}"
        raise _RowError("responses", problem, "write one text per reply of the dialogue")
    return [Reply(_one_line(text)) for text in texts]


def _missing_key(row: Mapping[str, Any], key: str) -> _RowError:
    given = ", ".join(f"`{name}`" for name in list(row)[:6]) or "nothing"
    return _RowError(key, f"is missing (the line has {given})", f"name it so: {_ROW}")


def _check_made_for(row: Mapping[str, Any], question: Question) -> None:
    """A row of ours says what it was made for; scored against other dialogues, its figures would look fine."""
    persona, gold = row.get("persona"), row.get("gold")
    if isinstance(persona, list) and _alike(question.persona) != _alike(map(str, persona)):
        raise _RowError(
            "persona", "is not the one in the data", "give the --data that the reply was made for"
        )
    if isinstance(gold, str) and question.gold is not None and _alike([gold]) != _alike([question.gold]):
        raise _RowError("gold", "is not the one in the data", "give the --data that the reply was made for")


def _alike(texts: Iterable[str]) -> list[str]:
    """Without what readers of formats change: spaces, empty lines, capitals and how letters are composed."""
    return [line for text in texts if (line := normalise_line(text))]


def _turn(row: Mapping[str, Any], turns: Sequence[int]) -> int:
    given = row.get("turn")
    if given is None and len(turns) == 1:
        return turns[0]
    turn = _integer(given)
    if turn is None or turn not in turns:
        problem = "is missing" if given is None else f"{given!r:.40} is no reply of this dialogue"
        raise _RowError("turn", problem, f"write the place of the reply among the messages: {_some(turns)}")
    return turn


def _reply(row: Mapping[str, Any], *, lines: int) -> Reply:
    """`lines`: how many the persona has."""
    if "response" not in row:
        raise _missing_key(row, "response")
    text = row["response"]
    if not isinstance(text, str):
        raise _RowError(
            "response", f"{kind(text)} instead of a text", "write the reply, empty if there is none"
        )
    selected = row.get("selected")
    selects = row.get("selects", "selected" in row)
    line = _integer(selected)
    if selected is not None and line not in range(lines):
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
        probabilities = tuple(_number(item, "probabilities") for item in probabilities)
    rank, candidates = _count(row, "rank"), _count(row, "candidates")
    if rank is not None and candidates is not None and rank > candidates:
        problem = f"{rank} is beyond the {candidates} candidates"
        raise _RowError("rank", problem, "write the place of the gold reply among them, from 1")
    return Reply(
        _one_line(text),
        selects=selects,
        line=line if selects else None,
        probabilities=probabilities,
        gold_nll=None if row.get("gold_nll") is None else _number(row["gold_nll"], "gold_nll"),
        gold_tokens=_count(row, "gold_tokens"),
        rank=rank,
    )


def _number(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise _RowError(
            field, f"{value!r:.40} is not a number from 0 up to 2**53", "write one, or leave the field out"
        )
    return float(value)


def _count(row: Mapping[str, Any], field: str) -> int | None:
    if row.get(field) is None:
        return None
    value = _integer(row[field])
    if value is None or not 1 <= value <= _LARGEST:
        problem = f"{row[field]!r:.40} is not a whole number from 1 up to 2**53"
        raise _RowError(field, problem, "write one, or leave the field out")
    return value


def _integer(value: Any) -> int | None:
    """A whole number, also one with a point and zeros: so pandas writes a column of integers and nulls."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _one_line(text: str) -> str:
    """A reply is one line, as in every file format of the field."""
    return " ".join(text.splitlines()).strip()


def _person(dialogue: Dialogue) -> object:
    if dialogue.person is not None:
        return dialogue.person
    return frozenset(dialogue.persona) if dialogue.persona else dialogue.id


def _named(key: Key) -> str:
    return f"{key[0]!r:.60} turn {key[1]}"


def _some(turns: Sequence[int]) -> str:
    return ", ".join(map(str, turns[:6])) + (" ..." if len(turns) > 6 else "")
