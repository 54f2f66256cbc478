"""The native format: what is accepted, and one fault per thing that is not."""

import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from personalign.data.formats import parse, read_dialogues
from personalign.data.native import dialogue_to_row, parse_row
from personalign.errors import PersonalignError

ROW = {
    "id": "a",
    "persona": ["i keep bees.", "i am tall."],
    "messages": [
        {"role": "user", "content": "any pets?"},
        {"role": "assistant", "content": "only bees."},
        {"role": "user", "content": "nice."},
        {"role": "assistant", "content": "thanks."},
    ],
    "partner_persona": ["i sail."],
    "candidates": [["no.", "only bees."], []],
    "relevant": [[0], []],
    "person": "p1",
    "session": 2,
}


def written(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_field_is_read(tmp_path: Path) -> None:
    (dialogue,) = read_dialogues(written(tmp_path, ROW))
    assert dialogue.persona == ("i keep bees.", "i am tall.")
    assert [turn.role for turn in dialogue.messages] == ["user", "assistant"] * 2
    assert dialogue.messages[1].content == "only bees."
    assert dialogue.partner_persona == ("i sail.",)
    assert dialogue.candidates == (("no.", "only bees."), ())
    assert dialogue.relevant == ((0,), ())
    assert (dialogue.id, dialogue.person, dialogue.extra["session"]) == ("a", "p1", 2)
    assert dialogue_to_row(dialogue) == ROW


def test_a_row_without_id_is_called_after_file_and_line(tmp_path: Path) -> None:
    row = {"messages": ROW["messages"]}
    path = tmp_path / "my.set.jsonl.gz"
    path.write_bytes(gzip.compress(f"{json.dumps(row)}\n\n{json.dumps(row)}\n".encode()))
    assert [dialogue.id for dialogue in read_dialogues(path)] == ["my.set:1", "my.set:3"]


def test_numbers_are_names_too(tmp_path: Path) -> None:
    (dialogue,) = read_dialogues(written(tmp_path, ROW | {"id": 7, "person": 0}))
    assert (dialogue.id, dialogue.person) == ("7", "0")


def test_what_is_allowed(tmp_path: Path) -> None:
    rows = [
        {"messages": []},
        {"persona": None, "messages": [{"role": "assistant", "content": "你好！🐝"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b\u2028c"}]},
        {"messages": [{"role": "user", "content": "x", "mood": "sad"}], "partner_persona": ["", "i sail."]},
    ]
    empty, chinese, in_a_row, with_keys = read_dialogues(written(tmp_path, *rows))
    assert empty.messages == ()
    assert empty.persona == ()
    assert empty.relevant is None
    assert chinese.messages[0].content == "你好！🐝"
    assert chinese.reply_indices() == (0,)
    assert [turn.content for turn in in_a_row.messages] == ["a", "b\u2028c"]
    assert dialogue_to_row(with_keys)["messages"][0]["mood"] == "sad"
    assert with_keys.partner_persona == ("i sail.",)


def message(role: Any = "user", content: Any = "hi") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}]}


@pytest.mark.parametrize(
    ("change", "field", "word"),
    [
        ({"messages": None}, "messages", "null"),
        ({"messages": "hi"}, "messages", "a string"),
        ({"messages": ["hi"]}, "messages[0]", "a string"),
        (message(role="bot"), "messages[0].role", "'bot'"),
        (message(role="system"), "messages[0].role", "no speaker"),
        (message(role=None), "messages[0].role", "null"),
        (message(content=""), "messages[0].content", "empty"),
        (message(content=" \t\u3000"), "messages[0].content", "empty"),
        (message(content=[{"type": "text"}]), "messages[0].content", "a list"),
        ({"persona": "i keep bees."}, "persona", "a string"),
        ({"persona": ["", "i am tall."]}, "persona[0]", "empty"),
        ({"persona": [3, "i am tall."]}, "persona[0]", "a number"),
        ({"partner_persona": [None]}, "partner_persona[0]", "null"),
        ({"id": ""}, "id", "empty"),
        ({"id": True}, "id", "a boolean"),
        ({"person": ["p"]}, "person", "a list"),
        ({"candidates": [["only bees."]]}, "candidates", "1 lists for 2"),
        ({"candidates": {"neg": []}}, "candidates", "an object"),
        ({"candidates": ["only bees.", "thanks."]}, "candidates", "other things"),
        ({"candidates": [["no."], []]}, "candidates[0]", "not among"),
        ({"candidates": [["", "only bees."], []]}, "candidates[0][0]", "empty"),
        ({"relevant": [[0]]}, "relevant", "1 lists for 2"),
        ({"relevant": [[2], []]}, "relevant[0]", "index 2 is outside"),
        ({"relevant": [[], [-1]]}, "relevant[1]", "index -1"),
        ({"relevant": [[True], []]}, "relevant[0]", "no whole number"),
        ({"relevant": [[0, 0], []]}, "relevant[0]", "twice"),
        ({"relevant": [0, 1]}, "relevant", "other things"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, change: dict[str, Any], field: str, word: str) -> None:
    row = {key: value for key, value in ROW.items() if "messages" not in change or key == "id"} | change
    parsed = parse(written(tmp_path, ROW | {"id": "fine"}, row))
    (fault,) = parsed.faults
    assert (fault.line, fault.field) == (2, field)
    assert word in fault.problem
    assert fault.remedy
    assert [dialogue.id for dialogue in parsed.dialogues] == ["fine"]


def test_the_remedy_of_an_empty_turn_is_a_command_that_there_is(tmp_path: Path) -> None:
    (fault,) = parse(written(tmp_path, message(content=""))).faults
    assert "or `personalign data convert FILE NEW --drop-empty-turns`" in fault.remedy


def test_a_misspelt_key_is_a_fault_and_a_foreign_one_is_kept(tmp_path: Path) -> None:
    row = {"personas": ["i keep bees."], "messages": []}
    (fault,) = parse(written(tmp_path, row)).faults
    assert fault.field == "personas"
    assert "'persona'" in fault.remedy
    below = {"personas": ["i keep bees."], "mesages": [{"role": "user"}], "relevant": [[0]]}
    faults = parse(written(tmp_path, below)).faults
    assert {"personas", "mesages", "messages[0].content"} <= {fault.field for fault in faults}
    replies = {
        "personas": ["i keep bees."],
        "messages": [{"role": "assistant", "content": "bees"}],
        "relevant": [[0]],
    }
    assert len(parse(written(tmp_path, replies)).faults) == 1
    foreign = {"persona": [], "persona_revised": ["x"], "messages": []}
    (dialogue,) = read_dialogues(written(tmp_path, foreign))
    assert dialogue.extra["persona_revised"] == ["x"]


def test_a_misspelt_key_of_a_message_is_not_taken_for_a_blank_turn(tmp_path: Path) -> None:
    row = {"persona": [], "messages": [{"role": "user", "contents": "hello", "mood": "odd"}]}
    (fault,) = parse(written(tmp_path, row)).faults
    assert (fault.field, fault.problem) == ("messages[0].contents", "is not read, and 'content' is missing")
    assert fault.remedy == "rename it to 'content'"
    (fault,) = parse(written(tmp_path, {"persona": [], "messages": [{"role": "user"}]})).faults
    assert (fault.field, fault.problem) == ("messages[0].content", "is missing")
    (fault,) = parse(written(tmp_path, {"persona": [], "messages": [{"content": "hello"}]})).faults
    assert (fault.field, fault.problem) == ("messages[0].role", "is missing")


def test_all_faults_come_in_one_pass_and_nothing_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    rows = [
        json.dumps(ROW),
        "{not json",
        json.dumps(ROW),
        json.dumps({"messages": [{"role": "bot", "content": ""}]}),
        "[]",
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    places = [(fault.line, fault.field) for fault in parse(path).faults]
    assert places == [
        (2, "line"),
        (3, "id"),
        (4, "messages[0].content"),
        (4, "messages[0].role"),
        (5, "line"),
    ]
    with pytest.raises(PersonalignError) as caught:
        read_dialogues(path)
    text = str(caught.value)
    assert "5 faults" in text
    assert f"{path}:2: line: not JSON" in text
    assert f"{path}:3: id: 'a'" in text


def test_the_error_shows_ten_faults_and_their_count(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError) as caught:
        read_dialogues(written(tmp_path, *[message(role="bot")] * 13))
    assert str(caught.value).count("'bot'") == 10
    assert "13 faults" in str(caught.value)
    assert "and 3 more" in str(caught.value)


def test_generated_and_given_ids_may_not_meet(tmp_path: Path) -> None:
    (fault,) = parse(written(tmp_path, message(), message() | {"id": "rows:1"})).faults
    assert (fault.line, fault.field) == (2, "id")


def test_the_example_in_the_guide_loads(tmp_path: Path) -> None:
    guide = Path(__file__).parents[2] / "docs" / "data.md"
    example = guide.read_text(encoding="utf-8").split("```json\n")[1].split("```")[0]
    (tmp_path / "talk.jsonl").write_text(example, encoding="utf-8")
    (dialogue,) = read_dialogues(tmp_path / "talk.jsonl")
    assert dialogue.relevant == ((0,),)


def test_dialogues_travel_between_processes(tmp_path: Path) -> None:
    dialogues = read_dialogues(written(tmp_path, ROW))
    assert pickle.loads(pickle.dumps(dialogues)) == dialogues


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"persona": ["i bake.", "\ud83d"]}, "persona[1]"),
        ({"messages": [{"role": "assistant", "content": "a \udcff"}]}, "messages[0].content"),
        ({"person": "\ud83d"}, "person"),
        ({"candidates": [["\ud83d", "yo"]]}, "candidates[0][0]"),
    ],
)
def test_half_a_character_is_a_fault_whoever_gives_it(change: dict[str, Any], field: str) -> None:
    row = {"messages": [{"role": "assistant", "content": "yo"}]} | change
    dialogue, faults = parse_row(row, file="given", line=1)
    assert dialogue is None
    assert [fault.field for fault in faults] == [field]
    assert "holds half a character" in faults[0].problem


def test_an_id_is_found_twice_also_where_its_rows_have_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    rows = ['{"id": "a", "persona": [1], "messages": []}', '{"id": "a", "persona": [], "messages": []}']
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = {(fault.line, fault.field) for fault in parse(path).faults}
    assert (2, "id") in found
    assert (1, "persona[0]") in found


def test_labels_under_a_misspelt_key_are_no_labels_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"persona": [], "messages": [], "relevent": []}\n', encoding="utf-8")
    [fault] = parse(path).faults
    assert (fault.field, fault.remedy) == ("relevent", "rename it to 'relevant'")


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ({"role": "user", "text": "hi"}, "rename 'text' to 'content'"),
        ({"role": "user", "content": 5}, "write what was said, as a string"),
        ({"role": "user"}, "write what was said, or take the turn out"),
        ({"role": "user", "content": " "}, "write what was said, or take the turn out"),
    ],
)
def test_the_remedy_is_one_that_helps(message: dict[str, Any], remedy: str) -> None:
    _, faults = parse_row({"persona": [], "messages": [message]}, file="made", line=1)
    [fault] = faults
    assert fault.field == "messages[0].content"
    assert fault.remedy.startswith(remedy)


@pytest.mark.parametrize("line", ["27/10/2024, 21:06 - Ann: hi", "\u200e[31.12.23, 21:05:33] Ann: hi"])
def test_an_exported_chat_is_pointed_to_its_command(tmp_path: Path, line: str) -> None:
    path = tmp_path / "chat.txt"
    path.write_text(f"{line}\n{line}\n", encoding="utf-8")
    [fault] = parse(path).faults
    assert "`personalign data import`" in fault.remedy
