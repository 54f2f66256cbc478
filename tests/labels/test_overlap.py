import math

import pytest

from personalign.labels.overlap import inverse_document_frequency, overlap

TEXTS = ["i have a dog", "i have two cats", "I ski !", "hello"]


def test_idf_by_hand() -> None:
    weights = inverse_document_frequency(TEXTS)
    assert weights["dog"] == 1.0
    assert weights["i"] == pytest.approx(math.log(4 / 3) / math.log(4))
    assert weights["have"] == pytest.approx(0.5)
    assert "!" not in weights


def test_a_word_counts_once_per_text_and_everywhere_words_count_nothing() -> None:
    assert inverse_document_frequency(["a a b", "a"])["a"] == 0.0
    assert inverse_document_frequency(["a"]) == {"a": 0.0}


def test_overlap_sums_the_shared_words() -> None:
    weights = inverse_document_frequency(TEXTS)
    assert overlap("I have a dog.", "a dog ! a dog", weights=weights) == pytest.approx(2.0)
    assert overlap("hello", "dog", weights=weights) == 0.0
    assert overlap("zebra", "zebra", weights=weights) == 0.0


def test_chinese_overlap_is_by_character() -> None:
    weights = inverse_document_frequency(["我有狗", "我有猫"], language="zh")
    assert overlap("狗呢", "我的狗", weights=weights, language="zh") == 1.0
