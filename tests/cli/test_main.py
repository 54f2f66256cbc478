import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from personalign._version import __version__
from personalign.cli.main import COMMANDS, Command, app, build_app

# A command of each kind, as somebody else's module would hold it.
PRETEND = '''
from typing import Annotated
import typer
from personalign.errors import PersonalignError

app = typer.Typer(help="Many.")


@app.command()
def show(names: list[str], loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
    """Show names."""
    print("show", names, loud)


@app.command()
def stats() -> None:
    """Count."""
    print("stats")


def label(check: bool = False) -> None:
    """Label turns."""
    print("label", check)


def fail() -> None:
    raise PersonalignError("names.jsonl, line 3: 'role' is 'bot'; write 'user' or 'assistant'")


def interrupt() -> None:
    raise KeyboardInterrupt


def code() -> None:
    raise typer.Exit(7)


def bug() -> None:
    raise ZeroDivisionError("a bug")


def write() -> None:
    open("/", "w")


def half() -> None:
    "a\\ud83d".encode()


def latin() -> None:
    "\u4f60".encode("latin-1")


def bytes_() -> None:
    b"\\xff".decode()


def quote() -> None:
    raise PersonalignError("a\\x1b[31m\\x9bb")
'''


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    (tmp_path / "pretend_commands.py").write_text(PRETEND)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pretend_commands", raising=False)
    rows = {
        name: Command(f"pretend_commands:{name}", f"Do {name}.")
        for name in ("label", "fail", "interrupt", "code", "bug", "write", "half", "latin", "bytes_", "quote")
    }
    rows["many"] = Command("pretend_commands:app", "Many.", subcommands={"label": "pretend_commands:label"})
    rows["missing"] = Command("no_such_module:app", "Not there.")
    return build_app(rows)


def test_the_commands_are_these() -> None:
    assert list(COMMANDS) == [
        "quickstart",
        "run",
        "pretrain",
        "recipes",
        "chat",
        "data",
        "judge",
        "extract",
        "rank",
        "evaluate",
        "report",
        "learn",
        "metrics",
        "merge",
    ]


def test_help_names_every_command_with_its_line() -> None:
    output = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for name, command in COMMANDS.items():
        assert name in output
        assert command.help in output


def test_help_imports_no_command() -> None:
    program = (
        "import sys\n"
        "from personalign.cli.main import COMMANDS, app\n"
        "app(['--help'], standalone_mode=False)\n"
        "modules = {row.target.split(':')[0] for row in COMMANDS.values()}\n"
        "print('loaded:', sorted(modules & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("loaded: []\n")


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"personalign {__version__}\n"


def test_an_unknown_command_names_the_nearest() -> None:
    result = CliRunner().invoke(app, ["quikstart"])
    assert result.exit_code == 2
    assert "'quickstart'" in result.output


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["label"], "label False\n"),
        (["label", "--check"], "label True\n"),
        (["many", "show", "a", "--loud", "b"], "show ['a', 'b'] True\n"),
        (["many", "show", "--", "--loud"], "show ['--loud'] False\n"),
        (["many", "stats"], "stats\n"),
        (["many", "label", "--check"], "label True\n"),
    ],
)
def test_arguments_reach_the_command(pretend: typer.Typer, arguments: list[str], output: str) -> None:
    result = CliRunner().invoke(pretend, arguments)
    assert (result.exit_code, result.output) == (0, output)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["label", "--help"], ["personalign label", "Label turns.", "--check"]),
        (["many", "--help"], ["personalign many", "show", "stats", "label"]),
        (["many", "show", "--help"], ["personalign many show", "Show names.", "--loud"]),
    ],
)
def test_help_of_a_command_is_its_own(
    pretend: typer.Typer, arguments: list[str], expected: list[str]
) -> None:
    result = CliRunner().invoke(pretend, arguments, prog_name="personalign")
    assert result.exit_code == 0
    for text in expected:
        assert text in result.output


def test_a_wrong_option_is_a_usage_error(pretend: typer.Typer) -> None:
    result = CliRunner().invoke(pretend, ["label", "--chekc"])
    assert result.exit_code == 2
    assert "--check" in result.output


def test_an_error_for_the_user_has_no_traceback(pretend: typer.Typer) -> None:
    result = CliRunner().invoke(pretend, ["fail"])
    assert result.exit_code == 1
    assert result.stderr == "error: names.jsonl, line 3: 'role' is 'bot'; write 'user' or 'assistant'\n"
    assert result.stdout == ""


def test_an_interrupt_is_one_line(pretend: typer.Typer) -> None:
    result = CliRunner().invoke(pretend, ["interrupt"])
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_an_exit_code_of_a_command_is_kept(pretend: typer.Typer) -> None:
    assert CliRunner().invoke(pretend, ["code"]).exit_code == 7


def test_what_the_system_refuses_is_one_line_with_the_file(pretend: typer.Typer) -> None:
    result = CliRunner().invoke(pretend, ["write"])
    assert (result.exit_code, result.stderr) == (1, "error: /: Is a directory\n")


def test_a_bug_is_not_hidden(pretend: typer.Typer) -> None:
    assert isinstance(CliRunner().invoke(pretend, ["bug"]).exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "half",
            "error: '\\ud83d' is half a character, which no file can hold; take it out of what was given\n",
        ),
        ("latin", "error: '你' cannot be written in latin-1; set PYTHONIOENCODING=utf-8\n"),
        ("bytes_", "error: something that was read is not utf-8 (invalid start byte); convert it to UTF-8\n"),
        ("quote", "error: a[31mb\n"),
    ],
)
def test_text_that_cannot_be_written_or_shown_is_one_clean_line(
    pretend: typer.Typer, command: str, said: str
) -> None:
    result = CliRunner().invoke(pretend, [command])
    assert (result.exit_code, result.stderr) == (1, said)
