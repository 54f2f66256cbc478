"""The parts of a run: found by key, disjoint by persona set, labelled, and fingerprinted by what they say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.methods.made_runs import SilentReporter, baker, file_recipe, greeter, minimal_values, prompter

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import write_dialogues
from personalign.data.split import overlap, persona_key
from personalign.errors import PersonalignError
from personalign.methods import parts as parts_module
from personalign.methods.labelling import label_parts
from personalign.methods.parts import (
    Parts,
    fingerprint,
    load_parts,
    locate,
    read_parts,
    source_fingerprint,
    trimmed_turns,
    write_parts,
)
from personalign.methods.recipe import FileData, Recipe, override, parse_recipe
from personalign.methods.shipped import load_recipe


def talk(number: int, *, labelled: bool = True) -> Dialogue:
    """Every two dialogues have one persona."""
    return Dialogue(
        f"d{number}",
        (f"i have {number // 2} zebras .",),
        (
            Turn("user", "any pets ?"),
            Turn("assistant", f"i have {number // 2} zebras ."),
            Turn("assistant", "bye ."),
        ),
        relevant=((0,), ()) if labelled else None,
    )


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of made-up files."""
    folder = tmp_path / "shelf"
    write_dialogues(folder / "made_train.jsonl.gz", [talk(number) for number in range(40)])
    write_dialogues(folder / "made_align.jsonl", [talk(number) for number in range(50, 70)])
    write_dialogues(folder / "made_test.jsonl", [talk(number) for number in range(90, 96)])
    monkeypatch.setenv("PERSONALIGN_DATA", str(folder))
    return folder


def test_a_key_names_a_file_of_the_data_folder(shelf: Path, tmp_path: Path) -> None:
    files = FileData(
        train="made_train", test="made_test", hub={"made_train": "some/where", "elsewhere": "some/place"}
    )
    assert locate("made_train", files.hub) == str(shelf / "made_train.jsonl.gz")
    assert locate("made_test", files.hub) == str(shelf / "made_test.jsonl")
    assert locate("made_test.jsonl", files.hub) == str(shelf / "made_test.jsonl")
    own = tmp_path / "own.jsonl"
    write_dialogues(own, [talk(0)])
    assert locate(str(own), files.hub) == str(own)
    assert locate("elsewhere", files.hub) == "some/place"
    assert locate("some/dataset", files.hub) == "some/dataset"


def test_a_key_stands_for_a_hub_id_without_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERSONALIGN_DATA", raising=False)
    files = FileData(train="made_train", test="made_test", hub={"made_train": "some/where"})
    assert locate("made_train", files.hub) == "some/where"
    with pytest.raises(PersonalignError, match="PERSONALIGN_DATA is not set") as error:
        locate("made_test", files.hub)
    assert "'made_test' is no file here" in str(error.value)
    assert "give a path or a hub id instead" in str(error.value)


def test_a_key_that_the_folder_lacks(shelf: Path) -> None:
    with pytest.raises(PersonalignError, match=r"has no unknown\.jsonl or unknown\.jsonl\.gz"):
        locate("unknown", {})


def parts_of(recipe: Recipe) -> Parts:
    return load_parts(recipe, say=lambda message: pytest.fail(message))


def test_parts_carved_out_of_train_are_disjoint_by_persona(shelf: Path) -> None:
    parts = parts_of(file_recipe(train="made_train", test="made_test", align_share=0.2, stop_share=0.1))
    assert {name: len(dialogues) for name, dialogues in parts.items()} == {
        "align": 8,
        "stop": 4,
        "train": 28,
        "test": 6,
    }
    names = list(parts)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            assert overlap(parts[name], parts[other]).persona_sets == 0
    assert sorted(d.id for n in ("align", "stop", "train") for d in parts[n]) == sorted(
        f"d{n}" for n in range(40)
    )


def test_parts_carved_out_of_a_file_of_their_own(shelf: Path) -> None:
    recipe = file_recipe(
        train="made_train", test="made_test", align="made_align", align_share=0.8, stop_share=0.2
    )
    parts = parts_of(recipe)
    assert {name: len(dialogues) for name, dialogues in parts.items()} == {
        "align": 16,
        "stop": 4,
        "train": 40,
        "test": 6,
    }
    assert not {persona_key(d) for d in parts["align"]} & {persona_key(d) for d in parts["stop"]}


def test_a_test_file_with_a_persona_or_person_of_training_is_refused(shelf: Path) -> None:
    write_dialogues(shelf / "leaky.jsonl", [talk(number) for number in (0, 1, 90)])
    with pytest.raises(
        PersonalignError,
        match=r"'leaky', part 'test', and part '\w+' share 1 persona sets and 0 people; make",
    ):
        parts_of(file_recipe(train="made_train", test="leaky"))
    someone = [replace(talk(number), person=f"p{number % 40}") for number in (*range(40), 90)]
    write_dialogues(shelf / "people.jsonl", someone[:40])
    write_dialogues(shelf / "known.jsonl", someone[40:])
    with pytest.raises(PersonalignError, match=r"share 0 persona sets and 1 people"):
        parts_of(file_recipe(train="people", test="known"))


def test_what_is_tested_can_be_left_out_of_training_and_is_counted(shelf: Path) -> None:
    write_dialogues(shelf / "leaky.jsonl", [talk(number) for number in (0, 1, 90)])
    said: list[str] = []
    aligned: dict[str, Any] = {"align": "made_align", "align_share": 0.8, "stop_share": 0.2}
    recipe = file_recipe(
        train="made_train", test="leaky", align="made_align", align_share=0.8, stop_share=0.2, shared="drop"
    )
    parts = load_parts(recipe, say=said.append)
    assert said == [
        "made_train: 2 of 40 dialogues left out, whose persona or person is tested",
        "made_align: 0 of 20 dialogues left out, whose persona or person is tested",
    ]
    assert {dialogue.id for dialogue in parts["train"]} == {f"d{number}" for number in range(2, 40)}
    assert len(parts["test"]) == 3
    someone = [
        replace(talk(number), persona=(), relevant=None, person=f"p{number % 2}") for number in range(4)
    ]
    write_dialogues(shelf / "people.jsonl", [*someone, talk(8), talk(9), talk(10)])
    write_dialogues(shelf / "known.jsonl", [replace(talk(90), person="p1")])
    recipe = file_recipe(train="people", test="known", shared="drop", **aligned)
    kept = load_parts(recipe, say=said.append)["train"]
    assert [dialogue.id for dialogue in kept] == ["d0", "d2", "d8", "d9", "d10"]


def test_an_alignment_file_with_a_persona_of_training_is_refused(shelf: Path) -> None:
    write_dialogues(shelf / "close.jsonl", [talk(number) for number in range(30, 60)])
    recipe = file_recipe(train="made_train", test="made_test", align="close", align_share=0.8, stop_share=0.2)
    with pytest.raises(
        PersonalignError, match=r"'close', part '\w+', and part 'train' share \d persona sets"
    ):
        parts_of(recipe)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_part_without_a_reply_is_refused_before_any_training(shelf: Path, part: str) -> None:
    silent = [
        replace(talk(number), messages=(Turn("user", "hi ?"),), relevant=()) for number in range(80, 90)
    ]
    write_dialogues(shelf / "made_silent.jsonl", silent)
    files = {"train": "made_train", "test": "made_test", part: "made_silent"}
    with pytest.raises(
        PersonalignError, match=r"part '\w+' of file 'made_silent' has \d+ dialogues and no reply"
    ):
        parts_of(file_recipe(**files))


def test_the_split_depends_on_its_seed_alone(shelf: Path) -> None:
    recipe = file_recipe(train="made_train", test="made_test")
    other = recipe.model_copy(update={"seed": 9})
    resplit = recipe.model_copy(update={"data": recipe.data.model_copy(update={"split_seed": 9})})
    assert parts_of(recipe) == parts_of(recipe) == parts_of(other)
    assert parts_of(recipe)["align"] != parts_of(resplit)["align"]


def test_limits_take_the_first_dialogues(shelf: Path) -> None:
    parts = parts_of(file_recipe(train="made_train", test="made_test", limit=20, test_limit=2))
    assert sum(len(parts[name]) for name in ("train", "align", "stop")) == 20
    assert [dialogue.id for dialogue in parts["test"]] == ["d90", "d91"]


def test_made_up_values_are_learnt_and_never_tested() -> None:
    sizes = {"train": 40, "align": 3, "stop": 2, "test": 4, "unseen": 2, "exchanges": 3}
    recipes = [
        parse_recipe(
            minimal_values() | {"data": {"synthetic": sizes | {"made_up": share}}, "backbone": {"name": "x"}},
            source="made",
        )
        for share in (0.0, 0.5)
    ]
    plain, changed = map(parts_of, recipes)
    assert {name for name in plain if plain[name] != changed[name]} == {"train"}
    different = sum(a != b for a, b in zip(plain["train"], changed["train"], strict=True))
    assert 10 <= different <= 30


def test_synthetic_parts_swap_personas_and_keep_histories() -> None:
    sizes = {"train": 6, "align": 3, "stop": 2, "test": 4, "unseen": 2, "exchanges": 3}
    parts = parts_of(parse_recipe(minimal_values() | {"data": {"synthetic": sizes}}, source="made"))
    assert {n: len(parts[n]) for n in ("train", "align", "stop", "test", "unseen")} == {
        name: size for name, size in sizes.items() if name != "exchanges"
    }
    for swapped, dialogue in zip(parts["swapped"], parts["test"], strict=True):
        assert (swapped.id, swapped.messages) == (dialogue.id, dialogue.messages)
        assert not set(swapped.persona) & set(dialogue.persona)
    trained = {persona_key(d) for name in ("train", "align", "stop") for d in parts[name]}
    assert not trained & {persona_key(d) for name in ("test", "unseen") for d in parts[name]}


def test_parts_come_back_from_their_files(tmp_path: Path) -> None:
    parts = {"train": [baker(), greeter()], "test": [talk(1)]}
    write_parts(tmp_path, parts)
    assert read_parts(tmp_path) == parts


def test_a_fingerprint_is_of_what_is_said() -> None:
    assert fingerprint([baker()]) == fingerprint([baker()])
    assert fingerprint([baker()]) != fingerprint([baker("other")])
    assert fingerprint([talk(1)]) != fingerprint([talk(1, labelled=False)])
    assert fingerprint([talk(1), talk(2)]) != fingerprint([talk(2), talk(1)])


def test_the_source_of_the_parts_is_recipe_and_files(shelf: Path) -> None:
    recipe = file_recipe(train="made_train", test="made_test")
    before = source_fingerprint(recipe)
    json.dumps(before)
    assert source_fingerprint(recipe) == before
    # A label that is mended leaves the size as it was.
    path = shelf / "made_test.jsonl"
    text = path.read_text(encoding="utf-8")
    mended = text.replace("[[0], []]", "[[], [0]]")
    assert (len(mended), mended != text) == (len(text), True)
    path.write_text(mended, encoding="utf-8")
    assert source_fingerprint(recipe) != before


def test_another_version_of_the_corpus_is_another_source(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("quickstart", [])
    before = source_fingerprint(recipe)
    monkeypatch.setattr(parts_module, "CORPUS_VERSION", 0)
    assert source_fingerprint(recipe) != before


# Labels ----------------------------------------------------------------------------------------------------


def label_recipe(method: str):  # type: ignore[no-untyped-def]
    return parse_recipe(override(minimal_values(), [f"data.labels.method={method}"]), source="made")


def test_given_labels_are_kept_and_missing_ones_named() -> None:
    parts = {"train": [talk(1)], "test": [talk(2)]}
    assert label_parts(parts, label_recipe("given"), reporter=SilentReporter()) is parts
    with pytest.raises(PersonalignError, match="dialogue d2 of part 'test' has no `relevant`"):
        label_parts({"test": [talk(2, labelled=False)]}, label_recipe("given"), reporter=SilentReporter())


def test_labels_of_a_method_replace_those_of_the_training_parts_alone() -> None:
    wrong = ((), (0,))
    parts = {name: [replace(talk(1), relevant=wrong)] for name in ("train", "align", "stop", "test")}
    reporter = SilentReporter()
    labelled = label_parts(parts, label_recipe("idf"), reporter=reporter)
    assert reporter.said == ["Labelling relevant persona lines by idf"]
    assert {name: labelled[name][0].relevant for name in parts} == {
        "train": ((0,), ()), "align": ((0,), ()), "stop": ((0,), ()), "test": wrong,
    }  # fmt: skip


def test_a_test_part_without_labels_gets_some_to_be_scored_by() -> None:
    parts = {"train": [talk(1)], "test": [talk(2, labelled=False)]}
    labelled = label_parts(parts, label_recipe("idf"), reporter=SilentReporter())
    assert labelled["test"][0].relevant == ((0,), ())


def test_test_dialogues_with_labels_keep_them_where_others_have_none() -> None:
    given = replace(talk(1), relevant=((), (0,)))
    reporter = SilentReporter()
    parts = {"train": [talk(1)], "test": [given, talk(2, labelled=False)]}
    labelled = label_parts(parts, label_recipe("idf"), reporter=reporter)
    assert labelled["test"] == [given, talk(2)]
    assert reporter.said[1:] == ["Part 'test': 1 of 2 dialogues had no labels and got some"]


def test_a_turn_that_loses_several_messages_counts_once() -> None:
    """Eight exchanges where the last prompts have room for few messages."""
    messages = [turn for _ in range(8) for turn in (Turn("user", "any pets ?"), Turn("assistant", "no ."))]
    long = Dialogue("long", ("i have a dog .",), tuple(messages))
    narrow = prompter(max_tokens=100)
    losing = [narrow.window(long, turn).trimmed for turn in long.reply_indices()]
    assert max(losing) > 1
    counts = trimmed_turns({"test": [long, baker()]}, narrow)
    assert counts["test"]["oldest messages trimmed"] == sum(count > 0 for count in losing) < 8
