"""`personalign data`: what each command prints, writes and exits with."""

import dataclasses
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from personalign.cli.data import app
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import read_dialogues, write_dialogues
from personalign.errors import PersonalignError


def talk(number: int) -> Dialogue:
    return Dialogue(
        f"d{number}",
        (f"i have {number} bees [really].", "i am tall."),
        (Turn("user", "any pets?"), Turn("assistant", "only bees."), Turn("assistant", "and 你?")),
        candidates=(("no.", "only bees."), ()),
        relevant=((0,), ()),
        person=f"p{number}",
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "talk.jsonl"
    write_dialogues(path, [talk(number) for number in range(10)])
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


def last_json(result: Result) -> Any:
    assert result.exit_code in {0, 1}, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_show_marks_the_relevant_lines(source: Path) -> None:
    shown = run("show", source, "--number", 3).stdout
    assert "d2" in shown
    assert "person p2" in shown
    assert "0 i have 2 bees [really]." in shown
    assert "only bees.  <- line 0  (2 candidates)" in shown
    assert "and 你?  <- none" in shown
    assert "d7" in run("show", source, "--id", "d7").stdout
    assert last_json(run("show", source, "--json"))["relevant"] == [[0], []]


def test_show_leaves_the_text_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    long = "so much to say " * 14 + ":end:"
    turns = (Turn("user", "i have a :dog: [bold]"), Turn("assistant", long))
    write_dialogues(path, [Dialogue(":cat:", (f"i like :bee: {long}",), turns, person=":owl:")])
    lines = run("show", path).stdout.splitlines()
    assert lines == [
        ":cat: person :owl:",
        "persona",
        f"  0 i like :bee: {long}",
        "user      i have a :dog: [bold]",
        f"assistant {long}",
    ]


def test_show_of_what_is_not_there(source: Path) -> None:
    for arguments in (("--number", 11), ("--id", "x")):
        error = run("show", source, *arguments).exception
        assert isinstance(error, PersonalignError)
        assert str(source) in str(error)


def test_stats(source: Path) -> None:
    assert last_json(run("stats", source, "--json"))["examples"] == 20
    assert last_json(run("stats", source, "--json", "--merge-turns"))["examples"] == 10
    table = run("stats", source).stdout
    assert "share of none" in table
    assert "0.500" in table


def test_validate_exits_with_one_for_faults(source: Path, tmp_path: Path) -> None:
    fine = run("validate", source)
    assert (fine.exit_code, fine.stdout) == (0, f"{source}: 0 faults\n")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": []}\n{"messages": [{"role": "bot", "content": ""}]}\n', encoding="utf-8")
    result = run("validate", bad)
    assert result.exit_code == 1
    assert f"{bad}:2: messages[0].role: is 'bot'; write 'user'" in result.stdout
    assert result.stdout.endswith("2 faults\n")
    faults = last_json(run("validate", bad, "--json"))["faults"]
    assert [(fault["line"], fault["field"]) for fault in faults] == [
        (2, "messages[0].content"),
        (2, "messages[0].role"),
    ]


@pytest.mark.parametrize(("to", "records"), [("native", 10), ("trl", 10), ("parlai", 40)])
def test_convert(source: Path, tmp_path: Path, to: str, records: int) -> None:
    target = tmp_path / "out" / "file"
    printed = last_json(run("convert", source, target, "--to", to, "--json"))
    assert printed == {
        "target": str(target), "format": to, "dialogues": 10, "replies": 20, "records": records,
    }  # fmt: skip
    assert len(target.read_text(encoding="utf-8").splitlines()) == records


def test_convert_says_what_it_leaves_out(source: Path, tmp_path: Path) -> None:
    assert "10 replies have no rejected one" in run("convert", source, tmp_path / "x", "--to", "trl").stdout
    refused = run("convert", source, tmp_path / "y.json", "--to", "pal")
    assert isinstance(refused.exception, PersonalignError)
    assert not (tmp_path / "y.json").exists()
    assert run("convert", source, tmp_path / "y.json", "--to", "pal", "--merge-turns").exit_code == 0


def test_convert_to_pal_says_how_many_turns_are_lost(tmp_path: Path) -> None:
    path, target = tmp_path / "talk.jsonl", tmp_path / "talk.json"
    user, reply = Turn("user", "hi"), Turn("assistant", "yo")
    whole = Dialogue("a", (), (user, reply), relevant=((),))
    cut = Dialogue("b", (), (user, reply, user), relevant=((),))
    silent = Dialogue("c", (), (user,), relevant=())
    write_dialogues(path, [whole, cut, silent])
    said = run("convert", path, target, "--to", "pal").stdout
    assert "2 turns that no reply follows, and with them 1 dialogues: not written" in said
    printed = last_json(run("convert", path, target, "--to", "pal", "--json", "--force"))
    assert (printed["records"], printed["left_out"]) == (2, {"turns": 2, "dialogues": 1})
    write_dialogues(path, [whole])
    assert "not written" not in run("convert", path, target, "--to", "pal", "--force").stdout
    write_dialogues(path, [silent])
    refused = run("convert", path, tmp_path / "none.json", "--to", "pal")
    assert "no dialogue has one" in str(refused.exception)
    assert not (tmp_path / "none.json").exists()


@pytest.mark.parametrize("name", ["made.csv", "made.TSV", "made.parquet.gz"])
def test_a_name_that_could_not_be_read_again_is_refused_at_once(tmp_path: Path, name: str) -> None:
    chat = ("import", tmp_path / "no.txt", tmp_path / name, "--person", "Ben")
    for command in (("convert", tmp_path / "no.jsonl", tmp_path / name), chat):
        result = run(*command)
        assert isinstance(result.exception, PersonalignError)
        assert f"{tmp_path / name}: what is written is no ." in str(result.exception)


def test_pipes_and_devices_are_refused_whatever_is_forced(source: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target, options in ((pipe, ()), (pipe, ("--force",)), ("/dev/null", ()), ("/dev/stdout", ())):
        error = str(run("convert", source, target, *options).exception)
        assert f"{target}: a device or a pipe" in error
        assert "--force" not in error
    assert stat.S_ISFIFO(pipe.stat().st_mode)


SIGNS = "\x1b[31m\x9b2J\x07bees"


def test_signs_that_a_terminal_obeys_do_not_reach_it(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    turns = (Turn("user", f"a\n{SIGNS}"), Turn("assistant", SIGNS))
    write_dialogues(path, [Dialogue(SIGNS, (SIGNS,), turns, partner_persona=(SIGNS,), person=SIGNS)])
    for options in ((), ("--tree",)):
        shown = run("show", path, *options).stdout
        assert "[31m2Jbees" in shown
        assert not set(shown) & set("\x1b\x9b\x07")
    printed = run("show", path, "--json").stdout
    assert not set(printed) & set("\x1b\x9b\x07")
    assert json.loads(printed)["messages"][1]["content"] == SIGNS
    path.write_text(json.dumps({"messages": [], f"Persona{SIGNS[:1]}": []}), encoding="utf-8")
    faults = run("validate", path).stdout
    assert "'persona' is missing" in faults
    assert "\x1b" not in faults


def test_convert_with_a_column_map(tmp_path: Path) -> None:
    table = tmp_path / "talk.csv"
    table.write_text('who,said\ni bake.,"hi\nyo"\n', encoding="utf-8")
    target = tmp_path / "talk.jsonl"
    assert (
        run("convert", table, target, "--column", "persona=who", "--column", "messages=said").exit_code == 0
    )
    (dialogue,) = read_dialogues(target)
    assert dialogue.persona == ("i bake.",)
    assert len(dialogue.messages) == 2
    for wrong in ("persona", "=who", "persona="):
        assert isinstance(run("stats", table, "--column", wrong).exception, PersonalignError)


def test_split_writes_disjoint_parts(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    arguments = ("split", source, folder, "--share", "train=.7", "--share", "test=.3", "--seed", 4)
    printed = last_json(run(*arguments, "--json"))
    assert printed["dialogues"] == {"train": 7, "test": 3}
    assert printed["overlap"]["train & test"]["persona_sets"] == 0
    ids = [d.id for name in ("train", "test") for d in read_dialogues(folder / f"{name}.jsonl")]
    assert sorted(ids) == sorted(f"d{number}" for number in range(10))
    assert "train & test share 0 persona sets" in run(*arguments, "--force").stdout
    assert len(list(tmp_path.rglob("*.jsonl"))) == 3


def test_a_split_that_misses_its_shares_says_so(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    write_dialogues(path, [dataclasses.replace(talk(number % 3), id=f"d{number}") for number in range(30)])
    shares = ("--share", "train=.9", "--share", "test=.1")
    assert (
        "train 67% (asked 90%), test 33% (asked 10%)"
        in run("split", path, tmp_path / "parts", *shares).stderr
    )
    result = run("split", path, tmp_path / "more", *(f"--share={name}=.25" for name in "abcd"))
    assert "too few for the 4 parts a, b, c, d; add dialogues of other people" in str(result.exception)


def test_what_is_there_is_not_written_over_unasked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "parts" / "test.jsonl"
    target.parent.mkdir()
    target.write_text("mine\n")
    for command in (("convert", source, target), ("split", source, target.parent)):
        result = run(*command)
        assert isinstance(result.exception, PersonalignError)
        assert f"{target}: there already" in str(result.exception)
        assert "add --force to overwrite" in str(result.exception)
    assert target.read_text() == "mine\n"
    assert [path.name for path in target.parent.iterdir()] == ["test.jsonl"]
    assert run("convert", source, target, "--force").exit_code == 0
    assert len(read_dialogues(target)) == 10


def test_show_says_that_there_are_more(source: Path) -> None:
    assert "dialogue 1 of 10; --number or --id shows another" in run("show", source).stderr
    assert "dialogue 4 of 10" in run("show", source, "--id", "d3").stderr
    assert run("show", source, "--json").stderr == ""


@pytest.mark.parametrize("share", ["train", "train=much", "train=.5", "../x=1", "train=nan"])
def test_shares_that_cannot_be(source: Path, tmp_path: Path, share: str) -> None:
    result = run("split", source, tmp_path / "parts", "--share", share)
    assert isinstance(result.exception, PersonalignError)
    assert not (tmp_path / "parts").exists()


def test_help_names_every_option_without_heavy_imports() -> None:
    code = (
        "import sys, personalign.cli.data\n"
        "print([m for m in ('torch', 'datasets', 'transformers', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    for command in ("show", "stats", "validate", "convert", "split"):
        assert "--json" in run(command, "--help").stdout


CHAT = """31/12/2023, 10:00 - Ann: any pets?
31/12/2023, 10:01 - Ben: one dog
31/12/2023, 10:01 - Ben: <Media omitted>
31/12/2023, 18:00 - Ben: alone
01/01/2024, 18:00 - Ann: again
01/01/2024, 18:01 - Ben: yes
"""


def test_import_writes_the_sessions_of_one_person(tmp_path: Path) -> None:
    chat, target = tmp_path / "chat.txt", tmp_path / "ben.jsonl"
    chat.write_text(CHAT, encoding="utf-8")
    result = run("import", chat, target, "--person", "ben")
    assert "2 sessions of Ben with 2 replies, 2023-12-31 to 2024-01-01, from 5 messages" in result.stdout
    assert "1 sessions with nothing by Ben, or by nobody else: left out" in result.stdout
    assert "1 media without text: left out" in result.stdout
    dialogues = read_dialogues(target)
    assert [dialogue.messages[-1].content for dialogue in dialogues] == ["one dog", "yes"]
    assert dialogues[0].extra["began"] == "2023-12-31T10:00:00"
    assert isinstance(run("import", chat, target, "--person", "Ben").exception, PersonalignError)
    whole = last_json(run("import", chat, target, "--person", "Ben", "--silence", 100, "--force", "--json"))
    assert (whole["sessions"], whole["replies"], whole["left_out"]) == (1, 2, {"media without text": 1})
    error = run("import", chat, target, "--person", "Ben", "--silence", 0, "--force").exception
    assert "--silence is 0; write a number of hours above 0" in str(error)


def test_import_says_what_it_guessed(tmp_path: Path) -> None:
    chat = tmp_path / "chat.txt"
    chat.write_text("03/04/2024, 10:00 - Ann: a\n03/04/2024, 10:00 - Ben: b\n", encoding="utf-8")
    arguments = ("import", chat, tmp_path / "ben.jsonl", "--person", "Ben")
    assert "dates are read as dmy: day and month could be the other way round" in run(*arguments).stderr
    assert not run(*arguments, "--force", "--date-order", "mdy").stderr


def test_import_cleans_what_it_says_of_the_chat(tmp_path: Path) -> None:
    table = tmp_path / "chat.csv"
    table.write_text(
        "sender,text,date\nBen\x1b[1m,hi,2024-01-01\nAnn,yo,2024-01-01\nAnn,so,2024-02-01\n", encoding="utf-8"
    )
    result = run("import", table, tmp_path / "ben.jsonl", "--person", "Ben\x1b[1m")
    assert result.exit_code == 0, result.output
    assert "1 sessions of Ben[1m with 1 replies" in result.stdout
    assert "with nothing by Ben[1m, or by nobody else" in result.stdout
    assert "\x1b" not in result.output
