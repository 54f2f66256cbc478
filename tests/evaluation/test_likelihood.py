import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.errors import PersonalignError
from personalign.evaluation.likelihood import perplexity, perplexity_of_means

REPLIES = st.lists(st.tuples(st.floats(0, 60), st.integers(1, 20)), min_size=1, max_size=9)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    nll, counts = [3 * math.log(50), math.log(50)], [3, 1]
    assert perplexity(nll, counts).figure() == pytest.approx(50)
    assert perplexity_of_means(nll, counts).figure() == pytest.approx(50)


def test_tokens_weigh_the_same_whatever_their_reply_and_replies_do_in_the_other() -> None:
    assert perplexity([0.0, 6.0], [3, 1]).figure() == pytest.approx(math.exp(1.5))
    assert perplexity_of_means([0.0, 6.0], [3, 1]).figure() == pytest.approx(math.exp(3))


@given(REPLIES)
def test_both_equal_their_definitions(replies: list[tuple[float, int]]) -> None:
    nll, counts = [one[0] for one in replies], [one[1] for one in replies]
    expected = math.exp(math.fsum(nll) / sum(counts))
    assert perplexity(nll, counts).figure() == pytest.approx(expected, rel=1e-9)
    expected = math.exp(math.fsum(n / c for n, c in replies) / len(replies))
    assert perplexity_of_means(nll, counts).figure() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("nll", "counts"), [([], []), ([1.0], []), ([1.0], [0])])
def test_nothing_to_average_is_refused(nll: list[float], counts: list[int]) -> None:
    with pytest.raises(PersonalignError, match="no perplexity"):
        perplexity(nll, counts)
