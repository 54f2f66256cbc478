"""ShareGPT conversations: speakers, the system message, and faults."""

import json
from pathlib import Path
from typing import Any

import pytest

from personalign.data.dialogue import Turn
from personalign.data.formats import parse, read_dialogues


def written(folder: Path, *records: Any) -> Path:
    path = folder / "chats.json"
    path.write_text(json.dumps(list(records), ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def said(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"from": name, "value": value} for name, value in pairs]


def test_speakers_and_the_system_message_as_persona(tmp_path: Path) -> None:
    talk = said(("system", "i keep\u2028bees.\n\n i am tall. \r\n"), ("human", "hi"), ("gpt", "yo"))
    (dialogue,) = read_dialogues(written(tmp_path, {"id": "x", "conversations": talk, "source": "made up"}))
    assert dialogue.persona == ("i keep\u2028bees.", "i am tall.")
    assert dialogue.messages == (Turn("user", "hi"), Turn("assistant", "yo"))
    assert (dialogue.id, dict(dialogue.extra)) == ("x", {"source": "made up"})


def test_a_persona_of_its_own_wins_and_a_system_key_serves(tmp_path: Path) -> None:
    talk = said(("system", "be kind"), ("user", "hi"), ("assistant", "yo"))
    own, key, none = read_dialogues(
        written(
            tmp_path,
            {"conversations": talk, "persona": ["i bake."]},
            {"conversations": talk[1:], "system": "i sail."},
            {"conversations": talk[1:]},
        )
    )
    assert (own.persona, key.persona, none.persona) == (("i bake.",), ("i sail.",), ())


@pytest.mark.parametrize(
    ("talk", "field"),
    [
        (said(("human", "hi"), ("tool", "x")), "conversations[1].from"),
        (said(("human", "hi"), ("system", "x")), "conversations[1].from"),
        (["hi"], "conversations[0]"),
        (said(("human", "")), "messages[0].content"),
        (said(("human", None)), "messages[0].content"),
        (said(("system", 3)), "system"),
        ("hi", "conversations"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, talk: Any, field: str) -> None:
    path = written(tmp_path, {"conversations": talk})
    assert [(fault.line, fault.field) for fault in parse(path, format="sharegpt").faults] == [(2, field)]


def test_a_persona_that_is_null_is_none_of_its_own(tmp_path: Path) -> None:
    talk = said(("system", "i keep bees."), ("human", "hi"), ("gpt", "yo"))
    records = [{"conversations": talk, "persona": None}, {"conversations": talk, "persona": []}]
    null, empty = read_dialogues(written(tmp_path, *records))
    assert (null.persona, empty.persona) == (("i keep bees.",), ())


def test_other_keys_of_messages_are_kept(tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "hi", "role": "bot"},
        {"from": "gpt", "value": "yo", "weight": 0},
    ]
    path = written(tmp_path, {"conversations": talk})
    (dialogue,) = read_dialogues(path)
    assert dialogue.messages == (Turn("user", "hi"), Turn("assistant", "yo"))
    assert dialogue.extra["messages"] == [{}, {"weight": 0}]
