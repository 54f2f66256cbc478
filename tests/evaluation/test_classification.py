import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from personalign.errors import PersonalignError
from personalign.evaluation.classification import classification_scores

CLASSES = st.integers(0, 3)


@given(st.lists(st.tuples(CLASSES, CLASSES), min_size=1, max_size=30))
def test_scores_equal_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    given_labels, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    scores = classification_scores(given_labels, predicted, class_count=4)
    assert scores.accuracy == pytest.approx(accuracy_score(given_labels, predicted))
    assert scores.macro_f1 == pytest.approx(
        f1_score(given_labels, predicted, average="macro", zero_division=0)
    )
    assert scores.confusion.tolist() == confusion_matrix(given_labels, predicted, labels=range(4)).tolist()


def test_the_confusion_matrix_is_named_true_class_first() -> None:
    named = classification_scores([0, 0, 1], [1, 0, 1], class_count=2).as_dict(["a", "b"])
    assert named["confusion"] == {"a": {"a": 1, "b": 1}, "b": {"a": 0, "b": 1}}


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(PersonalignError, match="equal numbers"):
        classification_scores([0, 1], [0], class_count=2)
