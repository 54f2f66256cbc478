import io
import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from personalign.cli import _output
from personalign.cli._output import clock, command_line, emit_json, print_command, progress, track

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@dataclass(frozen=True)
class Row:
    name: str
    path: Path
    values: tuple[float, ...]


def emitted(result: dict[str, object]) -> str:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        emit_json(result)
    return stream.getvalue()


@given(st.dictionaries(st.text(), JSON_VALUES))
def test_what_is_emitted_is_one_line_that_reads_back(result: dict[str, object]) -> None:
    line = emitted(result)
    assert line.count("\n") == 1
    assert json.loads(line) == result


def test_values_of_ours_become_json() -> None:
    row = Row(name="naïve 猫", path=Path("a/b"), values=(1.0, math.nan, math.inf))
    line = emitted({"row": row})
    assert json.loads(line) == {"row": {"name": "naïve 猫", "path": "a/b", "values": [1.0, None, None]}}
    assert "猫" in line


def test_what_json_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        emitted({"names": {"a"}})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_away_from_a_terminal_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock()
    monkeypatch.setattr(_output, "time", time)
    stream = io.StringIO()
    for _ in track(range(8), "decode [x]", total=8, console=Console(file=stream)):
        time.now += 6.0
    assert stream.getvalue().splitlines() == [
        "decode [x]: 2/8 (25%), 0:12 elapsed, 0:36 left",
        "decode [x]: 4/8 (50%), 0:24 elapsed, 0:24 left",
        "decode [x]: 6/8 (75%), 0:36 elapsed, 0:12 left",
        "decode [x]: 8/8 (100%), 0:48 elapsed",
    ]


def test_what_was_done_before_says_nothing_of_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that is gone on with begins far along."""
    time = Clock()
    monkeypatch.setattr(_output, "time", time)
    stream = io.StringIO()
    with _output.progress("train", total=100, console=Console(file=stream)) as advance:
        advance(80)
        time.now += 20.0
        advance(10)
    assert stream.getvalue().splitlines()[0] == "train: 90/100 (90%), 0:20 elapsed, 0:20 left"


def test_a_task_without_steps_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with progress("judge", total=0, console=Console(file=stream)):
        pass
    assert stream.getvalue() == "judge: 0/0 (100%), 0:00 elapsed\n"


def test_on_a_terminal_progress_is_a_bar() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, legacy_windows=False)
    with progress("train", total=4, console=console) as advance:
        advance(4)
    assert "4/4" in stream.getvalue()
    assert "━" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01"), (math.inf, "?")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_description_is_shown_as_it_is_on_a_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, legacy_windows=False)
    with progress("judging [/x] [b]a.jsonl", total=1, console=console) as advance:
        advance(1)
    assert "judging [/x] [b]a.jsonl" in stream.getvalue()


@pytest.mark.parametrize("path", ["[draft] a.yaml", "[/x]b.yaml", "it's :dog: $HOME", "a" * 200])
def test_a_printed_command_can_be_typed_as_it_is(path: str) -> None:
    stream = io.StringIO()
    print_command(Console(file=stream, width=40), "Run it with:", "run", Path(path))
    assert stream.getvalue().startswith("Run it with: ")
    assert stream.getvalue().count("\n") == 1
    words = shlex.split(stream.getvalue().removeprefix("Run it with: "))
    assert words[1:] == ["run", path]
    assert shlex.split(command_line("run", Path(path))) == words


def test_json_holds_no_sign_that_a_terminal_obeys() -> None:
    line = emitted({"text": "a\x1b\x9b\x7f\x85b"})
    assert line == '{"text": "a\\u001b\\u009b\\u007f\\u0085b"}\n'
