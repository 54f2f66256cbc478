import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from personalign.errors import PersonalignError
from personalign.evaluation.selection import selection_metrics

TURN = st.tuples(
    st.one_of(st.just(()), st.tuples(st.integers(0, 3))), st.one_of(st.none(), st.integers(0, 3))
)


def test_by_hand() -> None:
    metrics = selection_metrics([(2, 0), (1,), (), ()], [0, 2, None, 1])
    assert metrics["selection/accuracy"] == 0.5
    assert metrics["selection/accuracy_always_none"] == 0.5
    assert metrics["selection/accuracy_needed"] == 0.5
    assert metrics["share_none"] == 0.25
    assert metrics["share_none_labelled"] == 0.5
    # F1: none 2/3 (one of two found, one predicted), line 0 is 1, line 1 is 0, line 2 is 0.
    assert metrics["selection/macro_f1"] == pytest.approx((2 / 3 + 1 + 0 + 0) / 4)


def test_a_wrong_choice_among_several_labels_counts_as_the_first() -> None:
    assert selection_metrics([(1, 2)], [3])["selection/macro_f1"] == 0.0
    assert selection_metrics([(1, 2)], [2])["selection/accuracy"] == 1.0


@given(st.lists(TURN, min_size=1, max_size=20))
def test_macro_f1_equals_that_of_scikit_learn(turns: list[tuple[tuple[int, ...], int | None]]) -> None:
    relevant, selected = [turn[0] for turn in turns], [turn[1] for turn in turns]
    truth = [lines[0] if lines else -1 for lines in relevant]
    guess = [-1 if choice is None else choice for choice in selected]
    expected = f1_score(truth, guess, average="macro", zero_division=0)
    assert selection_metrics(relevant, selected)["selection/macro_f1"] == pytest.approx(expected)


def test_no_turn_that_needs_a_line() -> None:
    assert selection_metrics([()], [None])["selection/accuracy_needed"] == 0.0


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(PersonalignError, match="equal numbers"):
        selection_metrics([()], [])
