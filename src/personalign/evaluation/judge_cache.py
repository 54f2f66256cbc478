"""Verdicts that are kept on disk: the same pairs by the same judge are judged once, whatever run asks."""

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from personalign.evaluation.judge import Judge, Pair, Verdicts

CACHE_FOLDER = "PERSONALIGN_CACHE"
_AT_A_TIME = 400  # SQLite's limit on the variables of one statement, with room.


@dataclass(frozen=True, slots=True)
class CachedJudge:
    """A judge whose verdicts are looked up in `file` before it is asked.

    `key` names everything that decides a verdict: weights, tokenizer, length, dtype, temperature. Several processes may
    share a file: SQLite waits its turn, and a verdict is the same whoever writes it.
    """

    judge_asked: Judge
    key: str
    file: Path

    @property
    def name(self) -> str:
        return self.judge_asked.name

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        distinct = list(dict.fromkeys(pairs))
        digests = [_digest(self.key, pair) for pair in distinct]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.file, timeout=60)) as database, database:
            database.execute(
                "create table if not exists verdicts (pair blob primary key, probabilities blob)"
            )
            found = _read(database, digests)
        missing = [index for index, digest in enumerate(digests) if digest not in found]
        if missing:
            fresh = self.judge_asked.judge([distinct[index] for index in missing]).probabilities
            rows = [(digests[index], fresh[place].tobytes()) for place, index in enumerate(missing)]
            with closing(sqlite3.connect(self.file, timeout=60)) as database, database:
                database.executemany("insert or replace into verdicts values (?, ?)", rows)
            found |= dict(rows)
        table = (
            np.stack([np.frombuffer(found[digest], dtype=np.float32) for digest in digests])
            if digests
            else None
        )
        if table is None:
            return Verdicts(np.zeros((0, 3), dtype=np.float32))
        place = {pair: index for index, pair in enumerate(distinct)}
        return Verdicts(table[np.array([place[pair] for pair in pairs], dtype=np.int64)])


def cache_file() -> Path:
    """`verdicts.sqlite` in PERSONALIGN_CACHE, or in the user's cache folder."""
    given = os.environ.get(CACHE_FOLDER)
    if given:
        return Path(given) / "verdicts.sqlite"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "personalign" / "verdicts.sqlite"


def _digest(key: str, pair: Pair) -> bytes:
    # Lengths first, so that no two pairs read the same.
    text = f"{key}\0{len(pair[0])}\0{pair[0]}\0{pair[1]}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _read(database: sqlite3.Connection, digests: Sequence[bytes]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for start in range(0, len(digests), _AT_A_TIME):
        some = digests[start : start + _AT_A_TIME]
        marks = ",".join("?" * len(some))
        found |= dict(
            database.execute(f"select pair, probabilities from verdicts where pair in ({marks})", some)
        )
    return found
