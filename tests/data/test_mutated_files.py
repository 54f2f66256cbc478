"""Thousands of damaged files of dialogues: each is read right, or refused with the file and the fault."""

import json
import random
from pathlib import Path

import pytest
from tests.mutating import mutated

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import read_dialogues, write_dialogues
from personalign.errors import PersonalignError

DIALOGUES = [
    Dialogue(
        "vet",
        ("i am a vet .", "my dog is called pedro ."),
        (
            Turn("user", "hi ! any pets ?"),
            Turn("assistant", "one dog , pedro ."),
            Turn("user", "nice day ."),
            Turn("assistant", "it is ."),
        ),
        partner_persona=("i like walks .",),
        relevant=((1,), ()),
        candidates=(("one dog , pedro .", "no ."), ("it is .", "no .")),
    ),
    Dialogue(
        "baker", ("i bake .",), (Turn("user", "你好 ?"), Turn("assistant", "i bake .")), relevant=((0,),)
    ),
]
SHAREGPT = [
    {
        "id": "s1",
        "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello there"}],
    },
    {"conversations": [{"from": "human", "value": "and ?"}, {"from": "gpt", "value": "nothing ."}]},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    write_dialogues(folder / "native.jsonl", DIALOGUES)
    write_dialogues(folder / "parlai.txt", DIALOGUES[:1], format="parlai")
    write_dialogues(folder / "pal.json", [DIALOGUES[1]], format="pal")
    (folder / "sharegpt.json").write_text(json.dumps(SHAREGPT, indent=1))
    (folder / "array.json").write_text(
        json.dumps(
            [json.loads(line) for line in (folder / "native.jsonl").read_text().splitlines()], indent=1
        )
    )
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_or_refused(path: Path) -> tuple[list[Dialogue] | None, str]:
    try:
        return read_dialogues(path), ""
    except PersonalignError as error:
        return None, str(error)


def test_six_thousand_mutated_files_are_read_or_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    generator = random.Random(11)
    read = refused = 0
    for _ in range(6000):
        name = generator.choice(list(files))
        path = tmp_path / name
        path.write_bytes(mutated(files[name], generator))
        dialogues, refusal = read_or_refused(path)
        if dialogues is None:
            assert name in refusal
            refused += 1
            continue
        read += 1
        for dialogue in dialogues:
            assert all(text.strip() and text.encode() for text in (*dialogue.persona,))
            assert all(
                turn.role in ("user", "assistant") and turn.content.encode() for turn in dialogue.messages
            )
        # What was read is a file again, and the same dialogues.
        write_dialogues(tmp_path / "again.jsonl", dialogues)
        assert read_dialogues(tmp_path / "again.jsonl") == dialogues
    assert read > 500
    assert refused > 2000
