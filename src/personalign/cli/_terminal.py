"""The terminal of a chat: lines in, pieces of text out, and a Ctrl-C that stops what it should."""

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import FrameType
from typing import Literal

from rich.text import Text

from personalign.cli._output import clean, output_console

PROMPT = "you> "


class Terminal:
    """Reads what the user writes and shows what is said. Use it as `with terminal.listening(): ...`.

    Where `interactive` is False, lines are read from standard input without prompting.
    """

    def __init__(self, *, interactive: bool) -> None:
        self._console = output_console()
        self._interactive = interactive
        self._state: Literal["idle", "reading", "streaming", "working"] = "idle"
        self._presses = 0
        self._presses_before = 0
        if isinstance(sys.stdin, io.TextIOWrapper):
            # Most locales are strict, and one broken character would end the chat.
            sys.stdin.reconfigure(errors="surrogateescape")
        if self._interactive and find_spec("readline") is not None:
            # Imported, it gives input() a line editor and a history.
            import_module("readline")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C is ours inside, and what it was before afterwards."""
        before = signal.signal(signal.SIGINT, self._interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def replying(self, *, streams: bool) -> Iterator[None]:
        """Ctrl-C inside stops the reply: at its next token if it streams, at once otherwise or the second time.

        Either way a KeyboardInterrupt comes out.
        """
        self._presses_before = self._presses
        self._state = "streaming" if streams else "working"
        try:
            yield
        finally:
            self._state = "idle"

    def read(self) -> str | None:
        """The next line, without blanks around it; None at the end of input, or at Ctrl-C twice in a row."""
        self._presses_before = self._presses
        while True:
            try:
                self._state = "reading"
                line = self._line() if self._stops_wanted() < 2 else None
                self._state = "idle"
            except KeyboardInterrupt:
                if not self._interactive:
                    return None
                if self._stops_wanted() < 2:
                    self.show("\n(Ctrl-C again or Ctrl-D to quit)", style="dim")
                continue
            if line is None and self._interactive:
                self.show("")
            return line

    def show(self, text: str, *, style: str = "") -> None:
        self._console.print(Text(clean(text)), style=style, soft_wrap=True)

    def stream(self, piece: str, *, label: str = "") -> None:
        """Show a piece of a reply, after a label. Raises KeyboardInterrupt after it if Ctrl-C was pressed."""
        if piece:
            shown = Text(label, style="bold").append(clean(piece), style="not bold")
            self._console.print(shown, end="", soft_wrap=True)
            self._console.file.flush()
        if self._stops_wanted():
            raise KeyboardInterrupt

    def _line(self) -> str | None:
        if self._interactive:
            try:
                line = input(PROMPT)
            except EOFError:
                return None
        else:
            line = sys.stdin.readline()
            if not line:
                return None
        # Bytes that are no text (a half-deleted character) would stop every tokenizer.
        return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()

    def _stops_wanted(self) -> int:
        """How often Ctrl-C was pressed since the line or the reply began."""
        return self._presses - self._presses_before

    def _interrupted(self, signal_number: int, frame: FrameType | None) -> None:
        at_once = self._state in ("reading", "working") or (
            self._state == "streaming" and self._stops_wanted()
        )
        self._presses += 1
        if at_once:
            # Nothing expects a second one while the first is being handled.
            self._state = "idle"
            raise KeyboardInterrupt
