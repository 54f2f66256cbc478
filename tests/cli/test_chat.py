import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import pytest
from tests.decoding.tiny_chat_models import chat_model, publish
from typer.testing import CliRunner

from personalign.cli._persona import read_persona
from personalign.cli._terminal import Terminal
from personalign.cli.main import app
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import read_dialogues
from personalign.decoding.respond import Selection, respond
from personalign.errors import PersonalignError
from personalign.methods.opening import open_model

LINES = ["--line", "i have a dog .", "--line", "i work at night ."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("chat") / "published", chat_model())


def talk(folder: Path, *typed: str, options: list[str] | None = None, code: int = 0) -> str:
    result = CliRunner().invoke(
        app,
        ["chat", str(folder), *(LINES if options is None else options)],
        input="".join(f"{t}\n" for t in typed),
    )
    assert result.exit_code == code, result.output
    return result.output


def dialogue_of(output: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert list(value) == ["source", "dialogue"]
    return value["dialogue"]  # type: ignore[no-any-return]


def contents(row: dict[str, Any]) -> list[str]:
    return [message["content"] for message in row["messages"]]


def test_a_conversation_is_that_of_the_library(folder: Path) -> None:
    output = talk(folder, "hello ?", "", "any pets ?", options=[*LINES, "--json"])
    row = dialogue_of(output)
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * 2
    assert row["persona"] == ["i have a dog .", "i work at night ."]
    model = open_model(folder)
    dialogue = Dialogue(
        "chat", tuple(row["persona"]), tuple(Turn(item["role"], item["content"]) for item in row["messages"])
    )
    responses = respond(
        model.loaded, model.prompter, [dialogue], selection=Selection(), decoding=model.decoding
    )
    assert [response.text for response in responses] == contents(row)[1::2]
    for response, selected in zip(responses, row["selected"], strict=True):
        assert response.choice is not None
        line = None if response.choice.line is None else row["persona"][response.choice.line]
        assert selected["line"] == line
        assert selected["probability"] == pytest.approx(max(response.choice.probabilities), abs=1e-3)
        shown = "no line matters" if line is None else line
        assert f"     {shown} ({selected['probability']:.0%})\nbot> {response.text}\n" in output


def test_without_a_persona_it_plays_the_first_example(folder: Path) -> None:
    output = talk(folder, "hello ?", options=["--json"])
    assert "No persona was given, so it plays an example" in output
    assert dialogue_of(output)["persona"] == ["i have a cat .", "i work at night ."]


def test_what_was_said_can_be_taken_back(folder: Path) -> None:
    output = talk(folder, "hello ?", "any pets ?", "/undo", "/undo", "/undo", options=[*LINES, "--json"])
    row = dialogue_of(output)
    assert row["messages"] == row["selected"] == []
    assert "(taken back: any pets ?)" in output
    assert "error: nothing was said yet" in output


def test_a_retry_replaces_the_reply_by_another(folder: Path) -> None:
    first = contents(dialogue_of(talk(folder, "any pets ?", options=[*LINES, "--json"])))
    output = talk(folder, "any pets ?", "/retry", "/retry", options=[*LINES, "--json"])
    row = dialogue_of(output)
    assert "(drawn at random: greedy would repeat itself)" in output
    assert contents(row)[0] == first[0]
    assert len(contents(row)) == 2
    assert contents(row)[1] != first[1]
    assert len(row["selected"]) == 1


def test_the_persona_can_be_shown_and_changed(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "她.txt"
    file.write_text("我养了一只狗 🐶\n\n  i work as a cook .\n", encoding="utf-8")
    typed = [
        "/persona",
        "any pets ?",
        "/persona i like cat 🐱 | i work .",
        f"/persona {file}",
        "/persona no.txt",
    ]
    output = talk(folder, *typed, options=[*LINES, "--json"])
    for line in (
        "  i have a dog .\n",
        "  i like cat 🐱\n",
        "  我养了一只狗 🐶\n",
        "no.txt: there is no such file",
    ):
        assert line in output
    row = dialogue_of(output)
    assert row["persona"] == ["我养了一只狗 🐶", "i work as a cook ."]
    assert len(row["messages"]) == 2


def test_any_text_is_a_persona_or_told_to_be_none(folder: Path, tmp_path: Path) -> None:
    long = " | ".join(f"i have {number} cats and a very old dog ." for number in range(10))
    assert len(long.encode()) > 300
    typed = [
        f"/persona {long}",
        f"/persona {'我养了一只狗' * 30}",
        f"/persona {'a/b ' * 2000}",
        "/persona ~nobody-of-this-name",
        "/persona ~nobody-of-this-name/her.txt",
        f"/persona {'x' * 300}.txt",
        "/persona a\0b.txt",
        "/save ~nobody-of-this-name/there.jsonl",
        f"/save {'x' * 300}",
    ]
    output = talk(folder, *typed, options=[*LINES, "--json"])
    assert "  i have 9 cats and a very old dog .\n" in output
    assert f"  {'我养了一只狗' * 30}\n" in output
    assert "her.txt: there is no such file" in output
    assert "xxx.txt: there is no such file" in output
    assert "b.txt: there is no such file" in output
    assert "there.jsonl: there is no such home folder" in output
    assert output.count("error: ") == 5
    assert dialogue_of(output)["persona"] == ["~nobody-of-this-name"]


@pytest.mark.parametrize("name", ["~nobody-of-this-name/her.txt", "x" * 300, "a\0b"])
def test_a_persona_file_that_cannot_be_is_not_there(name: str) -> None:
    with pytest.raises(PersonalignError, match="there is no such file"):
        read_persona(Path(name))


def test_a_conversation_is_saved_as_a_native_row(folder: Path, tmp_path: Path) -> None:
    path, taken = tmp_path / "saved.jsonl", tmp_path / "taken.jsonl"
    taken.write_text("mine\n")
    typed = [
        "你好 🐶 :dog: [bold]",
        f"/save {path}",
        "any pets ?",
        f"/save {path}",
        f"/save {taken}",
        "/save",
        f"/save {taken}/inside",
    ]
    output = talk(folder, *typed, options=[*LINES, "--json"])
    [saved] = read_dialogues(path)
    assert saved.messages[0].content == "你好 🐶 :dog: [bold]"
    assert json.loads(path.read_text(encoding="utf-8")) == dialogue_of(output)
    assert taken.read_text() == "mine\n"
    assert "exists already" in output
    assert "/save needs a file" in output
    assert f"error: {taken} is no folder; make it first" in output


def test_leaving_is_told_from_what_is_no_command(folder: Path) -> None:
    output = talk(folder, "/quit now", "/HELP", "/QUIT", "never read", options=LINES)
    assert "error: /quit takes nothing behind it" in output
    assert "write the conversation as JSON Lines" in output
    assert "never read" not in output


def test_help_names_every_command_and_quit_leaves(folder: Path) -> None:
    output = talk(folder, "/help", "/nope", "/quit", "hello ?")
    for command in ("/persona", "/undo", "/retry", "/save", "/help", "/quit", "Ctrl-C"):
        assert command in output
    assert "error: there is no command /nope" in output
    assert "bot>" not in output


def test_a_message_that_is_too_long_is_told_and_forgotten(folder: Path) -> None:
    row = dialogue_of(talk(folder, "hello " * 300, "any pets ?", options=[*LINES, "--json"]))
    assert contents(row)[0] == "any pets ?"
    assert len(row["messages"]) == 2


def test_options_decide_how_it_speaks(folder: Path) -> None:
    def said(*options: str) -> str:
        return contents(dialogue_of(talk(folder, "any pets ?", options=[*LINES, "--json", *options])))[1]

    greedy = said()
    drawn = {seed: said("--temperature", "2", "--seed", seed) for seed in "0123"}
    assert len(set(drawn.values()) | {greedy}) > 2
    assert said("--strategy", "sample", "--temperature", "2", "--seed", "2") == drawn["2"]
    assert greedy.startswith(said("--max-new-tokens", "3"))
    assert len(said("--max-new-tokens", "3").split()) < len(greedy.split())
    assert said("--strategy", "beam")
    row = dialogue_of(talk(folder, "any pets ?", options=[*LINES, "--json", "--selection", "unselected"]))
    assert row["selected"] == [None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--strategy", "beam", "--top-p", "0.5"], "--top-p is for sampling; write --strategy sample"),
        (["--max-new-tokens", "400"], "write 288 or fewer"),
        (["--persona", "nowhere.txt"], "nowhere.txt: there is no such file"),
        (["--line", "  "], "--line: holds no persona line"),
    ],
)
def test_options_that_cannot_work_are_refused(folder: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["chat", str(folder), *options], input="hello ?\n")
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lines.txt", "\ufeffI have a dog.\r\n\r\n 我是厨师。 \r\n"),
        ("list.json", '["I have a dog.", "我是厨师。"]\n'),
        ("rows.jsonl", '{"persona": ["I have a dog.", "我是厨师。"], "messages": []}\n{"messages": []}\n'),
        ("rows.json", '[{"persona": ["I have a dog.", "我是厨师。"], "messages": []},\n{"messages": []}]'),
        ("talk.txt", "1 your persona: I have a dog.\n2 your persona: 我是厨师。\n3 hi\tyo\n1 hi\tyo\n"),
        ("pal.json", '[[["I have a dog.", "我是厨师。"], ["hi"], "yo", [-1]]]'),
        ("pal.txt", '[["I have a dog.", "我是厨师。"], ["hi"], "yo", [-1]]\n[[], ["a"], "b", [-1]]'),
        ("table.csv", 'persona,messages\n"I have a dog.\n我是厨师。",hi\n'),
    ],
)
def test_a_persona_file_is_of_any_of_three_kinds(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert read_persona(tmp_path / name) == ("I have a dog.", "我是厨师。")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n \n", "holds no persona line"),
        ("[1, 2]", "no list of strings"),
        ('["a", {"b": 1}]', "no list of strings"),
        ('[{"messages": []}, "a"]', "persona:1: line: is a string; write an object"),
        ("1 hi\n2 so?\tyo\n", "holds no persona line"),
        ('["a", ', "not JSON"),
        ('{"messages": 3}', "messages: is a number"),
        (b"caf\xe9", "is not UTF-8"),
    ],
)
def test_a_persona_file_that_is_none_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "persona"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(PersonalignError, match=message):
        read_persona(path)


# What is typed interrupts only the processes that the terminal controls.
IN_TERMINAL = """
import fcntl, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
from personalign.cli.main import main
main()
"""


class Keyboard:
    """The command in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self._terminal, other = pty.openpty()
        environment = {
            **os.environ,
            "TERM": "xterm",
            "COLUMNS": "200",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            env=environment,
            start_new_session=True,
        )
        os.close(other)
        self.screen = ""

    def wait_for(self, text: str, *, seconds: float = 120.0) -> None:
        """Until `text` appears after what was waited for before."""
        deadline = time.monotonic() + seconds
        while text not in self.screen:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self.screen!r}"
            self.screen += os.read(self._terminal, 4096).decode("utf-8", "replace")
        self.screen = self.screen.split(text, 1)[1]

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def interrupt(self) -> None:
        # input() does not notice a signal that comes in the instant between its prompt and its waiting.
        time.sleep(0.3)
        self.press("\x03")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


def test_keys_stop_a_reply_and_leave_the_chat(tmp_path: Path) -> None:
    endless = {"strategy": "sample", "top_k": 3, "max_new_tokens": 7000}
    loaded = chat_model(max_positions=8192, ends=False)
    saved = tmp_path / "saved.jsonl"
    with Keyboard("chat", str(publish(tmp_path / "endless", loaded, decoding=endless)), *LINES) as keyboard:
        keyboard.wait_for("you> ")
        keyboard.press("any pets ?\n")
        keyboard.wait_for("bot> ")
        keyboard.interrupt()
        keyboard.wait_for("(stopped)")
        keyboard.wait_for("you> ")
        keyboard.interrupt()
        keyboard.wait_for("(Ctrl-C again or Ctrl-D to quit)")
        keyboard.press("你好 🐶\n")
        keyboard.wait_for("bot> ")
        keyboard.interrupt()
        keyboard.wait_for("(stopped)")
        keyboard.wait_for("you> ")
        keyboard.press(f"/save {saved}\n")
        keyboard.wait_for("(saved: ")
        keyboard.wait_for("you> ")
        keyboard.interrupt()
        keyboard.wait_for("to quit)")
        keyboard.wait_for("you> ")
        keyboard.interrupt()
        assert keyboard.process.wait(timeout=30) == 0
    [dialogue] = read_dialogues(saved)
    assert [turn.role for turn in dialogue.messages] == ["user", "assistant"] * 2
    assert dialogue.messages[2].content == "你好 🐶"
    assert all(turn.content for turn in dialogue.messages)


def test_the_end_of_input_ends_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_line(prompt: str, lines: list[str] = [" caf\udcc3 "]) -> str:  # noqa: B006  (the lines still to come)
        assert prompt == "you> "
        if not lines:
            raise EOFError
        return lines.pop()

    monkeypatch.setattr("builtins.input", read_line)
    terminal = Terminal(interactive=True)
    assert terminal.read() == "caf\N{REPLACEMENT CHARACTER}"
    assert terminal.read() is None


def test_bytes_that_are_no_text_do_not_end_the_chat() -> None:
    program = (
        "from personalign.cli._terminal import Terminal\n"
        "terminal = Terminal(interactive=False)\n"
        "print(ascii([terminal.read(), terminal.read(), terminal.read()]))\n"
    )
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "utf-8:strict",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    result = subprocess.run(
        [sys.executable, "-c", program],
        input=b"caf\xc3\nhello\n",
        capture_output=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode().strip() == r"['caf\ufffd', 'hello', None]"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("3 dogs live with me .\n2 cats too .\n", ("3 dogs live with me .", "2 cats too .")),
        (
            "i like\u2028bees .\x0cand\x85wax .\r\ni bake .\n",
            ("i like\u2028bees .\x0cand\x85wax .", "i bake ."),
        ),
    ],
)
def test_plain_lines_end_where_a_line_ends(text: str, lines: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "her.txt").write_bytes(text.encode())
    assert read_persona(tmp_path / "her.txt") == lines


def test_half_a_character_among_the_lines_is_told(folder: Path) -> None:
    output = talk(folder, options=["--line", "i have a dog .", "--line", "caf\udce9"], code=1)
    assert "error: --line: 'caf\\udce9' holds half a character" in output


def test_a_conversation_is_not_saved_as_a_table(folder: Path, tmp_path: Path) -> None:
    output = talk(folder, f"/save {tmp_path / 'talk.csv'}")
    assert "talk.csv: what is written is no .csv file" in output
    assert list(tmp_path.iterdir()) == []
