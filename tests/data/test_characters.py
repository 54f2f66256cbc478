"""Films, fantasy and wild chats: either speaker becomes the assistant of sessions of their own."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from personalign.data.dialogue import Dialogue
from personalign.data.formats import read_dialogues
from personalign.data.people import people_of, without_lines_of
from personalign.data.split import overlap, split_by_persona, without_shared
from personalign.errors import PersonalignError

SEPARATOR = " +++$+++ "


def said(dialogue: Dialogue) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in dialogue.messages]


def cornell(folder: Path, lines: list[list[str]], conversations: list[list[str]]) -> Path:
    for name, rows in (("movie_lines.txt", lines), ("movie_conversations.txt", conversations)):
        text = "".join(SEPARATOR.join(row) + "\n" for row in rows)
        (folder / name).write_bytes(text.encode("latin-1"))
    return folder


LINES = [
    ["L3", "u1", "m0", "ANN", "Caf\u00e9, then."],
    ["L2", "u2", "m0", "BEN", "Where to?"],
    ["L1", "u1", "m0", "ANN", "Come!"],
    ["L9", "u2", "m0", "BEN", ""],
    ["L10", "u1", "m0", "ANN", f"odd{SEPARATOR}text"],
]


def test_cornells_published_files(tmp_path: Path) -> None:
    talks = [["u1", "u2", "m0", "['L1', 'L2', 'L3']"], ["u2", "u1", "m0", "['L9', 'L10']"]]
    folder = cornell(tmp_path, LINES, talks)
    found = read_dialogues(folder)
    assert found == read_dialogues(folder / "movie_conversations.txt")
    # Of the second conversation nothing is left to answer: one of the two says nothing.
    assert [(item.id, item.person) for item in found] == [
        ("cornell-1:0", "m0/ANN"),
        ("cornell-1:1", "m0/BEN"),
    ]
    assert said(found[0]) == [
        ("assistant", "Come!"),
        ("user", "Where to?"),
        ("assistant", "Caf\u00e9, then."),
    ]
    assert said(found[1]) == [("user", "Come!"), ("assistant", "Where to?"), ("user", "Caf\u00e9, then.")]
    assert found[0].extra == {"movie": "m0", "conversation": "cornell-1"}


def test_both_readings_of_a_conversation_stay_on_one_side_of_a_split(tmp_path: Path) -> None:
    talks = [
        {"movie": f"m{at}", "turns": turns(("ANN", f"hello {at}"), ("BEN", f"hi {at}"))} for at in range(30)
    ]
    found = read_dialogues(rows(tmp_path / "films.jsonl", *talks))
    assert len({item.id for item in found}) == 60
    parts = split_by_persona(found, {"train": 0.8, "test": 0.2}, seed=1)
    said_in = {
        name: {turn.content for item in part for turn in item.messages} for name, part in parts.items()
    }
    assert not said_in["train"] & said_in["test"]
    assert overlap(found[::2], found[1::2]).conversations == 30
    assert without_shared(found, found[:1]) == found[2:]
    people = people_of(found)
    assert [person.name for person in without_lines_of(people, people[:1])] == [
        item.person for item in found[2:]
    ]


@pytest.mark.parametrize(
    ("lines", "talks", "message"),
    [
        (
            LINES,
            [["u1", "u2", "m0", "['L1', 'L7']"]],
            "movie_conversations.txt:1: lines: L7 is not in movie_lines.txt",
        ),
        (LINES, [["u1", "u2", "m0", "[]"]], "movie_conversations.txt:1: lines: names no lines: []"),
        (LINES, [["u1", "u2", "m0"]], "movie_conversations.txt:1: line: has 3 fields"),
        (
            [*LINES, ["L4", "u1"]],
            [["u1", "u2", "m0", "['L1', 'L2']"]],
            "movie_lines.txt:6: line: has 2 fields",
        ),
    ],
)
def test_a_damaged_corpus_names_the_line(
    tmp_path: Path, lines: list[list[str]], talks: list[list[str]], message: str
) -> None:
    with pytest.raises(PersonalignError) as caught:
        read_dialogues(cornell(tmp_path, lines, talks))
    assert message in str(caught.value)


def test_cornell_needs_both_files(tmp_path: Path) -> None:
    (tmp_path / "movie_conversations.txt").write_text("", encoding="utf-8")
    with pytest.raises(PersonalignError, match=r"there is no .*movie_lines\.txt; name the corpus's folder"):
        read_dialogues(tmp_path)


def rows(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def turns(*texts: tuple[str, str]) -> list[dict[str, str]]:
    return [{"speaker": speaker, "text": text} for speaker, text in texts]


def test_films_as_json_lines(tmp_path: Path) -> None:
    talk = {
        "id": "c-0",
        "movie": "m1",
        "characters": ["ANN", "BEN"],
        "turns": turns(("BEN", "Hi."), ("ANN", "No.")),
    }
    found = read_dialogues(rows(tmp_path / "films.jsonl", talk))
    assert [(item.id, item.person) for item in found] == [("c-0:0", "m1/ANN"), ("c-0:1", "m1/BEN")]
    assert said(found[0]) == [("user", "Hi."), ("assistant", "No.")]


def test_wild_chats_have_a_person_where_there_is_a_profile(tmp_path: Path) -> None:
    talk = turns(("participant1", "Hi"), ("participant2", "Ho"), ("participant2", " "))
    both = {"id": "w-1", "bot_profile": ["i b.", "i a."], "user_profile": ["i c.", ""], "turns": talk}
    one = {"id": "w-2", "bot_profile": ["i a.", "i b."], "user_profile": None, "turns": talk}
    found = read_dialogues(rows(tmp_path / "wild.jsonl", both, one))
    assert [(item.id, item.person, item.persona, item.partner_persona) for item in found] == [
        ("w-1:0", "i c.", ("i c.",), ("i b.", "i a.")),
        ("w-1:1", "i a.; i b.", ("i b.", "i a."), ("i c.",)),
        ("w-2:0", "i a.; i b.", ("i a.", "i b."), ()),
    ]
    assert said(found[1]) == [("user", "Hi"), ("assistant", "Ho")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"turns": 3, "bot_profile": []}, "turns: is a number; write a list of"),
        ({"turns": [{"speaker": "a"}]}, "turns[0].text: is null; write a string"),
        ({"turns": [], "bot_profile": "x"}, "bot_profile: is a string; write a list of strings"),
        ([], "line: is a list; write an object with `turns`"),
    ],
)
def test_damaged_transcripts_name_the_field(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(PersonalignError) as caught:
        read_dialogues(rows(tmp_path / "a.jsonl", {"id": "x", "turns": []}, value), format="transcripts")
    assert f"a.jsonl:2: {message}" in str(caught.value)


EPISODE = {
    "agents": [
        {"name": "knight", "persona": "I serve the king. I am tired!"},
        {"name": "cat", "persona": ""},
    ],
    "setting": {"name": "hall"},
    "character": ["knight", "cat", "knight"],
    "speech": ["Who is there?", None, "A cat."],
}


def test_light_as_json_and_as_the_published_pickle(tmp_path: Path) -> None:
    talk = {**EPISODE, "speech": ["Who is there?", "Meow.", "A cat."]}
    pickled = tmp_path / "light.pkl"
    pickled.write_bytes(pickle.dumps([EPISODE, talk]))
    # In the first episode the cat says nothing.
    for source in (pickled, rows(tmp_path / "light.jsonl", EPISODE, talk)):
        found = read_dialogues(source)
        assert [item.id for item in found] == ["light-2:0", "light-2:1"]
        knight, cat = found
        assert (knight.persona, knight.person) == (
            ("I serve the king.", "I am tired!"),
            "knight: I serve the king. I am tired!",
        )
        assert (cat.person, cat.persona, cat.partner_persona) == ("cat", (), knight.persona)
        assert said(knight) == [("assistant", "Who is there?"), ("user", "Meow."), ("assistant", "A cat.")]


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch harm",))


def test_a_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "light.pkl"
    path.write_bytes(pickle.dumps([EPISODE, Harm()]))
    with pytest.raises(PersonalignError, match=r"it names (posix|nt)\.system, which is not read"):
        read_dialogues(path)
    assert not (tmp_path / "harm").exists()
    for damaged in (pickle.dumps([EPISODE])[:40], b"I1\n)R."):
        path.write_bytes(damaged)
        with pytest.raises(PersonalignError, match="no pickle of episodes"):
            read_dialogues(path)
    for format in ("light", "cornell"):
        with pytest.raises(PersonalignError, match=r"is a folder|there is no"):
            read_dialogues(tmp_path, format=format)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agents": [3]}, "agents: is no list of agents"),
        ({"agents": [{"name": "cat"}, {"name": "cat"}]}, "agents: two have one name"),
        ({"speech": ["a"]}, "speech: is no list as long as"),
    ],
)
def test_what_is_no_episode(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PersonalignError) as caught:
        read_dialogues(rows(tmp_path / "light.jsonl", EPISODE, {**EPISODE, **change}), format="light")
    assert f"light.jsonl:2: {message}" in str(caught.value)


def test_the_real_films(personalign_data: Path) -> None:
    found = read_dialogues(personalign_data / "cornell_movie_sample.jsonl.gz")
    assert len(found) == 2 * 544 - 2
    assert len({item.person for item in found}) == 62
