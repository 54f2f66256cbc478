import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.errors import PersonalignError
from personalign.evaluation.diversity import distinct, entropy
from personalign.evaluation.grams import Ngrams
from personalign.evaluation.sums import Sums, aligned, mean_of

REPLIES = st.lists(st.lists(st.sampled_from("abcd"), max_size=5), min_size=1, max_size=8)


@given(REPLIES, st.data())
def test_a_part_a_resample_and_what_is_left_equal_the_figure_of_those_replies(
    replies: list[list[str]], data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(replies), max_size=len(replies)))
    drawn = [reply for reply, count in zip(replies, weights, strict=True) for _ in range(count)]
    for measure in (distinct, entropy):
        sums = measure(Ngrams(replies), order=2)
        expected = measure(Ngrams(drawn), order=2).figure() if drawn else 0.0
        assert sums.weighted(np.array([weights], dtype=float))[0] == pytest.approx(expected, abs=1e-12)
        for index, value in enumerate(sums.without_each()):
            rest = replies[:index] + replies[index + 1 :]
            expected = measure(Ngrams(rest), order=2).figure() if rest else 0.0
            assert value == pytest.approx(expected, abs=1e-12)
        kept = [index for index, count in enumerate(weights) if count]
        if kept:
            assert sums.of(kept).figure() == pytest.approx(
                measure(Ngrams([replies[index] for index in kept]), order=2).figure(), abs=1e-12
            )


@given(REPLIES, REPLIES)
def test_aligned_sums_keep_their_figures_and_can_be_exchanged(
    first: list[list[str]], second: list[list[str]]
) -> None:
    size = min(len(first), len(second))
    ours, theirs = (distinct(Ngrams(replies[:size]), order=1) for replies in (first, second))
    one, other = aligned(ours, theirs)
    assert one.rows.shape == other.rows.shape
    assert one.figure() == pytest.approx(ours.figure())
    assert other.figure() == pytest.approx(theirs.figure())
    mixed = Sums((one.rows[:1] + other.rows[:1]), one.value)
    assert mixed.figure() == pytest.approx(distinct(Ngrams([*first[:1], *second[:1]]), order=1).figure())


def test_groups_add_up_in_the_order_of_first_occurrence() -> None:
    sums = mean_of([1.0, 2.0, 3.0, 10.0]).grouped(["b", "a", "b", "a"])
    assert sums.rows.tolist() == [[4.0, 2.0], [12.0, 2.0]]
    assert sums.per_example().tolist() == [2.0, 6.0]
    with pytest.raises(PersonalignError, match="one per reply"):
        mean_of([1.0]).grouped([])


def test_a_mean_leaves_out_what_is_not_counted() -> None:
    assert mean_of([1.0, 5.0, np.nan], [True, True, False]).figure() == 3.0
    assert np.isnan(mean_of([1.0], [False]).figure())
    with pytest.raises(PersonalignError, match="no replies"):
        mean_of([]).figure()
