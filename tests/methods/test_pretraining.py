"""Nothing of the test part may reach a backbone that is trained from scratch."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.methods.made_runs import SilentReporter, baker, file_recipe, minimal_values, prompter, tiny_model

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import write_dialogues
from personalign.methods.pretraining import pretrain, pretraining_dialogues, pretraining_examples
from personalign.methods.recipe import PretrainStage, parse_recipe


def talk(name: str, *messages: str, persona: tuple[str, ...] = (), partner: tuple[str, ...] = ()) -> Dialogue:
    turns = tuple(Turn("assistant" if at % 2 else "user", text) for at, text in enumerate(messages))
    return Dialogue(name, persona, turns, partner_persona=partner)


TEST = [
    replace(
        talk("t", "Hello there .", "I bake bread .", persona=("i own a mill .",), partner=("i sing .",)),
        extra={"persona_revised": ["my mill turns ."], "partner_persona_revised": ["my voice is loud ."]},
    )
]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, object]:
    """Further files, some of whose rows coincide with the test part."""
    write_dialogues(
        tmp_path / "chat.jsonl",
        [
            talk("untouched", "what now ?", "nothing ."),
            talk("one-message-less", "hello  there", "good day .", "well ?"),
            talk("one-message-left", "Hello there .", "good day ."),
            talk("all-known", "hello there .", "i bake bread ."),
            talk("persona", "a ?", "b .", persona=("I own a mill.",)),
            talk("partner", "a ?", "b .", partner=("i own a mill .",)),
            talk("sings", "a ?", "b .", persona=("i sing .",)),
            talk("revised", "a ?", "b .", persona=("my mill turns .",)),
            talk("partner-revised", "a ?", "b .", partner=("my voice is loud .",)),
            replace(talk("own-revised", "a ?", "b ."), extra={"persona_revised": ["i own a mill ."]}),
        ],
    )
    pairs = [
        ("i own a boat .", "my boat is red ."),
        ("i own a mill .", "my mill is red ."),
        ("i bake .", "i bake bread ."),
    ]
    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps({"persona": line, "response": reply}) + "\n" for line, reply in pairs),
        encoding="utf-8",
    )
    return {
        "pretrain": [str(tmp_path / "chat.jsonl")],
        "pretrain_persona_pairs": str(tmp_path / "pairs.jsonl"),
    }


def test_what_coincides_with_the_test_part_is_dropped_and_counted(sources: dict[str, object]) -> None:
    recipe = file_recipe(train="unread", test="unread", **sources)
    train = [replace(talk("train", "how are you ?", "fine .", persona=("i knit .",)), relevant=((),))]
    kept, counts = pretraining_dialogues(recipe, {"train": train, "test": TEST})
    said = [tuple(turn.content for turn in dialogue.messages) for dialogue in kept]
    assert said == [
        ("how are you ?", "fine ."),
        ("what now ?", "nothing ."),
        ("good day .", "well ?"),
        ("my boat is red .",),
    ]
    assert counts == {
        "dialogues": 4,
        # Six of the file, one pair.
        "dialogues dropped for a test persona line": 7,
        # 1 + 1 + 2 of the file, one pair's reply.
        "messages dropped for a test message": 5,
    }
    assert len({dialogue.id for dialogue in kept}) == 4
    assert all(dialogue.relevant is None for dialogue in kept)


def test_the_rule_holds_for_the_training_part_as_well(sources: dict[str, object]) -> None:
    recipe = file_recipe(train="unread", test="unread")
    train = [
        talk("same", "so ?", "i bake bread .", "and ?"),
        talk("mill", "so ?", "yes .", persona=("i own a mill",)),
    ]
    kept, counts = pretraining_dialogues(recipe, {"train": train, "test": TEST})
    assert [turn.content for dialogue in kept for turn in dialogue.messages] == ["so ?", "and ?"]
    assert counts["dialogues dropped for a test persona line"] == 1


def test_the_synthetic_corpus_gives_its_training_part() -> None:
    recipe = parse_recipe(minimal_values(), source="made")
    assert pretraining_dialogues(recipe, {"train": [baker()], "test": TEST}) == ([baker()], {"dialogues": 1})


def trained(tmp_path: Path, dialogues: list[Dialogue], **stage: Any) -> tuple[dict[str, Any], Counter[str]]:
    dropped: Counter[str] = Counter()
    settings = PretrainStage(**stage)
    examples = pretraining_examples(dialogues, prompter(), settings, seed=1, dropped=dropped)
    record = pretrain(
        tiny_model(),
        examples,
        settings,
        seed=1,
        checkpoints=tmp_path / "checkpoints",
        journal=tmp_path / "metrics.jsonl",
        reporter=SilentReporter(),
    )
    return record, dropped


def test_dialogues_that_teach_nothing_are_counted(tmp_path: Path) -> None:
    mute = replace(baker("mute"), messages=baker().messages[:1], relevant=None)
    long = replace(
        baker("long"), messages=(Turn("user", "zebra " * 300), Turn("assistant", "yes .")), relevant=None
    )
    record, dropped = trained(
        tmp_path, [baker(), mute, long], learning_rate=1e-3, batch_examples=1, steps=1, copy_every=None
    )
    assert record["rows"] == 1
    assert dropped == {"without a reply": 1, "longer than max_tokens": 1}


def test_rows_longer_than_prompts_may_be_are_dropped_and_counted() -> None:
    """They would end the training in the middle of an epoch, where the model takes no more."""
    long = " ".join(["dog"] * 60)
    talks = [
        replace(baker(f"d{at}"), persona=(f"{'i like tea ' * at}.", long if at > 3 else "tea ."))
        for at in range(6)
    ]
    talks.append(replace(baker("wordy"), messages=(Turn("user", "hello ."), Turn("assistant", long))))
    short, dropped = prompter(max_tokens=70, reserve=10), Counter[str]()
    stage = PretrainStage(copy_every=1, learning_rate=0.01)
    found = pretraining_examples(talks, short, stage, seed=1, dropped=dropped)
    assert all(len(path) <= 70 for example in found for path in example.paths)
    assert "wordy" not in {example.dialogue for example in found}
    assert dropped["target longer than the room for it"] == 1
    copies = sum(example.dialogue.startswith("copy-") for example in found)
    assert copies + dropped["copies longer than max_tokens"] == len(found) - copies
    assert dropped["copies longer than max_tokens"]


def test_pretraining_learns_the_text(tmp_path: Path) -> None:
    record, _ = trained(
        tmp_path,
        [baker(f"d{number}") for number in range(8)],
        learning_rate=1e-2,
        batch_examples=4,
        steps=30,
        warmup_steps=2,
        copy_every=None,
    )
    assert (record["rows"], record["steps"]) == (8, 30)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"pretrain"}
    assert rows[-1]["loss_text"] < 0.5 * rows[0]["loss_text"]


def test_copy_exercises_repeat_real_lines(tmp_path: Path) -> None:
    lines = [f"i have {count} dog ." for count in ("a", "the", "no", "any", "like", "tea")]
    dialogues = [replace(baker(f"d{at}"), persona=(line,), relevant=None) for at, line in enumerate(lines)]
    record, _ = trained(tmp_path, dialogues, learning_rate=1e-3, batch_examples=9, steps=1, copy_every=2)
    assert record["rows"] == 6 + 3
