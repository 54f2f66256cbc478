import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from personalign._server import Server
from personalign.cli.label import label
from personalign.data.formats import read_dialogues, write_dialogues
from personalign.data.synthetic import generate
from personalign.errors import PersonalignError

APP = typer.Typer()
APP.command()(label)
RUNNER = CliRunner()


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    rows = [
        {
            "id": f"chat-{animal}",
            "persona": ["i ski in winter .", f"i have a {animal} ."],
            "messages": [
                {"role": "user", "content": "hello !"},
                {"role": "assistant", "content": f"my {animal} barks ."},
                {"role": "user", "content": "oh ?"},
                {"role": "assistant", "content": "who are you ?"},
            ],
            "relevant": [[1], []],
            "mood": "odd",
        }
        for animal in ("dog", "zebra")
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_labels_are_written_and_checked(dialogues: Path, tmp_path: Path) -> None:
    out = tmp_path / "labelled.jsonl"
    outcome = RUNNER.invoke(
        APP, [str(dialogues), str(out), "--method", "idf", "--threshold", "0.2", "--check", "--json"]
    )
    assert outcome.exit_code == 0, outcome.output
    result = json.loads(outcome.stdout.splitlines()[-1])
    assert result["agreement"]["accuracy"] == 1.0
    assert result["share_none"] == 0.5
    assert result["threshold"] == 0.2
    written = read_dialogues(out)
    assert [dialogue.relevant for dialogue in written] == [((1,), ())] * 2
    assert written[0].extra["mood"] == "odd"


def test_labels_under_the_name_of_a_table_are_refused_before_labelling(
    dialogues: Path, tmp_path: Path
) -> None:
    outcome = RUNNER.invoke(APP, [str(dialogues), str(tmp_path / "new.csv"), "--method", "idf"])
    assert "new.csv: what is written is no .csv file" in str(outcome.exception)
    assert outcome.output == ""


def test_labels_that_are_replaced_are_counted(dialogues: Path, tmp_path: Path) -> None:
    arguments = [str(dialogues), str(tmp_path / "new.jsonl"), "--method", "idf"]
    assert "2 of the dialogues have labels" in RUNNER.invoke(APP, arguments).stderr


def test_a_high_threshold_labels_nothing(dialogues: Path, tmp_path: Path) -> None:
    out = tmp_path / "labelled.jsonl"
    outcome = RUNNER.invoke(APP, [str(dialogues), str(out), "--method", "idf", "--threshold", "9"])
    assert outcome.exit_code == 0, outcome.output
    assert [dialogue.relevant for dialogue in read_dialogues(out)] == [((), ())] * 2


def test_a_file_that_is_there_is_not_written_over_unasked(dialogues: Path) -> None:
    before = dialogues.read_text()
    arguments = [str(dialogues), str(dialogues), "--method", "idf"]
    outcome = RUNNER.invoke(APP, arguments)
    assert isinstance(outcome.exception, PersonalignError)
    assert "there already" in str(outcome.exception)
    assert dialogues.read_text() == before
    assert RUNNER.invoke(APP, [*arguments, "--force"]).exit_code == 0
    assert dialogues.read_text() != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give OUT to write labels, or --check"),
        (["--check", "--method", "nli"], "--method nli needs --judge"),
    ],
)
def test_mistakes_are_explained(dialogues: Path, arguments: list[str], message: str) -> None:
    outcome = RUNNER.invoke(APP, [str(dialogues), *arguments])
    assert isinstance(outcome.exception, PersonalignError)
    assert message in str(outcome.exception)


def test_a_language_model_labels_and_is_not_asked_again(
    dialogues: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(_: Server, path: str, request: Any, **__: Any) -> Any:
        asked.append(request["messages"][1]["content"])
        rating = 5 if "my dog" in asked[-1] and "have a dog" in asked[-1] else 3
        return {"choices": [{"message": {"content": f'{{"rating": {rating}}}'}}]}

    monkeypatch.setattr(Server, "_send", answer)
    monkeypatch.setenv("OPENAI_API_KEY", "made up")
    monkeypatch.setenv("PERSONALIGN_CACHE", str(tmp_path / "cache"))
    for name, requests in (("first.jsonl", 7), ("second.jsonl", 0)):
        asked.clear()
        out = tmp_path / name
        outcome = RUNNER.invoke(APP, [str(dialogues), str(out), "--method", "nli", "--judge", "llm:small"])
        assert outcome.exit_code == 0, outcome.output
        assert [dialogue.relevant for dialogue in read_dialogues(out)] == [((1,), ()), ((), ())]
        assert len(asked) == requests


def test_the_oracle_labels_the_synthetic_corpus_as_it_was_made(dialogues: Path, tmp_path: Path) -> None:
    made = tmp_path / "made.jsonl"
    write_dialogues(made, generate("en", seed=1, people={"align": 4}, exchanges=4).align)
    arguments = ["--check", "--method", "nli", "--judge", "oracle"]
    outcome = RUNNER.invoke(APP, [str(made), *arguments, "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout.splitlines()[-1])["agreement"]["accuracy"] == 1.0
    outcome = RUNNER.invoke(APP, [str(dialogues), *arguments])
    assert "the oracle knows the lines of the synthetic corpus alone" in str(outcome.exception)


def test_a_judge_is_found_in_the_folder_of_judges(dialogues: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERSONALIGN_JUDGES", raising=False)
    outcome = RUNNER.invoke(APP, [str(dialogues), "--check", "--method", "nli", "--judge", "mine"])
    assert "there is no judge 'mine'" in str(outcome.exception)
    assert "PERSONALIGN_JUDGES" in str(outcome.exception)


def test_a_file_without_labels_cannot_be_checked(dialogues: Path, tmp_path: Path) -> None:
    row = json.loads(dialogues.read_text().splitlines()[0])
    del row["relevant"]
    unlabelled = tmp_path / "unlabelled.jsonl"
    unlabelled.write_text(json.dumps(row) + "\n")
    outcome = RUNNER.invoke(APP, [str(unlabelled), "--check", "--method", "idf"])
    assert "without 'relevant'" in str(outcome.exception)


def test_any_source_of_the_data_commands_can_be_labelled(tmp_path: Path) -> None:
    table = tmp_path / "chats.csv"
    table.write_text('who,said\ni bake .,"hi\ni bake .\n\n"\n', encoding="utf-8")
    out = tmp_path / "labelled.jsonl"
    options = ["--format", "hub", "--column", "persona=who", "--column", "messages=said"]
    options += ["--merge-turns", "--drop-empty-turns", "--method", "idf", "--threshold", "0.2"]
    outcome = RUNNER.invoke(APP, [str(table), str(out), *options])
    assert outcome.exit_code == 0, outcome.output
    assert [dialogue.relevant for dialogue in read_dialogues(out)] == [((0,),)]


def test_the_part_of_a_data_set_can_be_named(dialogues: Path, tmp_path: Path) -> None:
    outcome = RUNNER.invoke(
        APP, [str(dialogues), str(tmp_path / "out"), "--format", "native", "--split", "a", "--method", "idf"]
    )
    assert "a split belong to tables" in str(outcome.exception)


def test_the_name_of_the_file_is_printed_as_it_is(dialogues: Path, tmp_path: Path) -> None:
    out = tmp_path / ("long " * 30 + ":dog:.jsonl")
    outcome = RUNNER.invoke(APP, [str(dialogues), str(out), "--method", "idf"])
    assert f"wrote {out}\n" in outcome.stdout
