import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.evaluate import Settings, evaluate
from personalign.evaluation.metrics import find_metrics, metric_of
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


def test_what_a_person_says_is_read_once_however_many_dialogues(monkeypatch: pytest.MonkeyPatch) -> None:
    talks = [dialogue(str(number), f"reply {number}", "bye", person="p") for number in range(20)]
    replies, said = [], Dialogue.said

    def counted(self: Dialogue, role: Any = "assistant", *, before: int | None = None) -> tuple[str, ...]:
        if before is None:
            replies.append(self.id)
        return said(self, role, before=before)

    monkeypatch.setattr(Dialogue, "said", counted)
    asked = questions_of(talks)
    assert sorted(replies) == sorted(talk.id for talk in talks)
    assert asked[6].past == tuple(
        text for number in range(20) if number != 3 for text in (f"reply {number}", "bye")
    )
    assert asked[6].past is asked[7].past


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
    assert first == Reply("x", True, 0, (0.6, 0.4), 3.5, 4, 2)
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
        ([*ROWS[:2], {"dialogue": "b"}], r"p.jsonl:3: response: is missing \(the line has `dialogue`\)"),
        ([*ROWS[:2], {"dialogue": "b", "response": None}], r"p.jsonl:3: response: null instead of a text"),
        (
            [*ROWS[:2], {"id": "b", "response": "z", "persona": ["x"]}],
            r"p.jsonl:3: persona: is not the one in the data",
        ),
        (
            [*ROWS[:2], {"id": "b", "response": "z", "gold": "x"}],
            r"p.jsonl:3: gold: is not the one in the data",
        ),
        ([*ROWS[:2], {"turn": 1}], r"p.jsonl:3: dialogue: is missing \(the line has `turn`\)"),
        ([*ROWS[:2], {**ROWS[2], "selected": 1}], r"selected: 1 is none of the 1 persona lines"),
        ([*ROWS[:2], {**ROWS[2], "probabilities": [1]}], r"probabilities: not a list of 2 numbers"),
        ([*ROWS[:2], {**ROWS[2], "gold_nll": -1}], r"gold_nll: -1 is not a number from 0 up"),
        ([*ROWS[:2], {**ROWS[2], "rank": True}], r"rank: True is not a whole number"),
        ([*ROWS[:2], {"id": "a", "responses": ["x"]}], r"responses: 1 texts for the 2 replies of 'a'"),
        ([*ROWS, ["x"]], r"p.jsonl:4: line: a list instead of an object"),
        ([*ROWS[:2], {**ROWS[2], "selected": 0.5}], r"selected: 0.5 is none of the 1 persona lines"),
        ([*ROWS[:2], {**ROWS[2], "selected": False}], r"selected: False is none of the 1 persona lines"),
        (
            [*ROWS[:2], {**ROWS[2], "gold_nll": 10**400}],
            r"gold_nll: 1000.* is not a number from 0 up to 2\*\*53",
        ),
        ([*ROWS[:2], {**ROWS[2], "gold_tokens": 10**30}], r"gold_tokens: 1000.* is not a whole number"),
        (
            [*ROWS[:2], {**ROWS[2], "rank": 10**400}],
            r"rank: 1000.* is not a whole number from 1 up to 2\*\*53",
        ),
        ([*ROWS[:2], {**ROWS[2], "candidates": 2**54}], r"candidates: 1801.* is not a whole number"),
        ([*ROWS[:2], {**ROWS[2], "rank": 21, "candidates": 20}], r"rank: 21 is beyond the 20 candidates"),
        ([*ROWS[:2], {**ROWS[2], "response": "\ud83d"}], r"p.jsonl:3: line: .*half a character"),
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
    shown = str(caught.value).splitlines()[1:]
    assert [line.split(":")[1] for line in shown[:10]] == [str(number) for number in range(1, 11)]
    assert shown[10] == "  ... and 20 more"
    assert "3 of 3 replies of the data are missing" in shown[11]


def test_a_malformed_row_is_not_also_missing(tmp_path: Path) -> None:
    """Only a row that does not say which reply it is leaves that reply missing."""
    rows = [
        {**ROWS[0], "rank": 0},
        {"dialogue": "b", "responses": []},
        {"dialogue": "a", "response": "which ?"},
    ]
    with pytest.raises(PersonalignError) as caught:
        read_predictions(written(tmp_path / "p.jsonl", *rows), QUESTIONS)
    first, second, third, missing = str(caught.value).splitlines()[1:]
    assert "p.jsonl:1: rank: 0 is not a whole number" in first
    assert "p.jsonl:2: responses: 0 texts for the 1 replies" in second
    assert "p.jsonl:3: turn: is missing" in third
    assert "1 of 3 replies of the data are missing: 'a' turn 3" in missing


def test_a_key_twice_in_one_object_is_refused(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ROWS]
    lines[1] = lines[1].replace("{", '{"response": "other", ')
    for name in ("p.jsonl", "p.txt"):
        (tmp_path / name).write_text("\n".join(lines))
        with pytest.raises(PersonalignError, match=rf"{name}:2: line: .*key 'response' occurs twice"):
            read_predictions(tmp_path / name, QUESTIONS)


def test_integers_with_a_point_are_integers(tmp_path: Path) -> None:
    """As pandas writes a column of integers and nulls."""
    row = {"turn": 1.0, "selected": 0.0, "gold_nll": 2, "gold_tokens": 4.0, "rank": 2.0, "candidates": 3.0}
    first = read_predictions(written(tmp_path / "p.jsonl", {**ROWS[0], **row}, *ROWS[1:]), QUESTIONS)[0]
    assert first == Reply("x", True, 0, None, 2.0, 4, 2)
    assert [type(value) for value in (first.line, first.gold_nll, first.gold_tokens, first.rank)] == [
        int,
        float,
        int,
        int,
    ]


@pytest.mark.parametrize("name", ["p.jsonl", "p.JSON", "p.txt", "p"])
def test_one_object_makes_a_file_json_lines(tmp_path: Path, name: str) -> None:
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / name).write_text("\n".join([lines[0][1:], *lines[1:]]))
    with pytest.raises(
        PersonalignError, match=rf"{name}:1: line: not JSON: .*; write one JSON object per line"
    ):
        read_predictions(tmp_path / name, QUESTIONS)


def test_objects_that_are_refused_are_no_plain_lines(tmp_path: Path) -> None:
    """NaN and numbers beyond what is read."""
    (tmp_path / "p.txt").write_text(
        '{"dialogue": "a", "turn": 1, "response": "x", "gold_nll": NaN}\n'
        f'{{"dialogue": "a", "turn": 3, "response": "y", "rank": {"9" * 5000}}}\n'
        '{"dialogue": "b", "response": "z", "gold_nll": 1e999}\n'
    )
    with pytest.raises(PersonalignError, match=r"p.txt:1: .*NaN(.|\n)*p.txt:2: (.|\n)*p.txt:3: .*1e999"):
        read_predictions(tmp_path / "p.txt", QUESTIONS)


@pytest.mark.parametrize("first", ["[laughs] yes", "{name}, hi", "[]", "42", '"quoted" he said', "null"])
def test_a_plain_line_may_begin_with_anything(tmp_path: Path, first: str) -> None:
    (tmp_path / "p.txt").write_text(f'{first}\n"a JSON string"\n\n')
    assert texts(read_predictions(tmp_path / "p.txt", QUESTIONS)) == [first, '"a JSON string"', ""]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.jsonl.gz"])
def test_plain_lines_under_the_name_of_json_lines_are_refused(tmp_path: Path, name: str) -> None:
    content = b"\n[laughs] yes\nhi\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    message = r"named as JSON Lines, but none .* \(line 2 is '\[laughs\] yes'\); name it \.txt .* or write \{"
    with pytest.raises(PersonalignError, match=message):
        read_predictions(tmp_path / name, QUESTIONS)


def test_an_array_and_a_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(ROWS, indent=1))
    with pytest.raises(PersonalignError, match="is one JSON array; write each of its objects on a line"):
        read_predictions(tmp_path / "p.json", QUESTIONS)
    (tmp_path / "my p.json").write_text(json.dumps(ROWS))
    with pytest.raises(PersonalignError, match=r"jq -c '\.\[\]' '.*/my p\.json'"):
        read_predictions(tmp_path / "my p.json", QUESTIONS)
    (tmp_path / "p.json").write_text("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n")
    with pytest.raises(PersonalignError, match="is one JSON array"):
        read_predictions(tmp_path / "p.json", QUESTIONS)
    (tmp_path / "p.csv").write_text("a,1,x\na,3,y\nb,1,z\n")
    with pytest.raises(PersonalignError, match="is a table, whose commas and quotes would be scored"):
        read_predictions(tmp_path / "p.csv", QUESTIONS)


def test_empty_replies_are_no_empty_file_and_spaces_no_other_persona(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n\n\n")
    assert texts(read_predictions(tmp_path / "p.txt", QUESTIONS)) == ["", "", ""]
    turns = (Turn("user", "hi"), Turn("assistant", "hello"))
    questions = questions_of([Dialogue("7", ("i fish .",), turns)])
    row = {"dialogue": "7", "response": "x", "persona": ["I fish . ", ""], "gold": "hello "}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    assert texts(read_predictions(tmp_path / "p.jsonl", questions)) == ["x"]


def test_a_number_names_a_dialogue_by_its_digits(tmp_path: Path) -> None:
    turns = (Turn("user", "hi"), Turn("assistant", "hello"))
    (tmp_path / "p.jsonl").write_text('{"dialogue": 7, "response": "x"}\n')
    assert texts(read_predictions(tmp_path / "p.jsonl", questions_of([Dialogue("7", (), turns)]))) == ["x"]


def test_json_strings_are_no_plain_lines(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text('"x"\n"y \\u00e9"\n\n"z"\n')
    with pytest.raises(PersonalignError, match=r"a JSON string on every line, .*; write the bare text"):
        read_predictions(tmp_path / "p.txt", QUESTIONS)


@pytest.mark.parametrize("name", ["p.jsonl", "p.txt"])
def test_an_empty_file_answers_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(PersonalignError, match=f"{name} is empty; write one reply per line"):
        read_predictions(tmp_path / name, QUESTIONS)


JUNK = ['"', "{", "}", "[", "\\ud800", "\x00", "é", ":", "NaN", "1e999", "\\", "\t", "9" * 5000]
VALUES: list[Any] = [
    None, True, -1, 0, 0.0, 1.0, 3.5, "", " x\ny ", [], {}, [[1]], 2**53, 2**54, 10**30, 10**400,
    float("inf"), {"a": [None]},
]  # fmt: skip
LINES = ["", "   ", "null", "[]", "[" * 3000, "plain", "{}", '"x"']


def mutated(lines: list[str], generator: random.Random) -> str | bytes:
    """A prediction file with a few things done to it, from a changed character to a lost line."""
    lines = list(lines)
    for _ in range(generator.choice([1, 1, 2, 3])):
        index = generator.randrange(len(lines)) if lines else 0
        row = _json(lines[index]) if lines else None
        row = row if isinstance(row, dict) else None
        match generator.randrange(12):
            case 0 if lines:
                del lines[index]
            case 1 if lines:
                lines.insert(generator.randrange(len(lines) + 1), lines[index])
            case 2 if lines:
                cut = generator.randrange(len(lines[index]) + 1)
                lines[index] = lines[index][:cut]
            case 3 if lines:
                at = generator.randrange(len(lines[index]) + 1)
                lines[index] = lines[index][:at] + generator.choice(JUNK) + lines[index][at:]
            case 4 | 9 | 10 if row:
                row[generator.choice(list(row))] = generator.choice(VALUES)
                lines[index] = json.dumps(row)
            case 5 if row:
                row.pop(generator.choice(list(row)))
                lines[index] = json.dumps(row)
            case 6 if row:
                key = generator.choice(list(row))
                again = json.dumps({key: generator.choice(VALUES)})[1:-1]
                lines[index] = f"{json.dumps(row)[:-1]}, {again}}}"
            case 7:
                lines.insert(index, generator.choice(LINES))
            case 8:
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


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def plainly(path: Path, questions: list[Question]) -> list[Reply]:
    """What an accepted file says, read by nothing but `json` and taken at its word."""
    lines = path.read_bytes().decode("utf-8-sig").split("\n")
    full = [line for line in lines if line.strip()]
    if path.suffix == ".txt" and not any(isinstance(_json(line), dict) for line in full):
        assert not full or not all(isinstance(_json(line), str) for line in full)
        return [Reply(line.strip()) for line in (lines if lines[-1] else lines[:-1])]
    said: dict[tuple[str, int], tuple[str, dict[str, Any]]] = {}
    for row in (json.loads(line, object_pairs_hook=distinct) for line in full):
        dialogue = row["dialogue"] if "dialogue" in row else row["id"]
        turns = [question.turn for question in questions if question.dialogue == dialogue]
        replies = [row["response"]] if "response" in row else row["responses"]
        if "response" in row:
            turns = [turns[0] if row.get("turn") is None else row["turn"]]
            assert row.get("turn") is not None or dialogue == "b"
        for turn, text in zip(turns, replies, strict=True):
            assert (dialogue, turn) not in said
            said[dialogue, turn] = text, row if "response" in row else {}
    assert set(said) == {question.key for question in questions}
    return [
        Reply(
            " ".join(text.splitlines()).strip(),
            selects=row.get("selects", "selected" in row),
            line=row.get("selected") if row.get("selects", True) else None,
            probabilities=None if row.get("probabilities") is None else tuple(row["probabilities"]),
            gold_nll=row.get("gold_nll"),
            gold_tokens=row.get("gold_tokens"),
            rank=row.get("rank"),
        )
        for text, row in (said[question.key] for question in questions)
    ]


def read_or_refused(path: Path, questions: list[Question]) -> tuple[list[Reply] | None, str]:
    try:
        return read_predictions(path, questions), ""
    except PersonalignError as error:
        return None, str(error)


def figures_exist(replies: list[Reply], questions: list[Question]) -> None:
    """Every metric that looks at what a system tells of itself, within its range."""
    metrics = find_metrics(["ppl", "hits@1", "mrr", "selection", "share_none", "length"])
    with np.errstate(all="ignore"):  # 2**53 nats are infinite perplexity
        found = evaluate(
            {"a": [Answers(questions, replies)]}, metrics=metrics, settings=Settings(samples=100)
        )
    for name, score in found.scores["a"].items():
        low, _, high = metric_of(name).range.partition(" to ")
        value = score.estimate.value
        assert not high or np.isnan(value) or float(low) <= value <= float(high)


def test_ten_thousand_mutated_files_are_read_right_or_refused_with_the_fault(tmp_path: Path) -> None:
    """Right is what `json` alone reads of the file; a sample of what is read is scored, too."""
    generator = random.Random(7)
    questions = [replace(question, relevant=(0,)) for question in QUESTIONS]
    told = {
        "selected": 0,
        "probabilities": [0.6, 0.4],
        "gold_nll": 3.5,
        "gold_tokens": 4,
        "rank": 2,
        "candidates": 20,
    }
    files = [
        [json.dumps({**row, **told}) for row in ROWS],
        [json.dumps({"id": "a", "responses": ["x", "y"]}), json.dumps({**ROWS[2], "selects": False})],
        ["[laughs] yes", "{name}, hi", '"ok"'],
    ]
    read = refused = plain = 0
    for number in range(10_000):
        path = tmp_path / generator.choice(["p.jsonl", "p.txt"])
        content = mutated(generator.choices(files, [4, 1, 1])[0], generator)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        replies, refusal = read_or_refused(path, questions)
        if replies is None:
            assert path.name in refusal
            refused += 1
            continue
        read += 1
        assert replies == plainly(path, questions), content
        for reply in replies:
            reply.text.encode()
            assert all(type(value) is int for value in (reply.line, reply.rank) if value is not None)
        plain += not any(reply.selects for reply in replies) and path.suffix == ".txt"
        if number % 40 == 0:
            figures_exist(replies, questions)
    assert read > 500
    assert refused > 3000
    assert plain > 50
