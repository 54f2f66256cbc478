"""What is said of a file that was not read, and where the rest of it is to be seen."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from personalign.cli.main import app
from personalign.data.exports import read_export
from personalign.data.faults import Fault, error_of
from personalign.data.formats import Format, read_dialogues
from personalign.errors import PersonalignError


@pytest.mark.parametrize(
    ("name", "row", "format", "columns"),
    [
        ("my talk.jsonl", '{"messages": [{"role": "bot", "content": "x"}]}', None, None),
        ("it's.txt", "1 hello", "native", None),
        (
            "a table.csv",
            '"[{""role"": ""bot"", ""content"": ""x""}]"',
            "hub",
            {"messages": "said of it"},
        ),
    ],
)
def test_the_command_that_is_named_lists_all(
    tmp_path: Path, name: str, row: str, format: Format | None, columns: dict[str, str] | None
) -> None:
    path = tmp_path / name
    rows = ["said of it"] if columns else []
    path.write_text("\n".join([*rows, *[row] * 12]) + "\n", encoding="utf-8")
    with pytest.raises(PersonalignError) as caught:
        read_dialogues(path, format=format, columns=columns)
    [command] = re.findall(r"and 2 more; `(.+)` lists all", str(caught.value))
    listed = CliRunner().invoke(app, shlex.split(command)[1:])
    assert listed.exit_code == 1
    assert listed.stdout.endswith(": 12 faults\n")
    assert str(caught.value).splitlines()[1].strip() in listed.stdout


def test_faults_of_an_export_are_listed_themselves(tmp_path: Path) -> None:
    path = tmp_path / "chat.csv"
    path.write_text("date,sender,text\n" + "soon,Ann,hi\n" * 60, encoding="utf-8")
    with pytest.raises(PersonalignError) as caught:
        read_export(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path} was not read: 60 faults"
    assert [line.partition(": date")[0].strip() for line in lines[1:]] == [
        f"{path}:{n}" for n in range(2, 62)
    ]


def test_a_table_of_faults_does_not_fill_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "chat.csv"
    path.write_text("date,sender,text\n" + "soon,Ann,hi\n" * 5000, encoding="utf-8")
    with pytest.raises(PersonalignError) as caught:
        read_export(path)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (102, "  ... and 4,900 more")


def test_no_fault_is_left_unsaid_where_all_are_shown() -> None:
    faults = [Fault("a", n, "x", "is wrong", "mend it") for n in range(1, 11)]
    assert "more" not in str(error_of(faults, command=["personalign"]))
