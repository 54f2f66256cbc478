import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from personalign.evaluation.past import p_co, p_cover, p_f1, p_f1_last, prepare

MESSAGES = st.lists(st.lists(st.sampled_from("abcde"), max_size=5), min_size=1, max_size=5)
REPLY = st.lists(st.sampled_from("abcdef"), max_size=6)


def test_by_hand() -> None:
    past = prepare([["i", "fish"], ["i", "have", "fish", "fish"], ["i", "run"]])
    # idf: i 0, fish ln 3/2, have and run ln 3; the second message shares have and fish.
    assert p_cover([["i", "have", "fish"]], [past]).figure() == pytest.approx(math.log(3) + math.log(1.5))
    # Shared words i, fish, fish of 3 and of 8.
    assert p_f1([["i", "fish", "fish"]], [past]).figure() == pytest.approx(2 * 3 / 11)
    assert p_f1_last([["i", "fish", "fish"]], [[["x"], ["i", "run"]]]).figure() == pytest.approx(2 * 1 / 4)


@given(REPLY, MESSAGES)
def test_each_equals_its_definition(reply: list[str], messages: list[list[str]]) -> None:
    past = prepare(messages)
    idf = {w: math.log(len(messages) / sum(w in m for m in messages)) for m in messages for w in m}
    best = max(sum(idf[word] for word in set(reply) if word in message) for message in messages)
    assert p_cover([reply], [past]).figure() == pytest.approx(best)
    words = sorted(idf)
    own = np.array([[reply.count(word) * idf[word] for word in words]])
    theirs = np.array([[sum(message.count(word) for message in messages) * idf[word] for word in words]])
    expected = float(cosine_similarity(own, theirs)[0, 0]) if words else 0.0
    assert p_co([reply], [past]).figure() == pytest.approx(expected, abs=1e-9)


def test_turns_without_a_past_are_left_out() -> None:
    empty, some = prepare([]), prepare([["a"], ["b"]])
    assert p_f1([["a"], ["a"]], [empty, some]).figure() == pytest.approx(2 / 3)
    assert math.isnan(p_cover([["a"]], [empty]).figure())
