"""Persona lines from what a user names: a file of any of three kinds, or the lines themselves."""

import os
import re
from pathlib import Path

from personalign.data.faults import error_of
from personalign.data.formats import is_table, read_dialogues, recognise
from personalign.data.text import decode_json, half_character, lines_of, read_text
from personalign.errors import PersonalignError

_OBJECTS = re.compile(r"\s*(\[\s*)?\{")
# A line of text may begin with a number too ("3 dogs live with me"): ParlAI's names a persona or has a tab.
_PARLAI = re.compile(r"^[0-9]+ (your persona:|partner's persona:|[^\n]*\t)", re.MULTILINE)


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
    if is_table(path):
        return checked(read_dialogues(path)[0].persona, source=str(path))
    text, faults = read_text(path)
    if faults:
        raise error_of(faults)
    if _holds_dialogues(text):
        lines = read_dialogues(path)[0].persona
    elif text.lstrip().startswith("["):
        lines = _json_list(text, path)
    else:
        lines = tuple(line for _, line in lines_of(text))
    return checked(lines, source=str(path))


def _holds_dialogues(text: str) -> bool:
    """Whether a text is of a dialogue format, and neither a list of strings nor plain lines."""
    if _OBJECTS.match(text):
        return True
    format = recognise(text)
    return format == "pal" or (format == "parlai" and _PARLAI.search(text) is not None)


def checked(lines: tuple[str, ...], *, source: str) -> tuple[str, ...]:
    """The lines without blanks around them, empty ones left out.

    Raises PersonalignError where none is left, and for one with half a character, as a shell hands on bytes that are
    no text.
    """
    kept = tuple(line.strip() for line in lines if line.strip())
    for line in kept:
        if half := half_character(line):
            raise PersonalignError(f"{source}: {line!r} {half}; write it in UTF-8")
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
