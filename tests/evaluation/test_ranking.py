import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score

from personalign.evaluation.ranking import hits_at_1, mean_reciprocal_rank


def test_by_hand() -> None:
    assert hits_at_1([1, 3, 1, 20]).figure() == 0.5
    assert mean_reciprocal_rank([1, 2, 4]).figure() == pytest.approx((1 + 0.5 + 0.25) / 3)


@given(st.lists(st.integers(-9, 9).map(float), min_size=2, max_size=20, unique=True), st.data())
def test_the_reciprocal_rank_equals_that_of_scikit_learn(scores: list[float], data: st.DataObject) -> None:
    gold = data.draw(st.integers(0, len(scores) - 1))
    truth = [[int(index == gold) for index in range(len(scores))]]
    rank = 1 + sum(score > scores[gold] for score in scores)
    theirs = label_ranking_average_precision_score(truth, [scores])
    assert mean_reciprocal_rank([rank]).figure() == pytest.approx(float(theirs))
    assert hits_at_1([rank]).figure() == float(theirs == 1)
