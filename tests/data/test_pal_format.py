"""PAL's tuples: joining, labels, faults, and examples that continue nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import parse, read_dialogues, write_dialogues
from personalign.data.pal import LeftOut, left_out, tuples_from
from personalign.errors import PersonalignError

BEES = ["i keep bees.", "i am tall."]
TUPLES: list[Any] = [
    [BEES, ["any pets?"], "only bees.", [0]],
    [BEES, ["any pets?", "only bees.", "nice."], "i am tall too.", [1, 0]],
    [BEES, ["nice.", "i am tall too.", "bye"], "bye bye", [-1]],
    [BEES, ["hello"], "hi", [-1]],
    [["i bake."], ["hello"], "hi", [0]],
]


def read(folder: Path, tuples: list[Any]) -> list[Dialogue]:
    path = folder / "train_origin.txt"
    path.write_text(json.dumps(tuples), encoding="utf-8")
    return read_dialogues(path)


def test_tuples_of_one_dialogue_are_joined(tmp_path: Path) -> None:
    bees, hello, bake = read(tmp_path, TUPLES)
    assert [turn.content for turn in bees.messages] == [
        "any pets?", "only bees.", "nice.", "i am tall too.", "bye", "bye bye",
    ]  # fmt: skip
    assert [turn.role for turn in bees.messages] == ["user", "assistant"] * 3
    assert bees.relevant == ((0,), (1, 0), ())
    assert (hello.relevant, hello.persona) == (((),), tuple(BEES))
    assert bake.relevant == ((0,),)


def test_one_tuple_per_line_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "train_origin.txt"
    path.write_text("\n".join(json.dumps(item) for item in TUPLES), encoding="utf-8")
    lined = [(d.persona, d.messages, d.relevant) for d in read_dialogues(path)]
    assert lined == [(d.persona, d.messages, d.relevant) for d in read(tmp_path, TUPLES)]


def test_an_example_that_continues_nothing_keeps_its_history_aside(tmp_path: Path) -> None:
    (cut,) = read(tmp_path, TUPLES[1:2])
    assert [turn.content for turn in cut.messages] == ["nice.", "i am tall too."]
    assert cut.relevant == ((1, 0),)
    assert cut.extra["earlier_history"] == ["any pets?", "only bees."]
    shuffled = read(tmp_path, [TUPLES[2], TUPLES[0], TUPLES[1]])
    assert [len(dialogue.messages) for dialogue in shuffled] == [2, 4]
    assert sum(len(d.reply_indices()) for d in shuffled) == 3


@pytest.mark.parametrize("tuples", [TUPLES[1:2], TUPLES[1:3], TUPLES[2:], TUPLES[1:]])
def test_what_was_said_before_a_cut_is_written_again(tmp_path: Path, tuples: list[Any]) -> None:
    read_once = read(tmp_path, tuples)
    write_dialogues(tmp_path / "again.json", read_once, format="pal")
    written = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert written[0] == tuples[0]
    assert [item[2:] for item in written] == [item[2:] for item in tuples]
    again = read(tmp_path, written)
    assert [(d.messages, d.extra) for d in again] == [(d.messages, d.extra) for d in read_once]


def test_a_window_cuts_what_was_said_before_too(tmp_path: Path) -> None:
    cut = read(tmp_path, [[BEES, ["a", "b", "c", "d", "e"], "f", [0]], [BEES, ["e", "f", "g"], "h", [-1]]])
    assert len(cut) == 1
    histories = {n: [item[1] for item in tuples_from(cut, window=n)] for n in (1, 3, None)}
    whole = ["a", "b", "c", "d", "e", "f", "g"]
    assert histories[None] == [whole[:5], whole]
    assert histories[3] == [["c", "d", "e"], ["e", "f", "g"]]
    assert histories[1] == [["e"], ["g"]]


def test_what_was_said_before_must_be_texts(tmp_path: Path) -> None:
    turns = (Turn("user", "a"), Turn("assistant", "b"))
    for earlier in ("a", [3], ["a", " "]):
        dialogue = Dialogue("d", (), turns, relevant=((),), extra={"earlier_history": earlier})
        with pytest.raises(
            PersonalignError, match="dialogue d: `earlier_history` is not a list of non-empty"
        ):
            write_dialogues(tmp_path / "x.json", [dialogue], format="pal")


def test_blank_turns_are_taken_out_when_asked(tmp_path: Path) -> None:
    tuples = [
        [BEES, ["any pets?"], " ", [0]],
        [BEES, ["any pets?", " ", "well?"], "only bees.", [0]],
        [BEES, ["a", "", "b", "c", "d"], "e", [1]],
        [BEES, ["a", "b", ""], "f", [-1]],
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(tuples), encoding="utf-8")
    assert [fault.field for fault in parse(path).faults] == ["history", "history", "history", "response"]
    joined, after, opening = read_dialogues(path, drop_empty_turns=True)
    assert [turn.content for turn in joined.messages] == ["any pets?", "well?", "only bees."]
    assert joined.relevant == ((0,),)
    # Of what was said before, only what follows the blank: its speakers still alternate.
    assert (after.messages, dict(after.extra)) == (
        (Turn("user", "d"), Turn("assistant", "e")), {"earlier_history": ["b", "c"]},
    )  # fmt: skip
    assert (opening.messages, dict(opening.extra)) == ((Turn("assistant", "f"),), {})
    path.write_text(json.dumps([[["i bake.", ""], ["a"], "b", [0]]]), encoding="utf-8")
    assert [fault.field for fault in parse(path, drop_empty_turns=True).faults] == ["persona"]


def test_an_empty_history_is_a_person_who_speaks_first(tmp_path: Path) -> None:
    (dialogue,) = read(tmp_path, [[[], [], "hi", [-1]], [[], ["hi", "yo"], "bye", [-1]]])
    assert dialogue.messages == (Turn("assistant", "hi"), Turn("user", "yo"), Turn("assistant", "bye"))


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"persona": []}, "line"),
        ([BEES, ["a"], "b"], "line"),
        (["i keep bees.", ["a"], "b", [-1]], "persona"),
        ([BEES, ["a", ""], "b", [-1]], "history"),
        ([BEES, ["a"], " ", [-1]], "response"),
        ([BEES, ["a"], "b", 0], "labels"),
        ([BEES, ["a"], "b", []], "labels"),
        ([BEES, ["a"], "b", [2]], "labels"),
        ([BEES, ["a"], "b", [-2]], "labels"),
        ([BEES, ["a"], "b", [-1, 0]], "labels"),
        ([BEES, ["a"], "b", [0, 0]], "labels"),
        ([BEES, ["a"], "b", [0.0]], "labels"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, item: Any, field: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text("[" + json.dumps(TUPLES[0]) + ",\n" + json.dumps(item) + "]", encoding="utf-8")
    assert [(fault.line, fault.field) for fault in parse(path, format="pal").faults] == [(2, field)]


def test_writing_needs_labels_and_turns_that_alternate(tmp_path: Path) -> None:
    turns = (Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c"))
    with pytest.raises(PersonalignError, match="needs labels"):
        write_dialogues(tmp_path / "x.json", [Dialogue("d", (), turns[1:])], format="pal")
    with pytest.raises(PersonalignError, match="in a row"):
        write_dialogues(tmp_path / "x.json", [Dialogue("d", (), turns, relevant=((),))], format="pal")
    assert list(tmp_path.iterdir()) == []


def test_what_the_tuples_have_no_place_for_is_counted(tmp_path: Path) -> None:
    user, reply = Turn("user", "a"), Turn("assistant", "b")
    silent = [Dialogue("s", (), (user,), relevant=()), Dialogue("t", (), (), relevant=())]
    whole = Dialogue("w", (), (user, reply), relevant=((),))
    trailing = Dialogue("x", (), (user, reply, user), relevant=((),))
    assert left_out([whole]) == LeftOut(0, 0)
    assert left_out([*silent, whole, trailing]) == LeftOut(turns=2, dialogues=2)
    with pytest.raises(PersonalignError, match="one tuple per reply, and no dialogue has one"):
        write_dialogues(tmp_path / "x.json", silent, format="pal")
    assert list(tmp_path.iterdir()) == []
