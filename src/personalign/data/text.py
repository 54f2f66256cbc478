"""Bytes of a file -> text -> JSON values, with every fault placed at its line."""

import gzip
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

from personalign.data.faults import Fault, Row, Rows, excerpt

# csv's own limit is 128 KiB, less than a dialogue or a long message; this fits into a C long wherever it runs.
LONGEST_CELL = 2**31 - 1
_GZIP_MAGIC = b"\x1f\x8b"
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_TO_UTF8 = "convert the file to UTF-8, for example with `iconv -f latin1 -t utf-8 FILE`"
# A list of objects, or a list of lists that begin with a list, is the whole file; anything else that
# begins with a bracket is one list per line.
_ARRAY = re.compile(r"\s*\[\s*(\{|\]|\[\s*\[)")
_GAP = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_ONE_PER_LINE = "write one JSON object per line"


def read_text(path: Path) -> tuple[str, tuple[Fault, ...]]:
    """The text of `path`, or the faults that keep it from being text.

    gzip is recognised by its first bytes, whatever the name. UTF-8 with or without a byte order mark and
    UTF-16 with one are read; nothing is guessed. Line ends are left as they are.
    """
    file = str(path)
    data = path.read_bytes()
    if data.startswith(_GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            problem = f"the gzip data is damaged or cut off ({error})"
            return "", (Fault(file, 0, "file", problem, "copy or download it again; nothing was read"),)
    text, faults = decode_text(data, file)
    nul = text.find("\x00")
    if nul >= 0 and not faults:
        problem = f"NUL character at character {nul}: UTF-16 or UTF-32 without a byte order mark, or no text"
        return "", (Fault(file, _line_at(text, nul), "encoding", problem, _TO_UTF8),)
    return text, faults


def decode_text(data: bytes, file: str) -> tuple[str, tuple[Fault, ...]]:
    encoding = _UTF16.get(data[:2])
    if encoding is not None:
        try:
            return data[2:].decode(encoding), ()
        except UnicodeDecodeError as error:
            problem = f"not {encoding.upper()} at byte offset {error.start + 2}"
            return "", (Fault(file, 0, "encoding", problem, _TO_UTF8),)
    start = len(_UTF8_BOM) if data.startswith(_UTF8_BOM) else 0
    try:
        return data[start:].decode("utf-8"), ()
    except UnicodeDecodeError:
        return "", tuple(_utf8_faults(data, file))


def _utf8_faults(data: bytes, file: str) -> list[Fault]:
    faults = []
    offset = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            place = offset + error.start
            problem = f"byte 0x{data[place]:02x} at byte offset {place} is not UTF-8"
            faults.append(Fault(file, number, "encoding", problem, _TO_UTF8))
        offset += len(line) + 1
    return faults


def _line_at(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def lines_of(text: str) -> list[tuple[int, str]]:
    """Numbered lines that hold something. Only LF and CRLF end a line: U+2028 and its like are content."""
    numbered = enumerate((line.removesuffix("\r") for line in text.split("\n")), start=1)
    return [(number, line) for number, line in numbered if line.strip()]


def read_json_values(text: str, *, file: str) -> Rows:
    """The values of a JSON Lines text, or of one JSON array. Faults of one line do not hide the next's.

    Refused, because writers and readers disagree about them: a key twice in one object, NaN and infinities,
    half of a surrogate pair.
    """
    if _ARRAY.match(text):
        return _array_values(text, file)
    rows = []
    faults = []
    for number, line in lines_of(text):
        value, problem = decode_json(line)
        if problem is None:
            rows.append(Row(number, value))
        else:
            faults.append(Fault(file, number, "line", problem, _ONE_PER_LINE))
    return Rows(tuple(rows), tuple(faults))


def _array_values(text: str, file: str) -> Rows:
    rows: list[Row] = []
    place = _skip_gap(text, text.index("[") + 1)
    line, counted = 1, 0
    separator = text[place : place + 1]
    while separator != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = _DECODER.raw_decode(text, place)
            _refuse_half_characters(value)
        except (ValueError, RecursionError) as error:
            return _broken_array(rows, Fault(file, line, "line", _problem_of(error), "mend the JSON here"))
        rows.append(Row(line, value))
        place = _skip_gap(text, place)
        separator = text[place : place + 1]
        if separator not in {",", "]"} or not separator:
            problem = f"expected ',' or ']' after the value, found {excerpt(text[place : place + 20])}"
            return _broken_array(rows, Fault(file, line, "line", problem, "mend the JSON here"))
        if separator == ",":
            place = _skip_gap(text, place + 1)
    rest = text[place + 1 :].strip()
    if rest:
        problem = f"text after the closing bracket: {excerpt(rest)}"
        return _broken_array(rows, Fault(file, _line_at(text, place), "line", problem, "take it out"))
    return Rows(tuple(rows))


def _broken_array(rows: list[Row], fault: Fault) -> Rows:
    return Rows(tuple(rows), (fault,))


def _skip_gap(text: str, place: int) -> int:
    gap = _GAP.match(text, place)
    return gap.end() if gap else place


def decode_json(text: str) -> tuple[Any, str | None]:
    """The JSON value of `text` and None, or None and the problem."""
    try:
        value = _DECODER.decode(text)
        _refuse_half_characters(value)
    except (ValueError, RecursionError) as error:
        return None, _problem_of(error)
    return value, None


def _problem_of(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    if isinstance(error, RecursionError):
        return "not readable JSON: nested too deeply"
    return f"not readable JSON: {error}"


def half_character(text: str) -> str | None:
    """The problem of a text with half of a surrogate pair, which no file can hold."""
    found = _SURROGATE.search(text)
    return f"holds half a character, {found[0]!r}, at character {found.start()}" if found else None


def _refuse_half_characters(value: Any) -> None:
    if _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("an escape such as \\ud83d stands for half a character")


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} occurs twice in one object")
    return keys


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is too large for a number")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_distinct_keys, parse_constant=_refuse_constant, parse_float=_finite
)
