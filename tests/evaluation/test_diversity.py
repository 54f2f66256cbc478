import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from personalign.evaluation.diversity import (
    distinct,
    distinct_per_response,
    entropy,
    length,
    repeated_replies,
    repetition,
)
from personalign.evaluation.grams import Ngrams
from personalign.evaluation.tokens import words_and_marks

REPLIES = st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=1, max_size=6)


def cut(*texts: str) -> list[list[str]]:
    return [words_and_marks(text) for text in texts]


def ngrams(*texts: str) -> Ngrams:
    return Ngrams(cut(*texts))


def test_entropy_by_hand() -> None:
    expected = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert entropy(ngrams("a b", "a c"), order=1).figure() == pytest.approx(expected)
    expected = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    assert entropy(ngrams("a b a b"), order=2).figure() == pytest.approx(expected)
    assert entropy(ngrams("a"), order=2).figure() == 0.0


@given(REPLIES, st.integers(1, 4))
def test_entropy_equals_that_of_scipy(replies: list[list[str]], order: int) -> None:
    pooled: Counter[str] = Counter()
    for reply in replies:
        letters = "".join(reply)
        pooled.update(letters[i : i + order] for i in range(len(letters) - order + 1))
    expected = stats.entropy(list(pooled.values())) if pooled else 0.0
    assert entropy(Ngrams(replies), order=order).figure() == pytest.approx(expected, abs=1e-9)


@given(REPLIES, st.integers(1, 3))
def test_distinct_equals_its_definition(replies: list[list[str]], order: int) -> None:
    grams = ["".join(r[i : i + order]) for r in replies for i in range(len(r) - order + 1)]
    tokens = sum(map(len, replies))
    expected = len(set(grams)) / tokens if tokens else 0.0
    assert distinct(Ngrams(replies), order=order).figure() == pytest.approx(expected)
    own = []
    for reply in replies:
        runs = [tuple(reply[i : i + order]) for i in range(len(reply) - order + 1)]
        own += [len(set(runs)) / len(runs)] if runs else []
    found = distinct_per_response(Ngrams(replies), order=order).figure()
    assert found == pytest.approx(sum(own) / len(own)) if own else math.isnan(found)


@given(REPLIES)
def test_the_order_of_replies_changes_nothing_and_a_copy_no_entropy(replies: list[list[str]]) -> None:
    for measure in (distinct, entropy, repetition):
        value = measure(Ngrams(replies), order=2).figure()
        assert measure(Ngrams(replies[::-1]), order=2).figure() == pytest.approx(value, nan_ok=True)
    doubled = entropy(Ngrams(replies * 2), order=2).figure()
    assert doubled == pytest.approx(entropy(Ngrams(replies), order=2).figure(), abs=1e-9)
    assert distinct(Ngrams(replies * 2), order=1).figure() == pytest.approx(
        distinct(Ngrams(replies), order=1).figure() / 2
    )


def test_distinct_divides_by_tokens_for_both_orders() -> None:
    # 5 tokens; different words a, b, c; different pairs ab, ba, ac.
    assert distinct(ngrams("a b a", "a c"), order=1).figure() == pytest.approx(3 / 5)
    assert distinct(ngrams("a b a", "a c"), order=2).figure() == pytest.approx(3 / 5)
    assert distinct(ngrams(""), order=1).figure() == 0.0


def test_punctuation_is_a_token_of_its_own() -> None:
    assert distinct(ngrams("dog.", "dog ."), order=1).figure() == pytest.approx(2 / 4)


def test_repetition_is_the_share_of_ngrams_that_came_before() -> None:
    # "a b a b": pairs ab, ba, ab: one of three; the other reply adds two pairs.
    assert repetition(ngrams("a b a b", "c d e"), order=2).figure() == pytest.approx(1 / 5)
    assert math.isnan(repetition(ngrams("a"), order=2).figure())


def test_repeated_replies_count_the_first_too() -> None:
    found = repeated_replies(cut("i know", "no", "i know", "hm"))
    assert found.figure() == 0.5
    # Of a part, and with one reply left out, only those count that are there.
    assert found.of([0, 1]).figure() == 0.0
    assert found.without_each().tolist() == pytest.approx([0, 2 / 3, 0, 2 / 3])


def test_length_is_in_tokens() -> None:
    assert length(cut("well, yes", "")).figure() == 1.5
