"""Verdicts that are kept on disk: the same pairs by the same judge are judged once, whatever run asks."""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from personalign.errors import PersonalignError
from personalign.evaluation.judge import Judge, Pair, Progress, Verdicts

CACHE_FOLDER = "PERSONALIGN_CACHE"
# A multiple of the usual batch sizes: the batches are then those of one call with all pairs.
PAIRS_BETWEEN_SAVES = 2048
_SECONDS_TO_WAIT = 60.0
_AT_A_TIME = 400  # SQLite's limit on the variables of one statement, with room.


@dataclass(slots=True)
class OverallProgress:
    """What a judge tells while it is asked in several calls, told as one count over all of them."""

    tell: Progress
    before: int = 0
    total: int = 0

    def __call__(self, done: int, _: int) -> None:
        self.tell(self.before + done, self.total)


@dataclass(frozen=True, slots=True)
class CachedJudge:
    """A judge whose verdicts are looked up in `file` before it is asked.

    `key` names everything that decides a verdict: weights, tokenizer, length, dtype, temperature. Several processes may
    share a file: SQLite waits its turn, and a verdict is the same whoever writes it.

    Verdicts are kept after every `between_saves` pairs, so that a judge that fails, or is interrupted, loses no more.
    `progress` is what the judge asked reports to.
    """

    judge_asked: Judge
    key: str
    file: Path
    between_saves: int = PAIRS_BETWEEN_SAVES
    progress: OverallProgress | None = None

    @property
    def name(self) -> str:
        return self.judge_asked.name

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        """Raises PersonalignError where the file cannot be read or written."""
        digests = {pair: _digest(self.key, pair) for pair in dict.fromkeys(pairs)}
        with self._database() as database:
            found = _read(database, list(digests.values()))
        missing = [pair for pair, digest in digests.items() if digest not in found]
        # Pairs of like length are asked together, as a local model would sort them itself in one call.
        missing.sort(key=lambda pair: (len(pair[0]) + len(pair[1]), pair))
        for start in range(0, len(missing), self.between_saves):
            some = missing[start : start + self.between_saves]
            if self.progress is not None:
                self.progress.before, self.progress.total = start, len(missing)
            fresh = self.judge_asked.judge(some).probabilities
            rows = [(digests[pair], shares.tobytes()) for pair, shares in zip(some, fresh, strict=True)]
            with self._database() as database:
                database.executemany("insert or replace into verdicts values (?, ?)", rows)
            found |= dict(rows)
        kept = b"".join([found[digests[pair]] for pair in pairs])
        return Verdicts(np.frombuffer(kept, dtype=np.float32).reshape(-1, 3).copy())

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are kept when the block succeeds."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=_SECONDS_TO_WAIT)) as database, database:
                database.execute(
                    "create table if not exists verdicts (pair blob primary key, probabilities blob)"
                )
                yield database
        except (sqlite3.Error, OSError) as error:
            raise PersonalignError(
                f"{self.file}, which keeps verdicts, cannot be used: {error}; wait if another process holds it, delete "
                f"it if it is damaged, or set {CACHE_FOLDER} to another folder"
            ) from error


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
