"""A conversation in the terminal: messages, replies, and the commands that begin with a slash."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalign._files import write_jsonl
from personalign.cli._persona import checked, read_persona
from personalign.cli._terminal import Terminal
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import check_writable
from personalign.data.native import dialogue_to_row
from personalign.errors import PersonalignError

if TYPE_CHECKING:
    from personalign.decoding.chat import ChatSession
    from personalign.decoding.generation import DecodingSettings
    from personalign.decoding.selection import Choice

HELP = """\
/persona              show whom the model plays
/persona FILE         play somebody else; the conversation so far stays
/persona LINE | LINE  the same, with the lines themselves
/undo                 take back your last message and its reply
/retry                another reply to your last message
/save FILE            write the conversation as JSON Lines, which `personalign data show` reads
/help                 show this
/quit                 leave; so does Ctrl-D

Ctrl-C stops a reply and keeps what was said of it."""

# What a second attempt is drawn with where the first was not drawn at all.
RETRY_TOP_P = 0.9


class Conversation:
    """The dialogue so far, and per reply the line that it rests on; no command touches what was `told` before."""

    def __init__(
        self,
        session: "ChatSession",
        terminal: Terminal,
        *,
        persona: tuple[str, ...],
        told: tuple[Turn, ...] = (),
    ) -> None:
        self.dialogue = Dialogue("chat", persona, ())
        self._told = told
        self._session = session
        self._terminal = terminal
        self._selected: list[dict[str, Any] | None] = []
        self._retries = 0
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "persona": self._persona,
            "undo": self._undo,
            "retry": self._retry,
            "save": self._save,
            "help": self._help,
        }

    def run(self) -> None:
        """Until the input ends or /quit. What the user can mend is told, and changes nothing."""
        with self._terminal.listening():
            while (text := self._terminal.read()) is not None and text.strip().lower() != "/quit":
                before = self.dialogue, list(self._selected)
                try:
                    self._take(text)
                except (PersonalignError, OSError) as error:
                    self.dialogue, self._selected = before
                    self._terminal.show(f"error: {error}", style="red")

    def row(self) -> dict[str, Any]:
        """The native row; `selected` holds, per reply, the line that it rests on and its probability."""
        return dialogue_to_row(replace(self.dialogue, extra={"selected": self._selected}))

    def _take(self, text: str) -> None:
        if text.startswith("/"):
            name, _, rest = text[1:].partition(" ")
            name = name.lower()
            if name == "quit":
                raise PersonalignError("/quit takes nothing behind it")
            if name not in self._commands:
                raise PersonalignError(f"there is no command /{name}; /help lists those there are")
            self._commands[name](rest.strip())
        elif text:
            self._add("user", text)
            self._retries = 0
            self._answer(self._session.decoding)

    def _answer(self, decoding: "DecodingSettings") -> None:
        pieces: list[str] = []

        def on_text(piece: str) -> None:
            label = "bot> " if piece and not any(pieces) else ""
            pieces.append(piece)
            terminal.stream(piece, label=label)

        terminal, stopped = self._terminal, False
        choice = None
        try:
            with terminal.replying(streams=self._session.streams(decoding)):
                asked = replace(self.dialogue, messages=(*self._told, *self.dialogue.messages))
                choice = self._session.select(asked)
                self._show_choice(choice)
                self._session.reply(asked, choice, decoding=decoding, on_text=on_text)
        except KeyboardInterrupt:
            stopped = True
        text = "".join(pieces).strip()
        if text:
            terminal.show("")
            self._add("assistant", text)
            self._selected.append(_record(self.dialogue, choice))
        if stopped:
            terminal.show(
                "(stopped)" if text else "(stopped before the first word; /retry asks again)", style="dim"
            )
        elif not text:
            terminal.show("(no words came; /retry asks again)", style="dim")

    def _show_choice(self, choice: "Choice | None") -> None:
        record = _record(self.dialogue, choice)
        if record is not None:
            line = "no line matters" if record["line"] is None else record["line"]
            self._terminal.show(f"     {line} ({record['probability']:.0%})", style="dim")

    def _add(self, role: str, text: str) -> None:
        turn = Turn("user" if role == "user" else "assistant", text)
        self.dialogue = replace(self.dialogue, messages=(*self.dialogue.messages, turn))

    def _cut(self, length: int) -> None:
        self.dialogue = replace(self.dialogue, messages=self.dialogue.messages[:length])
        del self._selected[len(self.dialogue.reply_indices()) :]

    def _last_message(self) -> int:
        """Index of the user's last message."""
        for index in reversed(range(len(self.dialogue.messages))):
            if self.dialogue.messages[index].role == "user":
                return index
        raise PersonalignError("nothing was said yet; write a message first")

    # Commands ---------------------------------------------------------------------------------------------

    def _persona(self, text: str) -> None:
        if self._told:
            raise PersonalignError(
                "this model is told somebody's sessions, and no persona; begin the chat with --line to play one"
            )
        if text:
            path = Path(text)
            suffix_of_file = path.suffix in (".txt", ".json", ".jsonl")
            named = "|" not in text and (suffix_of_file or os.path.isfile(os.path.expanduser(path)))
            lines = read_persona(path) if named else checked(tuple(text.split("|")), source="/persona")
            self.dialogue = replace(self.dialogue, persona=lines)
        self.show_persona()

    def show_persona(self) -> None:
        for line in self.dialogue.persona or ("(no persona; /persona LINE | LINE gives one)",):
            self._terminal.show(f"  {line}", style="cyan")

    def _undo(self, _: str) -> None:
        last = self._last_message()
        taken = self.dialogue.messages[last].content
        self._cut(last)
        self._terminal.show(f"(taken back: {taken})", style="dim")

    def _retry(self, _: str) -> None:
        self._cut(self._last_message() + 1)
        self._retries += 1
        decoding = self._session.decoding
        if decoding.strategy != "sample":
            self._terminal.show(f"(drawn at random: {decoding.strategy} would repeat itself)", style="dim")
            decoding = replace(decoding, strategy="sample", top_p=RETRY_TOP_P)
        self._answer(replace(decoding, seed=decoding.seed + self._retries))

    def _save(self, text: str) -> None:
        if not text:
            raise PersonalignError("/save needs a file to write; write /save chat.jsonl")
        try:
            path = Path(text).expanduser()
        except RuntimeError:
            raise PersonalignError(f"{text}: there is no such home folder; name another file") from None
        check_writable(path)
        if not path.parent.is_dir():
            raise PersonalignError(f"{path.parent} is no folder; make it first, or name another file")
        if path.exists() and path not in self._saved:
            raise PersonalignError(f"{path} exists already; name another file")
        write_jsonl(path, [self.row()])
        self._saved.add(path)
        self._terminal.show(f"(saved: {path})", style="dim")

    def _help(self, _: str) -> None:
        self._terminal.show(HELP)


def _record(dialogue: Dialogue, choice: "Choice | None") -> dict[str, Any] | None:
    if choice is None:
        return None
    at = len(dialogue.persona) if choice.line is None else choice.line
    line = None if choice.line is None else dialogue.persona[choice.line]
    return {"line": line, "probability": round(choice.probabilities[at], 4)}
