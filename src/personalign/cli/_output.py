"""What the commands share when they print: one JSON object for machines, progress for people."""

import contextlib
import dataclasses
import json
import math
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

SECONDS_BETWEEN_LINES = 10.0
# Left to the terminal, they would move its cursor or change its colours.
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
# JSON itself leaves these as they are; in it they stand in strings alone.
_ESCAPED = {code: f"\\u{code:04x}" for code in range(127, 160)}

Item = TypeVar("Item")


def emit_json(result: Mapping[str, Any]) -> None:
    """Print `result` as one line of JSON on standard output; call it last.

    Paths become strings, dataclasses objects, tuples arrays; numbers that JSON cannot write (NaN, infinities)
    become null. Anything else that JSON does not know is a TypeError.
    """
    text = json.dumps(_plain(result), ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text.translate(_ESCAPED) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return value


def quieten() -> None:
    """Keep transformers from talking over our own words and bars. Imports it: call it where it is needed anyway."""
    import warnings

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def program() -> str:
    """What to type for `personalign`: its path where the environment that holds it is not activated."""
    here = Path(sys.executable).with_name("personalign")
    if shutil.which("personalign") or not here.exists():
        return "personalign"
    return os.path.relpath(here) if here.is_relative_to(Path.cwd()) else str(here)


def command_line(*words: object) -> str:
    """What to type for one of our commands, its words quoted as a shell needs them."""
    return shlex.join([program(), *map(str, words)])


def print_command(console: Console, label: str, *words: object) -> None:
    """Print what to type, after a label: to be copied, and so without line breaks, whatever a path in it looks like."""
    console.print(f"{label} {command_line(*words)}", markup=False, emoji=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table of results, as wide as it is where no terminal sets a width; there long words go on below."""
    console = output_console()
    if not console.file.isatty():
        wide = console.options.update(max_width=sys.maxsize)
        console.width = max(console.width, console.measure(table, options=wide).maximum)
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)


def clean(text: str) -> str:
    """Somebody else's text without the signs that a terminal would obey."""
    return text.translate(_CONTROL)


def output_console() -> Console:
    """For results: standard output, without inventing colours where it is not a terminal."""
    return Console(file=sys.stdout, highlight=False, emoji=False)


def message_console() -> Console:
    """For progress and remarks: standard error, so that results can be piped."""
    return Console(file=sys.stderr, highlight=False, emoji=False)


@contextlib.contextmanager
def progress(
    description: str, *, total: int, console: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Show how far a task is and how long it still takes; yields `advance(steps)`.

    A bar on a terminal; elsewhere a plain line every ten seconds at most, and one at the end.
    """
    console = console or message_console()
    if console.is_terminal:
        with _bar(console) as bar:
            task = bar.add_task(description, total=total)
            yield lambda steps: bar.advance(task, steps)
    else:
        lines = _Lines(description, total=total, console=console)
        yield lines.advance
        lines.finish()


def track(
    items: Iterable[Item], description: str, *, total: int, console: Console | None = None
) -> Iterator[Item]:
    """Yield `items`, showing progress as each one is done with."""
    with progress(description, total=total, console=console) as advance:
        for item in items:
            yield item
            advance(1)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


class _Lines:
    def __init__(self, description: str, *, total: int, console: Console) -> None:
        self._description = description
        self._total = total
        self._console = console
        self._done = 0
        self._started = time.monotonic()
        self._printed = self._started
        self._first: tuple[float, int] | None = None

    def advance(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if self._first is None:
            self._first = now, self._done
        if self._done < self._total and now - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = now
            self._print(f"{clock(now - self._started)} elapsed, {clock(self._left(now))} left")

    def _left(self, now: float) -> float:
        """By the time since the first advance, which may be over what was done before an interruption."""
        assert self._first is not None
        since, before = self._first
        elapsed, done = (
            (now - since, self._done - before) if self._done > before else (now - self._started, self._done)
        )
        return elapsed / done * (self._total - self._done) if done else math.inf

    def finish(self) -> None:
        self._print(f"{clock(time.monotonic() - self._started)} elapsed")

    def _print(self, times: str) -> None:
        share = self._done / self._total if self._total else 1.0
        line = f"{self._description}: {self._done}/{self._total} ({share:.0%}), {times}"
        self._console.print(line, markup=False, emoji=False, soft_wrap=True)


def clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`; `?` where they are not known."""
    if not math.isfinite(seconds):
        return "?"
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_seconds:02}" if hours else f"{minutes}:{whole_seconds:02}"
