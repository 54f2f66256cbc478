"""The terminal of a chat: lines in, pieces of text out, and a Ctrl-C that stops what it should."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import FrameType
from typing import Literal

from rich.text import Text

from personalign.cli._output import output_console

PROMPT = "you> "
# Left to the terminal, they would move its cursor or change its colours.
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Terminal:
    """Reads what the user writes and shows what is said. Use it as `with terminal.listening(): ...`.

    Where standard input is no terminal, its lines are read without prompting.
    """

    def __init__(self) -> None:
        self._console = output_console()
        self._interactive = sys.stdin.isatty()
        self._state: Literal["idle", "reading", "streaming", "working"] = "idle"
        self._stop_wanted = False
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
        self._stop_wanted = False
        self._state = "streaming" if streams else "working"
        try:
            yield
        finally:
            self._state = "idle"

    def read(self) -> str | None:
        """The next line, without blanks around it; None at the end of input, or at Ctrl-C twice in a row."""
        for attempt in range(2):
            try:
                self._state = "reading"
                line = self._line()
            except KeyboardInterrupt:
                if not self._interactive:
                    return None
                self.show("" if attempt else "\n(Ctrl-C again or Ctrl-D to quit)", style="dim")
                continue
            finally:
                self._state = "idle"
            if line is None and self._interactive:
                self.show("")
            return line
        return None

    def show(self, text: str, *, style: str = "") -> None:
        self._console.print(Text(_clean(text)), style=style, soft_wrap=True)

    def stream(self, piece: str, *, style: str = "") -> None:
        """Show a piece of a reply. Raises KeyboardInterrupt after it if Ctrl-C was pressed."""
        if piece:
            self._console.print(Text(_clean(piece)), style=style, end="", soft_wrap=True)
            self._console.file.flush()
        if self._stop_wanted:
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

    def _interrupted(self, signal_number: int, frame: FrameType | None) -> None:
        at_once = self._state in ("reading", "working") or (self._state == "streaming" and self._stop_wanted)
        self._stop_wanted = True
        if at_once:
            raise KeyboardInterrupt


def _clean(text: str) -> str:
    return text.translate(_CONTROL)
