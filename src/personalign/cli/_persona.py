"""Persona lines from what a user names: a file of any of three kinds, or the lines themselves."""

import os
from pathlib import Path

from personalign.data.faults import error_of
from personalign.data.formats import read_dialogues
from personalign.data.text import decode_json, read_text
from personalign.errors import PersonalignError


def read_persona(path: Path) -> tuple[str, ...]:
    """The lines of a text file, the strings of a JSON list, or the persona of a file's first dialogue.

    Raises PersonalignError for a file that is none of these or holds no line.
    """
    # Path's own ways raise for a user who is not there and for a name that is too long.
    path = Path(os.path.expanduser(path))
    if not os.path.isfile(path):
        raise PersonalignError(
            f"{path}: there is no such file; name one with a persona line per line of text"
        )
    text, faults = read_text(path)
    if faults:
        raise error_of(faults)
    start = text.lstrip()[:1]
    if start == "{":
        lines = read_dialogues(path)[0].persona
    elif start == "[":
        lines = _json_list(text, path)
    else:
        lines = tuple(text.splitlines())
    return checked(lines, source=str(path))


def checked(lines: tuple[str, ...], *, source: str) -> tuple[str, ...]:
    """The lines without blanks around them, empty ones left out; PersonalignError where none is left."""
    kept = tuple(line.strip() for line in lines if line.strip())
    if not kept:
        raise PersonalignError(f"{source}: holds no persona line; write a sentence such as 'I have a dog.'")
    return kept


def _json_list(text: str, path: Path) -> tuple[str, ...]:
    value, problem = decode_json(text.strip())
    if problem is not None:
        raise PersonalignError(f"{path}: {problem}; mend it, or write one persona line per line of text")
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise PersonalignError(f'{path}: is no list of strings; write ["I have a dog.", "I work at night."]')
    return tuple(value)
