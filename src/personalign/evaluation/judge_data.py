"""The rows that a judge learns from, with what must stay out of them taken out."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from personalign.errors import PersonalignError
from personalign.evaluation.babble import TRAINED_ON, Babbler, babble_rows, babbler
from personalign.evaluation.judge import NEUTRAL
from personalign.evaluation.nli_rows import (
    NliRow,
    normalise,
    read_entailed_pairs,
    read_nli_rows,
    sentences_in,
    sentences_of,
)
from personalign.evaluation.nli_triples import pairs_of_facts, read_facts

Part = Literal["a", "b", "all"]

VALIDATION_SPLITS = ("valid", "validation", "dev")


@dataclass(frozen=True, slots=True)
class JudgeData:
    """What a judge learns from, is chosen by and is checked on; `counts`: how many rows came and went, and why.

    `babbler` makes more babble of the same replies.
    """

    train: tuple[NliRow, ...]
    dev: tuple[NliRow, ...]
    valid: tuple[NliRow, ...]
    babbler: Babbler
    counts: Mapping[str, int]


def judge_data(
    path: Path | str,
    *,
    more: Sequence[Path | str] = (),
    entailed_pairs: Path | str | None = None,
    max_entailed: int = 6000,
    max_neutral: int = 3000,
    facts: Sequence[Path | str] = (),
    max_facts: int = 16_000,
    babble: int = 0,
    exclude: Sequence[Path | str] = (),
    part: Part = "all",
    dev_share: float = 0.0,
    seed: int = 0,
) -> JudgeData:
    """Gather the rows that a judge learns from, is chosen by, and is checked on.

    - Training rows of any source are dropped, and counted, whose premise or hypothesis has a sentence of the main file's
      own other splits (validation, test) or of a file of `exclude`: no judge is tested on what it saw.
    - `more`: further NLI files, whose training rows join.
    - `entailed_pairs`: at most `max_entailed` of its training rows join as entailed, and at most
      `max_neutral` pairs of a line with another line's reply as neutral.
    - `facts`: sentences with their triples, of which at most `max_facts` rows are made (`pairs_of_facts`).
    - `babble`: so many rows of word salad join as neutral, of the kinds `babble.TRAINED_ON`.
    - `part`: halves of the data that share no premise, so that a second judge learns from other lines.
    - `dev_share`: of the premises of the main file's training rows, held out of training with every row that has one of
      these as a text, to choose the epoch and the temperature on.
    """
    rows = read_nli_rows(path)
    valid = tuple(row for row in rows if row.split in VALIDATION_SPLITS)
    train = [row for row in rows if row.split == "train"]
    if not valid:
        raise PersonalignError(f"{path} has no validation rows; give some rows 'split': 'valid'")
    held_out = [row for row in rows if row.split != "train"]
    own = frozenset().union(*(sentences_of(t) for row in held_out for t in (row.premise, row.hypothesis)))
    others = frozenset().union(*(sentences_in(other) for other in exclude))
    counts = {"read": len(rows), "valid": len(valid), "other_splits": len(rows) - len(valid) - len(train)}
    shuffle = random.Random(seed)

    def admitted(given: list[NliRow], name: str) -> list[NliRow]:
        kept, dropped = _drop(given, own=own, others=others)
        counts.update({f"{name}dropped_{why}": number for why, number in dropped.items()})
        return [row for row in kept if _in_part(row, part)]

    train = admitted(train, "")
    further = [row for file in more for row in read_nli_rows(file) if row.split == "train"]
    further = admitted(further, "more_") if more else []
    entailed = [] if entailed_pairs is None else read_entailed_pairs(entailed_pairs)
    entailed = [row for row in entailed if row.split == "train"]
    counts["entailed_pairs_read"] = len(entailed)
    known = {(normalise(row.premise), normalise(row.hypothesis)) for row in entailed}
    entailed = admitted(entailed, "entailed_pairs_")
    neutral = _random_neutral(entailed, known=known, limit=max_neutral, shuffle=shuffle)
    made = []
    if facts:
        stated = [fact for file in facts for fact in read_facts(file)]
        # Sentences that may not be learnt from are taken out before they are paired: no limit is spent on them.
        texts = [NliRow(fact.text, fact.text, NEUTRAL) for fact in stated]
        allowed = {row.premise for row in admitted(texts, "facts_")}
        made = pairs_of_facts([f for f in stated if f.text in allowed], limit=max_facts, seed=seed)
    dev: list[NliRow] = []
    if dev_share:
        premises = sorted({normalise(row.premise) for row in train})
        chosen = set(shuffle.sample(premises, round(dev_share * len(premises))))
        dev = [row for row in train if normalise(row.premise) in chosen]
        train, further, entailed, neutral, made = (
            [row for row in some if not {normalise(row.premise), normalise(row.hypothesis)} & chosen]
            for some in (train, further, entailed, neutral, made)
        )
    entailed = shuffle.sample(entailed, min(max_entailed, len(entailed)))
    if not train:
        raise PersonalignError(f"{path} leaves no training rows after the exclusions: {counts}")
    made_by = babbler([row.hypothesis for row in (*train, *entailed)])
    lines = [row.premise for row in (*train, *entailed)]
    salad = babble_rows(made_by, lines, kinds=TRAINED_ON, count=babble, seed=seed)
    counts |= {
        "train_rows": len(train),
        "more_rows": len(further),
        "entailed_rows": len(entailed),
        "random_neutral_rows": len(neutral),
        "fact_rows": len(made),
        "babble_rows": len(salad),
        "dev_rows": len(dev),
    }
    every = list(dict.fromkeys([*train, *further, *entailed, *neutral, *made, *salad]))
    return JudgeData(tuple(every), tuple(dev), valid, made_by, counts)


def _drop(
    rows: Sequence[NliRow], *, own: frozenset[str], others: frozenset[str]
) -> tuple[list[NliRow], dict[str, int]]:
    kept, counts = [], {"own_other_splits": 0, "excluded_files": 0}
    for row in rows:
        texts = sentences_of(row.premise) | sentences_of(row.hypothesis)
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
