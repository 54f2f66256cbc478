import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.errors import PersonalignError
from personalign.labels.agreement import compare, tune_threshold
from personalign.labels.labeller import labels_above


def test_compare_by_hand() -> None:
    given_labels = [((0, 2), ()), ((1,), (1,))]
    predicted = [((2, 1), ()), ((), (0, 1))]
    agreement = compare(given_labels, predicted)
    assert agreement.turns == 4
    assert agreement.accuracy == 0.5
    assert agreement.accuracy_needed == pytest.approx(1 / 3)
    assert agreement.accuracy_always_none == 0.25
    assert agreement.share_none == 0.5
    assert agreement.share_none_given == 0.25


def test_labels_of_other_turns_are_refused() -> None:
    with pytest.raises(PersonalignError, match="not for the same turns"):
        compare([((),), ((),)], [((), ())])


def test_a_threshold_by_hand() -> None:
    # Best scores .9 right, .6 wrong (none), .5 right, .2 wrong: cut between .9 and .6, or between .5 and .2.
    scores = [np.array([[0.9, 0.1], [0.6, 0.5]]), np.array([[0.3, 0.5], [0.2, 0.1]])]
    gold = [((0,), ()), ((0,), ())]
    assert tune_threshold(scores, gold).threshold == pytest.approx(0.75)
    assert tune_threshold(scores, gold).accuracy == pytest.approx(0.75)


def test_all_none_and_all_lines_can_be_the_best_cut() -> None:
    scores = [np.array([[0.4], [0.2]])]
    nothing, everything = tune_threshold(scores, [((), ())]), tune_threshold(scores, [((0,), (0,))])
    assert labels_above(scores, nothing.threshold) == [((), ())]
    assert labels_above(scores, everything.threshold) == [((0,), (0,))]
    assert nothing.accuracy == everything.accuracy == 1.0


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 5), min_size=2, max_size=2), st.sampled_from([(), (0,), (1,), (1, 0)])
        ),
        min_size=1,
        max_size=12,
    )
)
def test_no_other_threshold_is_better(turns: list[tuple[list[int], tuple[int, ...]]]) -> None:
    scores = [np.array([turn[0] for turn in turns]) / 5]
    gold = [tuple(turn[1] for turn in turns)]
    tuned = tune_threshold(scores, gold)
    tried = [compare(gold, labels_above(scores, cut)).accuracy for cut in np.arange(0.0, 1.3, 0.1) + 0.05]
    assert compare(gold, labels_above(scores, tuned.threshold)).accuracy == pytest.approx(tuned.accuracy)
    assert tuned.accuracy == pytest.approx(max(tried))


def test_scores_without_labels_are_refused() -> None:
    with pytest.raises(PersonalignError, match="1 scored turns stand against 0"):
        tune_threshold([np.array([[0.4]])], [])
