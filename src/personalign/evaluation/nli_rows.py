"""Rows of NLI data: files of premise, hypothesis and label, and the texts of any file."""

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalign.data.faults import error_of
from personalign.data.text import decode_json, read_json_values
from personalign.errors import PersonalignError
from personalign.evaluation.judge import ENTAILMENT, class_of

_NOT_A_WORD = re.compile(r"[\W_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*")


@dataclass(frozen=True, slots=True)
class NliRow:
    """`label` is an index into `personalign.evaluation.judge.LABELS`."""

    premise: str
    hypothesis: str
    label: int
    split: str = "train"


def normalise(text: str) -> str:
    """Lower-cased words with single spaces between: what makes two sentences the same sentence."""
    return _NOT_A_WORD.sub(" ", text.lower()).strip()


def read_nli_rows(path: Path | str) -> list[NliRow]:
    """Rows of a JSON list or JSON Lines file, `.gz` or not, in any of the shapes that the field uses.

    `{premise, hypothesis, label, split?}`, or `{sentence1, sentence2, gold_label or label}` as SNLI, MNLI and DialogueNLI
    have it. Labels may be DialogueNLI's (positive, neutral, negative) or the usual ones; rows labelled `-`, on which
    SNLI's annotators did not agree, are left out.
    Raises PersonalignError for a row without these fields or with an unknown label.
    """
    rows = []
    for place, row in read_objects(path):
        first, second = ("sentence1", "sentence2") if "sentence1" in row else ("premise", "hypothesis")
        named = "gold_label" if "gold_label" in row else "label"
        premise, hypothesis, label = (_text(row, field, place) for field in (first, second, named))
        if label == "-":
            continue
        try:
            number = class_of(label)
        except PersonalignError as error:
            raise PersonalignError(f"{place}, field '{named}': {error}") from None
        rows.append(NliRow(premise, hypothesis, number, split=str(row.get("split", "train"))))
    if not rows:
        raise PersonalignError(f"{path} holds no rows; give a file of NLI pairs")
    return rows


def read_entailed_pairs(path: Path | str) -> list[NliRow]:
    """Rows `{persona, response, split?}`: replies known to entail a persona line."""
    return [
        NliRow(
            _text(row, "persona", place),
            _text(row, "response", place),
            ENTAILMENT,
            split=str(row.get("split", "train")),
        )
        for place, row in read_objects(path)
    ]


def sentences_in(path: Path | str) -> frozenset[str]:
    """Every text in a file, whatever its key, and every sentence of each text; all normalised."""
    found: set[str] = set()
    for _, row in read_objects(path):
        for text in _texts(row):
            found |= sentences_of(text)
    return frozenset(found)


def sentences_of(text: str) -> set[str]:
    """A text and each of its sentences, normalised."""
    return {normalise(part) for part in (text, *_SENTENCE_END.split(text))} - {""}


def read_objects(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, object) for each JSON object of a file; places are "FILE, line 3" or "FILE, item 3".

    Raises PersonalignError for what cannot be read, also for what could not be written again (NaN, half a character).
    """
    try:
        content = Path(path).read_bytes()
        text = (gzip.decompress(content) if str(path).endswith(".gz") else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise PersonalignError(
            f"{path} cannot be read: {error}; give a UTF-8 JSON or JSON Lines file"
        ) from error
    if text.lstrip().startswith("["):
        values = read_json_values(text, file=str(path))
        if values.faults:
            raise error_of(values.faults)
        numbered = ((f"{path}, item {number}", row.value) for number, row in enumerate(values.rows, start=1))
    else:
        numbered = (
            (f"{path}, line {number}", _parse(line, place=f"{path}, line {number}"))
            for number, line in enumerate(text.split("\n"), start=1)
            if line.strip()
        )
    for place, item in numbered:
        if not isinstance(item, dict):
            raise PersonalignError(f"{place}: expected a JSON object, found {type(item).__name__}")
        yield place, item


def _parse(text: str, *, place: str) -> Any:
    value, problem = decode_json(text)
    if problem is not None:
        raise PersonalignError(f"{place}: {problem}; write one JSON object per line")
    return value


def _text(row: Mapping[str, Any], field: str, place: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise PersonalignError(f"{place}, field '{field}': expected a text, found {value!r}")
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
