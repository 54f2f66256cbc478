"""`personalign judge eval` and `score`: what they print, keep and refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from personalign._files import write_jsonl
from personalign._server import Server
from personalign.cli.main import build_app
from personalign.methods import judges


def run(*arguments: object) -> Result:
    return CliRunner().invoke(
        build_app(), ["judge", *map(str, arguments)], env={"COLUMNS": "160", "OPENAI_API_KEY": "made up"}
    )


def last_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What `llm:small` is asked, which calls everything entailed; its verdicts are kept in a folder of the test."""
    requests: list[str] = []

    def answer(_: Server, path: str, request: Any, **__: Any) -> Any:
        requests.append(request["messages"][1]["content"])
        return {"choices": [{"message": {"content": '{"rating": 5}'}}]}

    monkeypatch.setattr(Server, "_send", answer)
    monkeypatch.setenv("PERSONALIGN_CACHE", str(tmp_path / "cache"))
    return requests


@pytest.fixture
def labelled(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for file, count in zip(files, (2, 3), strict=True):
        rows = [
            {"premise": f"{file.stem} {n}", "hypothesis": "hm", "label": "entailment", "split": "valid"}
            for n in range(count)
        ]
        write_jsonl(file, [*rows, {**rows[0], "hypothesis": "no", "label": "neutral"}])
    return files


def test_the_result_has_one_shape_however_many_files(asked: list[str], labelled: list[Path]) -> None:
    for files in (labelled[:1], labelled):
        found = last_json(run("eval", "llm:small", *files, "--json"))
        assert set(found) == {"judge", "files"}
        assert list(found["files"]) == [str(file) for file in files]
        assert found["files"][str(labelled[0])]["accuracy"] == pytest.approx(2 / 3)


def test_the_judge_is_opened_once_and_each_file_has_its_bar(
    asked: list[str], labelled: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, really = [], judges.open_judge

    def counted(name: str, **options: Any) -> Any:
        opened.append(name)
        return really(name, **options)

    monkeypatch.setattr(judges, "open_judge", counted)
    result = run("eval", "llm:small", *labelled)
    assert opened == ["llm:small"]
    assert "judging first.jsonl: 3/3 (100%)" in result.stderr
    assert "judging second.jsonl: 4/4 (100%)" in result.stderr


@pytest.mark.parametrize("command", ["eval", "score"])
def test_verdicts_are_kept_unless_that_is_refused(
    asked: list[str], labelled: list[Path], tmp_path: Path, command: str
) -> None:
    target = [tmp_path / "verdicts.jsonl", "--force"] if command == "score" else []
    for options, requests in (([], 3), ([], 3), (["--no-cached"], 6)):
        result = run(command, "llm:small", labelled[0], *target, *options)
        assert result.exit_code == 0, result.output
        assert len(asked) == requests


def test_an_unknown_judge_is_told_with_what_every_command_takes(labelled: list[Path]) -> None:
    result = run("eval", "nobody", *labelled)
    assert result.exit_code == 1
    assert "then give its folder, or set PERSONALIGN_JUDGES" in result.stderr
    assert "--set" not in result.stderr


@pytest.mark.parametrize("meta", ['"\\ud83d"', "NaN"])
def test_a_row_that_could_not_be_written_is_refused_before_it_is_judged(
    asked: list[str], tmp_path: Path, meta: str
) -> None:
    (tmp_path / "pairs.jsonl").write_text(f'{{"premise": "a", "hypothesis": "b", "meta": {meta}}}\n')
    result = run("score", "llm:small", tmp_path / "pairs.jsonl", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert f"{tmp_path / 'pairs.jsonl'}, line 1: not readable JSON" in result.stderr
    assert asked == []
