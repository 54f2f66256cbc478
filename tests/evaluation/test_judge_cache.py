from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.evaluation.judge import Pair, Verdicts
from personalign.evaluation.judge_cache import CachedJudge, cache_file


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
