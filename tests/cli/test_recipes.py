"""`personalign recipes`, and the tree that `personalign data show --tree` draws."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from personalign.cli.main import app
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import write_dialogues
from personalign.methods.recipe import parse_recipe, read_recipe
from personalign.methods.shipped import recipe_text, shipped_recipes


def personalign(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def last_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_list_names_every_recipe_what_it_needs_and_whether_it_was_measured() -> None:
    result = personalign("recipes", "list", "--json")
    rows = {row["name"]: row for row in last_json(result)["recipes"]}
    assert {
        "quickstart",
        "pal-personachat-small",
        "pal-gpt2",
        "pal-dialogpt",
        "pal-llama-3.1-8b-lora",
    } <= rows.keys()
    assert all(row["description"] and row["measured"] for row in rows.values())
    assert "untested" in rows["pal-gpt2"]["measured"]
    assert all(name in result.stdout for name in rows)
    assert rows["quickstart"]["needs"] == "nothing"
    assert rows["pal-gpt2"]["needs"] == (
        "data files convai2_train, convai2_test, convai2_valid; the model openai-community/gpt2; judges judge-a, judge-b"
    )
    assert "dailydialog_valid" in rows["pal-personachat-small"]["needs"]


@pytest.mark.parametrize(
    ("recipe", "files"),
    [
        ("quickstart", []),
        (
            "pal-personachat-small",
            [
                "convai2_train_part",
                "convai2_valid",
                "convai2_candidates_sample",
                "dailydialog_valid",
                "dailydialog_test",
                "persona_entailed_pairs",
            ],
        ),
        ("pal-xpersona-zh-small", ["xpersona_zh_valid", "xpersona_zh_test"]),
        ("backbone-xpersona-zh", ["xpersona_zh_valid", "xpersona_zh_test"]),
        ("personalign-mini", ["synthetic_persona_chat_valid", "msc_valid_sessions"]),
        (
            "idl-personachat-small",
            [
                "convai2_wild_bot_human",
                "convai2_candidates_sample",
                "convai2_train_part",
                "synthetic_persona_chat_valid",
                "cornell_movie_sample",
                "msc_valid_sessions",
                "dailydialog_valid",
                "dailydialog_test",
            ],
        ),
    ],
)
def test_a_recipe_needs_the_files_that_it_names_and_nothing_else(recipe: str, files: list[str]) -> None:
    rows = {row["name"]: row for row in last_json(personalign("recipes", "list", "--json"))["recipes"]}
    needs = rows[recipe]["needs"].split("; ")[0]
    assert needs == (f"data files {', '.join(files)}" if files else "nothing")


def test_show_prints_the_file_as_it_is() -> None:
    result = personalign("recipes", "show", "pal-gpt2")
    assert result.exit_code == 0
    assert "  stage1:\n    learning_rate: 2.0e-5   # section 3.4 and the release" in result.stdout
    assert last_json(personalign("recipes", "show", "pal-gpt2", "--json"))["recipe"] == yaml.safe_load(
        result.stdout
    )


def test_copy_gives_a_recipe_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert last_json(personalign("recipes", "copy", "quickstart", "--json"))["path"] == "my-quickstart.yaml"
    assert parse_recipe(read_recipe("my-quickstart.yaml"), source="copy").name == "my-quickstart"
    again = personalign("recipes", "copy", "quickstart")
    assert again.exit_code == 1
    assert "my-quickstart.yaml exists already" in again.stderr
    as_shipped = personalign("recipes", "copy", "quickstart", "pal-gpt2.yaml")
    assert as_shipped.exit_code == 1
    assert "a copy needs a name of its own; write for example my-quickstart.yaml" in as_shipped.stderr
    assert personalign("recipes", "copy", "quickstart", "mine.yaml").exit_code == 0
    (tmp_path / "folder").mkdir()
    assert personalign("recipes", "copy", "quickstart", "folder").exit_code == 0
    copies = [tmp_path / "my-quickstart.yaml", tmp_path / "folder" / "my-quickstart.yaml"]
    assert copies[0].read_text() == copies[1].read_text()


@pytest.mark.parametrize("name", ["[draft] :dog:.yaml", "[/x]b.yaml", "$it's.yaml"])
def test_the_command_for_a_copy_can_be_typed_as_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = personalign("recipes", "copy", "quickstart", name)
    assert result.exit_code == 0, result.output
    assert Path(name).is_file()
    written, command = result.stdout.splitlines()[0].split("; run it with: ")
    assert written == f"{name} written"
    assert shlex.split(command)[1:] == ["run", name]


@pytest.mark.parametrize("recipe", sorted(shipped_recipes()))
def test_a_copy_has_its_own_name_and_no_claims(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert personalign("recipes", "copy", recipe, "my: own.yaml").exit_code == 0
    copied, shipped = read_recipe("my: own.yaml"), yaml.safe_load(recipe_text(recipe))
    own = {"name": "my: own", "description": f"a copy of {recipe}", "measured": "untested"}
    assert {key: copied.pop(key) for key in own} == own
    assert copied == {key: value for key, value in shipped.items() if key not in own}


def talk(*, relevant: tuple[tuple[int, ...], ...] | None) -> Dialogue:
    return Dialogue(
        "d1",
        ("i have a dog .", "i am tall ."),
        (
            Turn("user", "any pets ?"),
            Turn("assistant", "only a dog ."),
            Turn("user", "and you ?"),
            Turn("assistant", "fine ."),
        ),
        relevant=relevant,
    )


def drawn(tmp_path: Path, dialogue: Dialogue) -> str:
    path = tmp_path / "talk.jsonl"
    write_dialogues(path, [dialogue])
    result = personalign("data", "show", path, "--tree")
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_tree_shows_trunk_branches_and_counts(tmp_path: Path) -> None:
    shown = drawn(tmp_path, talk(relevant=((0,), ())))
    lines = shown.splitlines()
    assert lines[0].startswith("[0, trunk] ")
    assert "i have a dog ." in lines[0]
    assert any(line.lstrip().startswith("[1, after ") for line in lines)
    # A reply hangs off the selection that it rests on, deeper than the trunk's own branches.
    assert any(line.startswith("    [") for line in lines)
    # Two selections and two replies with their ends: "i have a dog .", none, "only a dog .", "fine .".
    assert "tokens as a tree" in lines[-1]
    supervised = int(lines[-1].split(";")[1].split()[0])
    assert 16 <= supervised <= 24


def test_the_tree_of_an_unlabelled_dialogue_has_replies_alone(tmp_path: Path) -> None:
    shown = drawn(tmp_path, talk(relevant=None))
    # "only a dog ." and "fine .", each with its end.
    assert int(shown.splitlines()[-1].split(";")[1].split()[0]) == 5 + 3


def test_a_dialogue_without_a_reply_has_no_tree(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    write_dialogues(path, [Dialogue("d1", ("a .",), (Turn("user", "hello"),))])
    result = personalign("data", "show", path, "--tree")
    assert result.exit_code == 1
    assert "dialogue d1 has no assistant turn" in result.stderr
