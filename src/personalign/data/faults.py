"""What is wrong with a file, where, and what to write instead."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from personalign.errors import PersonalignError

SHOWN = 10
# Where no command lists all: enough to mend a file by, and not a screen for each row of a long table.
LISTED = 100


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault. `line` counts from 1 (rows of a table count so too); 0 means the file as a whole."""

    file: str
    line: int
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.problem}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Row:
    """A dialogue in the keys of the native format, not yet checked, and the line that it starts on."""

    line: int
    value: Any


@dataclass(frozen=True, slots=True)
class Rows:
    """What a reader found: rows for the native check, and faults of the source's own syntax."""

    rows: tuple[Row, ...] = ()
    faults: tuple[Fault, ...] = ()


def error_of(faults: Sequence[Fault], *, command: Sequence[str] | None = None) -> PersonalignError:
    """The error that stands for `faults`: the first of them in full, and their count.

    `command` is what to type to see all, word by word. Where there is none, more of them are shown.
    """
    most = LISTED if command is None else SHOWN
    shown = "\n".join(f"  {fault}" for fault in faults[:most])
    hidden = len(faults) - most
    advice = "" if command is None else f"; `{shlex.join(command)}` lists all"
    tail = f"\n  ... and {hidden:,} more{advice}" if hidden > 0 else ""
    noun = "fault" if len(faults) == 1 else "faults"
    return PersonalignError(f"{faults[0].file} was not read: {len(faults)} {noun}\n{shown}{tail}")


def kind(value: object) -> str:
    """The JSON name of what `value` is, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object"


def excerpt(text: str, *, width: int = 60) -> str:
    """`text` as one quoted line that fits into a message."""
    return repr(text if len(text) <= width else text[: width - 3] + "...")
