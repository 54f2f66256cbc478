"""How a run tells a terminal what it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from personalign._ranks import ALONE, Ranks
from personalign.cli import _output

if TYPE_CHECKING:
    from personalign.methods.steps import Advance


class TerminalReporter:
    """Remarks and progress bars on standard error; of several processes the first alone speaks."""

    def __init__(self, console: Console | None = None, *, ranks: Ranks = ALONE) -> None:
        self._console = console or _output.message_console()
        if not ranks.main:
            self._console = Console(quiet=True)

    def say(self, text: str) -> None:
        self._console.print(_output.clean(text), markup=False, emoji=False, soft_wrap=True)

    @contextmanager
    def task(self, description: str, total: int) -> Iterator["Advance"]:
        with _output.progress(description, total=total, console=self._console) as advance:
            yield advance
