"""Recognition, writers, and the two ways to mend turns."""

import json
from pathlib import Path

import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import parse, read_dialogues, recognise, write_dialogues
from personalign.data.preferences import preference_rows
from personalign.data.turns import merge_turns
from personalign.data.validate import validate
from personalign.errors import PersonalignError

TALK = Dialogue(
    "t",
    ("i keep bees.", "i am tall."),
    (
        Turn("assistant", "hi"),
        Turn("user", "any pets?"),
        Turn("assistant", "only bees."),
        Turn("assistant", "and you?"),
        Turn("user", "no."),
        Turn("user", "none."),
        Turn("assistant", "oh"),
    ),
    candidates=(("no", "hi"), ("i sing.", "only bees."), (), ("oh",)),
    relevant=((), (0,), (1, 0), (1,)),
)


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("1 your persona: a\n", "parlai"),
        ("\n12 hi\tyo\n", "parlai"),
        ('[[["a"], ["b"], "c", [-1]]]', "pal"),
        ('[["a"], ["b"], "c", [-1]]\n', "pal"),
        ('[{"conversations": [{"from": "human"}]}]', "sharegpt"),
        ('{"id": 1, "conversations": []}', "sharegpt"),
        ('{"messages": [{"content": "\\"conversations\\": ["}]}', "native"),
        ("[1, 2]", "native"),
        ("prose", "native"),
        ("", "native"),
    ],
)
def test_recognised_formats(text: str, format: str) -> None:
    assert recognise(text) == format


def test_a_native_json_array_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"messages": []},\n {"messages": []}]', encoding="utf-8")
    assert [dialogue.id for dialogue in read_dialogues(path)] == ["rows:1", "rows:2"]


def test_dialogues_on_one_line_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"messages": []}, {"messages": []},\n {"messages": []}]', encoding="utf-8")
    assert [dialogue.id for dialogue in read_dialogues(path)] == ["rows:1", "rows:1.2", "rows:2"]
    path.write_text('[{"id": "a", "messages": []}, {"id": "a", "messages": []}]', encoding="utf-8")
    assert [fault.field for fault in validate(path)] == ["id"]


def test_unknown_formats_and_misplaced_options(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_dialogues(path, [TALK])
    with pytest.raises(PersonalignError, match="write one of native, parlai"):
        read_dialogues(path, format="xml")  # type: ignore[arg-type]
    with pytest.raises(PersonalignError, match="write one of native, trl"):
        write_dialogues(path, [TALK], format="xml")  # type: ignore[arg-type]
    with pytest.raises(PersonalignError, match="belong to tables"):
        read_dialogues(path, format="native", split="train")
    assert read_dialogues(path) == [TALK]


def test_writing_refuses_what_reading_would(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_dialogues(path, [TALK])
    before = path.read_bytes()
    with pytest.raises(PersonalignError, match="'t' is the id"):
        write_dialogues(path, [TALK, TALK])
    with pytest.raises(PersonalignError, match="is empty"):
        write_dialogues(path, [Dialogue("x", (), (Turn("user", " "),))])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_preference_rows_take_the_first_distractor(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    assert write_dialogues(path, [TALK], format="trl") == 1
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "prompt": [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "any pets?"}],
        "chosen": [{"role": "assistant", "content": "only bees."}],
        "rejected": [{"role": "assistant", "content": "i sing."}],
        "persona": ["i keep bees.", "i am tall."],
    }


def test_preference_rows_of_given_replies() -> None:
    rows = preference_rows([TALK], rejected={("t", 3): "what?"})
    assert [row["rejected"][0]["content"] for row in rows] == ["what?"]
    assert len(rows[0]["prompt"]) == 6
    for rejected in ({("t", 3): "oh"}, {("t", 3): " "}):
        with pytest.raises(PersonalignError, match="dialogue t, reply 3"):
            preference_rows([TALK], rejected=rejected)
    with pytest.raises(PersonalignError, match="no reply has"):
        preference_rows([TALK], rejected={("other", 0): "x"})


def test_turns_in_a_row_are_merged_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_dialogues(path, [TALK])
    assert read_dialogues(path)[0].messages == TALK.messages
    (merged,) = read_dialogues(path, merge_turns=True)
    assert [turn.content for turn in merged.messages] == [
        "hi", "any pets?", "only bees. and you?", "no. none.", "oh",
    ]  # fmt: skip
    assert merged.relevant == ((), (0, 1), (1,))
    assert merged.candidates == (("no", "hi"), (), ("oh",))
    assert merge_turns(merged) is merged


def test_merged_messages_put_their_keys_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": c, "mood": m} for c, m in (("a", "sad"), ("b", "glad"))]
    path.write_text(json.dumps({"messages": messages}), encoding="utf-8")
    (dialogue,) = read_dialogues(path, merge_turns=True)
    assert dialogue.extra["messages"] == [{"mood": "glad"}]


def test_empty_turns_are_faults_or_taken_out_with_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    messages = [
        {"role": "assistant", "content": " "},
        {"role": "user", "content": "any pets?"},
        {"role": "assistant", "content": "bees"},
        {"role": "user", "content": ""},
    ]
    row = {"id": "e", "persona": ["a"], "messages": messages, "relevant": [[], [0]]}
    path.write_text(json.dumps(row), encoding="utf-8")
    assert [fault.field for fault in validate(path)] == ["messages[0].content", "messages[3].content"]
    (dialogue,) = read_dialogues(path, drop_empty_turns=True)
    assert dialogue.messages == (Turn("user", "any pets?"), Turn("assistant", "bees"))
    assert dialogue.relevant == ((0,),)


def test_dropping_does_not_hide_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": [{"content": ""}, "x"]}\n{"messages": 1}\n[]\n', encoding="utf-8")
    fields = [fault.field for fault in parse(path, drop_empty_turns=True).faults]
    assert fields == ["messages[0]", "messages", "line"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.TSV", "rows.parquet", "rows.csv.gz", "rows.pkl"])
def test_no_other_format_is_written_under_the_name_of_a_table(tmp_path: Path, name: str) -> None:
    for format in ("native", "trl", "parlai", "pal"):
        with pytest.raises(
            PersonalignError, match=r"could not be read again under that name; end it in .jsonl"
        ):
            write_dialogues(tmp_path / name, [TALK], format=format)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
