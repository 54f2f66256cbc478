import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Reply
from personalign.evaluation.predictions import questions_of, read_predictions


def dialogue(
    name: str, *replies: str, person: str | None = None, persona: tuple[str, ...] = ("i fish",)
) -> Dialogue:
    messages = [turn for reply in replies for turn in (Turn("user", "and you ?"), Turn("assistant", reply))]
    return Dialogue(name, persona, tuple(messages), person=person)


DIALOGUES = [dialogue("a", "one", "two"), dialogue("b", "three")]
QUESTIONS = questions_of(DIALOGUES)
ROWS: list[dict[str, Any]] = [
    {"dialogue": "a", "turn": 1, "response": "x"},
    {"dialogue": "a", "turn": 3, "response": "y"},
    {"dialogue": "b", "turn": 1, "response": "z"},
]


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(replies: list[Reply]) -> list[str]:
    return [reply.text for reply in replies]


def test_questions_know_what_was_said_before_and_elsewhere() -> None:
    first, second, third = QUESTIONS
    assert [q.key for q in QUESTIONS] == [("a", 1), ("a", 3), ("b", 1)]
    assert second.own == ("one",)
    assert second.partner == ("and you ?", "and you ?")
    # The same persona lines elsewhere.
    assert first.past == second.past == ("three",)
    assert third.past == ("one", "two")


def test_the_past_of_a_named_person_is_their_own() -> None:
    asked = questions_of(
        [dialogue("a", "one", person="p"), dialogue("b", "two", person="q"), dialogue("c", "3", "4")]
    )
    assert [q.past for q in asked] == [(), (), (), ("3",)]


def test_rows_come_in_any_order(tmp_path: Path) -> None:
    assert texts(read_predictions(written(tmp_path / "p.jsonl", *ROWS[::-1]), QUESTIONS)) == ["x", "y", "z"]


def test_a_whole_dialogue_in_one_row_and_a_turn_that_goes_without_saying(tmp_path: Path) -> None:
    path = written(
        tmp_path / "p.jsonl", {"id": "b", "response": "z"}, {"id": "a", "responses": ["x", "y\nand"]}
    )
    assert texts(read_predictions(path, QUESTIONS)) == ["x", "y and", "z"]


def test_plain_lines_in_order_compressed_or_not(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"x\r\n\r\nz\r\n")
    assert texts(read_predictions(tmp_path / "p.txt", QUESTIONS)) == ["x", "", "z"]
    with gzip.open(tmp_path / "p.txt.gz", "wt") as stream:
        stream.write("x\ny\nz")
    assert texts(read_predictions(tmp_path / "p.txt.gz", QUESTIONS)) == ["x", "y", "z"]


def test_what_a_system_tells_of_itself_is_kept(tmp_path: Path) -> None:
    row = {
        "selected": 0,
        "probabilities": [0.6, 0.4],
        "gold_nll": 3.5,
        "gold_tokens": 4,
        "rank": 2,
        "candidates": 20,
    }
    path = written(tmp_path / "p.jsonl", {**ROWS[0], **row}, {**ROWS[1], "selected": None}, ROWS[2])
    first, second, third = read_predictions(path, QUESTIONS)
    assert first == Reply("x", True, 0, (0.6, 0.4), 3.5, 4, 2, 20)
    assert (second.selects, second.line) == (True, None)
    assert (third.selects, third.line) == (False, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:1], r"2 of 3 replies of the data are missing: 'a' turn 3, 'b' turn 1"),
        ([*ROWS, ROWS[0]], r"p.jsonl:4: turn: 'a' turn 1 is there twice, first on line 1; keep one"),
        ([*ROWS, {"dialogue": "c", "response": ""}], r"p.jsonl:4: dialogue: 'c' is not in the data"),
        ([*ROWS, {"dialogue": "a", "turn": 2, "response": ""}], r"2 is no reply of this dialogue; .*: 1, 3"),
        ([*ROWS, {"dialogue": "a", "response": ""}], r"turn: is missing; write the place"),
        ([*ROWS[:2], {"dialogue": "b"}], r"p.jsonl:3: response: null instead of a text"),
        ([*ROWS[:2], {"turn": 1}], r"p.jsonl:3: dialogue: null instead of a dialogue's id"),
        ([*ROWS[:2], {**ROWS[2], "selected": 1}], r"selected: 1 is none of the 1 persona lines"),
        ([*ROWS[:2], {**ROWS[2], "probabilities": [1]}], r"probabilities: not a list of 2 numbers"),
        ([*ROWS[:2], {**ROWS[2], "gold_nll": -1}], r"gold_nll: -1 is not a number from 0 up"),
        ([*ROWS[:2], {**ROWS[2], "rank": True}], r"rank: True is not a whole number"),
        ([*ROWS[:2], {"id": "a", "responses": ["x"]}], r"responses: 1 texts for the 2 replies of 'a'"),
        ([*ROWS, ["x"]], r"p.jsonl:4: line: a list instead of an object"),
    ],
)
def test_faults_name_line_and_field(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(PersonalignError, match=message):
        read_predictions(written(tmp_path / "p.jsonl", *rows), QUESTIONS)


def test_too_few_plain_lines_say_how_many(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("x\ny\n")
    with pytest.raises(PersonalignError, match="2 lines but the data has 3 replies"):
        read_predictions(tmp_path / "p.txt", QUESTIONS)


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    rows = [{"dialogue": f"no {index}", "response": ""} for index in range(30)]
    with pytest.raises(PersonalignError) as caught:
        read_predictions(written(tmp_path / "p.jsonl", *rows), QUESTIONS)
    assert str(caught.value).count("\n  ") == 11
    assert "... and 21 more" in str(caught.value)


def mutated(lines: list[str], generator: random.Random) -> str | bytes:
    """A prediction file with a few things done to it, from a changed character to a lost line."""
    lines = list(lines)
    for _ in range(generator.randint(1, 3)):
        index = generator.randrange(len(lines)) if lines else 0
        match generator.randrange(9):
            case 0 if lines:
                del lines[index]
            case 1 if lines:
                lines.insert(generator.randrange(len(lines) + 1), lines[index])
            case 2 if lines:
                cut = generator.randrange(len(lines[index]) + 1)
                lines[index] = lines[index][:cut]
            case 3 if lines:
                at = generator.randrange(len(lines[index]) + 1)
                junk = generator.choice(
                    ['"', "{", "}", "[", "\\ud800", "\x00", "é", ":", "NaN", "1e999", "\\", "\t", "9" * 5000]
                )
                lines[index] = lines[index][:at] + junk + lines[index][at:]
            case 4 if lines:
                row = json.loads(lines[index]) if _is_json(lines[index]) else {}
                if isinstance(row, dict) and row:
                    row[generator.choice(list(row))] = generator.choice(
                        [None, True, -1, 0, 3.5, "", "x", [], {}, [[1]], 10**30, float("inf"), {"a": [None]}]
                    )
                    lines[index] = json.dumps(row)
            case 5 if lines:
                row = json.loads(lines[index]) if _is_json(lines[index]) else {}
                if isinstance(row, dict) and row:
                    row.pop(generator.choice(list(row)))
                    lines[index] = json.dumps(row)
            case 6:
                lines.insert(
                    index, generator.choice(["", "   ", "null", "[]", "[" * 3000, "plain", "{}", '"x"'])
                )
            case 7:
                generator.shuffle(lines)
            case _:
                data = "\n".join(lines).encode()
                at = generator.randrange(len(data) + 1)
                return (
                    data[:at]
                    + bytes(generator.randrange(256) for _ in range(generator.randint(1, 4)))
                    + data[at:]
                )
    return "\n".join(lines) + generator.choice(["", "\n", "\r\n", "\n\n"])


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def read_or_refused(path: Path) -> tuple[list[Reply] | None, str]:
    try:
        return read_predictions(path, QUESTIONS), ""
    except PersonalignError as error:
        return None, str(error)


def test_ten_thousand_mutated_files_are_read_right_or_refused_with_the_fault(tmp_path: Path) -> None:
    generator = random.Random(7)
    told = {"selected": 0, "probabilities": [0.6, 0.4], "gold_nll": 3.5, "gold_tokens": 4, "rank": 2}
    lines = [json.dumps({**row, **told}) for row in ROWS]
    path = tmp_path / "p.jsonl"
    read = refused = 0
    for _ in range(10_000):
        content = mutated(lines, generator)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        replies, refusal = read_or_refused(path)
        if replies is None:
            assert "p.jsonl" in refusal
            refused += 1
            continue
        read += 1
        assert len(replies) == 3
        for reply in replies:
            reply.text.encode()
            assert "\n" not in reply.text
            assert reply.line in (None, 0)
    assert read > 500
    assert refused > 3000
