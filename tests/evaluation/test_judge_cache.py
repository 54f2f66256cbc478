import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.errors import PersonalignError
from personalign.evaluation import judge_cache
from personalign.evaluation.judge import Pair, Verdicts
from personalign.evaluation.judge_cache import CachedJudge, OverallProgress, cache_file


class Counting:
    """Judges by the length of the reply, and remembers what it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[Pair] = []

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        self.asked += pairs
        share = np.array([[len(reply) / 100, 0.5, 0.0] for _, reply in pairs], dtype=np.float32)
        return Verdicts(share.reshape(-1, 3))


def test_nothing_is_judged_twice(tmp_path: Path) -> None:
    asked = Counting()
    judge = CachedJudge(asked, "k", tmp_path / "deep" / "v.sqlite")
    pairs = [("a", "x"), ("b", "yy"), ("a", "x")]
    first = judge.judge(pairs).probabilities
    assert asked.asked == [("a", "x"), ("b", "yy")]
    again = (
        CachedJudge(asked, "k", tmp_path / "deep" / "v.sqlite").judge([*pairs, ("c", "zzz")]).probabilities
    )
    assert asked.asked[2:] == [("c", "zzz")]
    assert np.array_equal(first, again[:3])
    assert again[3, 0] == pytest.approx(0.03)


def test_another_judge_is_asked_anew(tmp_path: Path) -> None:
    asked = Counting()
    for key in ("k", "other"):
        CachedJudge(asked, key, tmp_path / "v.sqlite").judge([("a", "x")])
    assert len(asked.asked) == 2


def test_no_pairs_have_no_verdicts(tmp_path: Path) -> None:
    assert CachedJudge(Counting(), "k", tmp_path / "v.sqlite").judge([]).probabilities.shape == (0, 3)


def test_many_pairs_fit_into_sqlites_limits(tmp_path: Path) -> None:
    pairs = [("line", "x" * (number % 90) + str(number)) for number in range(2500)]
    asked = Counting()
    judge = CachedJudge(asked, "k", tmp_path / "v.sqlite")
    assert np.array_equal(judge.judge(pairs).probabilities, judge.judge(pairs).probabilities)
    assert len(asked.asked) == 2500


TEXT = st.text(max_size=5)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=12))
def test_the_cache_changes_no_verdict(tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair]) -> None:
    judge = CachedJudge(Counting(), "k", tmp_path_factory.mktemp("cache") / "v.sqlite")
    expected = Counting().judge(pairs).probabilities
    for _ in range(2):
        assert np.array_equal(judge.judge(pairs).probabilities, expected)


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PERSONALIGN_CACHE", str(tmp_path))
    assert cache_file() == tmp_path / "verdicts.sqlite"
    monkeypatch.delenv("PERSONALIGN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_file() == tmp_path / "personalign" / "verdicts.sqlite"


class Calling(Counting):
    """Calls `before` with the number of the call, from 1, before it judges."""

    def __init__(self, before: Callable[[int], None]) -> None:
        super().__init__()
        self.calls = 0
        self.before = before

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        self.calls += 1
        self.before(self.calls)
        return super().judge(pairs)


PAIRS = [("line", f"{number:02}") for number in range(25)]


def test_what_was_judged_before_a_failure_is_kept(tmp_path: Path) -> None:
    def fail_at_third(call: int) -> None:
        if call == 3:
            raise KeyboardInterrupt

    failing, whole = Calling(fail_at_third), Counting()
    with pytest.raises(KeyboardInterrupt):
        CachedJudge(failing, "k", tmp_path / "v.sqlite", between_saves=10).judge(PAIRS)
    found = CachedJudge(whole, "k", tmp_path / "v.sqlite").judge(PAIRS).probabilities
    assert failing.asked == PAIRS[:20]
    assert whole.asked == PAIRS[20:]
    assert np.array_equal(found, Counting().judge(PAIRS).probabilities)


def test_pairs_of_like_length_are_asked_together(tmp_path: Path) -> None:
    asked = Counting()
    pairs = [("line", "x" * (number * 7 % 25)) for number in range(25)]
    found = CachedJudge(asked, "k", tmp_path / "v.sqlite", between_saves=10).judge(pairs)
    assert asked.asked == sorted(pairs, key=lambda pair: len(pair[1]))
    assert np.array_equal(found.probabilities, Counting().judge(pairs).probabilities)


def test_progress_counts_over_all_calls_what_is_not_kept_yet(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    progress = OverallProgress(lambda done, total: told.append((done, total)))

    class Telling(Counting):
        def judge(self, pairs: Sequence[Pair]) -> Verdicts:
            for done in range(5, len(pairs) + 1, 5):
                progress(done, len(pairs))
            return super().judge(pairs)

    CachedJudge(Counting(), "k", tmp_path / "v.sqlite").judge(PAIRS[:5])
    judge = CachedJudge(Telling(), "k", tmp_path / "v.sqlite", between_saves=10, progress=progress)
    judge.judge(PAIRS)
    assert told == [(5, 20), (10, 20), (15, 20), (20, 20)]


def no_folder(file: Path) -> None:
    file.parent.write_text("a file")


def a_folder(file: Path) -> None:
    file.mkdir(parents=True)


def damaged(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"no database at all, " * 100)


def other_table(file: Path) -> None:
    file.parent.mkdir()
    with sqlite3.connect(file) as database:
        database.execute("create table verdicts (something)")


@pytest.mark.parametrize("spoil", [no_folder, a_folder, damaged, other_table])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    file = tmp_path / "cache" / "v.sqlite"
    spoil(file)
    asked = Counting()
    with pytest.raises(PersonalignError, match=r"v\.sqlite, which keeps verdicts, .* PERSONALIGN_CACHE"):
        CachedJudge(asked, "k", file).judge(PAIRS)
    assert asked.asked == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody locks it while the judge is at work."""
    monkeypatch.setattr(judge_cache, "_SECONDS_TO_WAIT", 0.05)
    file = tmp_path / "v.sqlite"
    other = sqlite3.connect(file, isolation_level=None)

    def lock(_: int) -> None:
        other.execute("begin exclusive")

    with pytest.raises(PersonalignError, match=r"v\.sqlite, .*database is locked; .* PERSONALIGN_CACHE"):
        CachedJudge(Calling(lock), "k", file).judge(PAIRS)
    other.close()
