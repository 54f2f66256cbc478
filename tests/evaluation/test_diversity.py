import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from personalign.evaluation.diversity import distinct, entropy

REPLIES = st.lists(st.lists(st.sampled_from("abc"), max_size=6).map(" ".join), max_size=6)


def test_entropy_by_hand() -> None:
    assert entropy(["a b", "a c"], order=1) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))
    assert entropy(["a b a b"], order=2) == pytest.approx(
        -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    )
    assert entropy(["a"], order=2) == 0.0


@given(REPLIES, st.integers(1, 4))
def test_entropy_equals_that_of_scipy(replies: list[str], order: int) -> None:
    pooled: Counter[str] = Counter()
    for reply in replies:
        letters = reply.replace(" ", "")
        pooled.update(letters[i : i + order] for i in range(len(letters) - order + 1))
    expected = stats.entropy(list(pooled.values())) if pooled else 0.0
    assert entropy(replies, order=order) == pytest.approx(expected, abs=1e-12)


def test_distinct_divides_by_tokens_for_both_orders() -> None:
    # 5 tokens; different words a, b, c; different pairs ab, ba, ac.
    assert distinct(["a b a", "a c"], order=1) == pytest.approx(3 / 5)
    assert distinct(["a b a", "a c"], order=2) == pytest.approx(3 / 5)
    assert distinct([""], order=1) == 0.0


def test_punctuation_is_a_token_of_its_own() -> None:
    assert distinct(["dog.", "dog ."], order=1) == pytest.approx(2 / 4)


def test_chinese_is_counted_by_character() -> None:
    assert distinct(["我爱我"], order=1, language="zh") == pytest.approx(2 / 3)
