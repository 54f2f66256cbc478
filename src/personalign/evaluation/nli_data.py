"""Rows of NLI data, and the training rows of a judge with what must stay out of them taken out."""

import gzip
import hashlib
import json
import random
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from personalign.errors import PersonalignError
from personalign.evaluation.judge import ENTAILMENT, NEUTRAL, class_of

Part = Literal["a", "b", "all"]

VALIDATION_SPLITS = ("valid", "validation", "dev")
_NOT_A_WORD = re.compile(r"[\W_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*")


@dataclass(frozen=True, slots=True)
class NliRow:
    """`label` is an index into `personalign.evaluation.judge.LABELS`."""

    premise: str
    hypothesis: str
    label: int
    split: str = "train"


@dataclass(frozen=True, slots=True)
class JudgeData:
    """What a judge learns from and is checked on; `counts` says how many rows came and went, and why."""

    train: tuple[NliRow, ...]
    valid: tuple[NliRow, ...]
    counts: Mapping[str, int]


def normalise(text: str) -> str:
    """Lower-cased words with single spaces between: what makes two sentences the same sentence."""
    return _NOT_A_WORD.sub(" ", text.lower()).strip()


def read_nli_rows(path: Path | str) -> list[NliRow]:
    """Rows `{premise, hypothesis, label, split?}` of a JSON list or JSON Lines file, `.gz` or not.

    Labels may be DialogueNLI's (positive, neutral, negative) or the usual ones.
    Raises PersonalignError for a row without these fields or with an unknown label.
    """
    rows = []
    for place, row in read_objects(path):
        premise, hypothesis = _text(row, "premise", place), _text(row, "hypothesis", place)
        try:
            label = class_of(_text(row, "label", place))
        except PersonalignError as error:
            raise PersonalignError(f"{place}, field 'label': {error}") from None
        rows.append(NliRow(premise, hypothesis, label, split=str(row.get("split", "train"))))
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
            found.add(normalise(text))
            found.update(normalise(sentence) for sentence in _SENTENCE_END.split(text))
    return frozenset(found - {""})


def judge_data(
    path: Path | str,
    *,
    entailed_pairs: Path | str | None = None,
    max_entailed: int = 6000,
    max_neutral: int = 4000,
    exclude: Sequence[Path | str] = (),
    part: Part = "all",
    seed: int = 0,
) -> JudgeData:
    """Gather the training and validation rows of a judge.

    - Training rows whose premise or hypothesis occurs in the file's own other splits (validation, test), or in a
      file of `exclude` as a text or a sentence of one, are dropped and counted: no judge is tested on what it saw.
    - `entailed_pairs`: at most `max_entailed` of its training rows join as entailed, and at most
      `max_neutral` pairs of a line with another line's reply as neutral.
    - `part`: halves of the data that share no premise, so that a second judge learns from other lines.
    """
    rows = read_nli_rows(path)
    valid = tuple(row for row in rows if row.split in VALIDATION_SPLITS)
    train = [row for row in rows if row.split == "train"]
    if not valid:
        raise PersonalignError(f"{path} has no validation rows; give some rows 'split': 'valid'")
    held_out = [row for row in rows if row.split != "train"]
    own = frozenset(normalise(text) for row in held_out for text in (row.premise, row.hypothesis))
    others = frozenset().union(*(sentences_in(other) for other in exclude))
    counts = {"read": len(rows), "valid": len(valid), "other_splits": len(rows) - len(valid) - len(train)}

    entailed = []
    if entailed_pairs is not None:
        entailed = [row for row in read_entailed_pairs(entailed_pairs) if row.split == "train"]
    counts["entailed_pairs_read"] = len(entailed)
    known = {(normalise(row.premise), normalise(row.hypothesis)) for row in entailed}

    train, dropped = _drop(train, own=own, others=others)
    counts |= {f"dropped_{why}": number for why, number in dropped.items()}
    entailed, dropped = _drop(entailed, own=own, others=others)
    counts |= {f"entailed_pairs_dropped_{why}": number for why, number in dropped.items()}

    train = [row for row in train if _in_part(row, part)]
    entailed = [row for row in entailed if _in_part(row, part)]
    shuffle = random.Random(seed)
    neutral = _random_neutral(entailed, known=known, limit=max_neutral, shuffle=shuffle)
    entailed = shuffle.sample(entailed, min(max_entailed, len(entailed)))
    counts |= {"train_rows": len(train), "entailed_rows": len(entailed), "random_neutral_rows": len(neutral)}
    if not train:
        raise PersonalignError(f"{path} leaves no training rows after the exclusions: {counts}")
    return JudgeData(train=(*train, *entailed, *neutral), valid=valid, counts=counts)


def _drop(
    rows: Sequence[NliRow], *, own: frozenset[str], others: frozenset[str]
) -> tuple[list[NliRow], dict[str, int]]:
    kept, counts = [], {"own_other_splits": 0, "excluded_files": 0}
    for row in rows:
        texts = {normalise(row.premise), normalise(row.hypothesis)}
        if texts & own:
            counts["own_other_splits"] += 1
        elif texts & others:
            counts["excluded_files"] += 1
        else:
            kept.append(row)
    return kept, counts


def _in_part(row: NliRow, part: Part) -> bool:
    if part == "all":
        return True
    digest = hashlib.blake2b(normalise(row.premise).encode(), digest_size=1).digest()
    return digest[0] % 2 == ("a", "b").index(part)


def _random_neutral(
    entailed: Sequence[NliRow], *, known: set[tuple[str, str]], limit: int, shuffle: random.Random
) -> list[NliRow]:
    """Each line with the reply of another, except where the two are a known entailed pair."""
    lines = shuffle.sample(entailed, len(entailed))
    replies = shuffle.sample(entailed, len(entailed))
    rows: list[NliRow] = []
    for line, reply in zip(lines, replies, strict=True):
        if len(rows) == limit:
            break
        if (normalise(line.premise), normalise(reply.hypothesis)) not in known:
            rows.append(NliRow(line.premise, reply.hypothesis, NEUTRAL))
    return rows


def read_objects(path: Path | str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, object) for each JSON object of a file; places are "FILE, line 3" or "FILE, item 3"."""
    try:
        content = Path(path).read_bytes()
        text = (gzip.decompress(content) if str(path).endswith(".gz") else content).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise PersonalignError(
            f"{path} cannot be read: {error}; give a UTF-8 JSON or JSON Lines file"
        ) from error
    if text.lstrip().startswith("["):
        items = _parse(text, place=str(path))
        numbered = ((f"{path}, item {number}", item) for number, item in enumerate(items, start=1))
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
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PersonalignError(f"{place}: not JSON ({error}); write one JSON object per line") from None


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
