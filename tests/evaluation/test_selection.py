import math
import random
import tracemalloc
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from personalign.errors import PersonalignError
from personalign.evaluation.selection import Selections, compare_selections, recall_at

TURN = st.tuples(
    st.one_of(st.just(()), st.tuples(st.integers(0, 3))), st.one_of(st.none(), st.integers(0, 3))
)


def figures(found: Selections) -> dict[str, float]:
    return {
        name: getattr(found, name)().figure()
        for name in ("accuracy", "always_none", "accuracy_needed", "macro_f1", "share_none")
    }


def test_by_hand() -> None:
    found = figures(compare_selections([(2, 0), (1,), (), ()], [0, 2, None, 1], lines=4))
    # F1: none 2/3 (one of two found, one predicted), line 0 is 1, line 1 is 0, line 2 is 0.
    assert found.pop("macro_f1") == pytest.approx((2 / 3 + 1 + 0 + 0) / 4)
    assert found == {"accuracy": 0.5, "always_none": 0.5, "accuracy_needed": 0.5, "share_none": 0.25}


def test_a_wrong_choice_among_several_labels_counts_as_the_first() -> None:
    assert compare_selections([(1, 2)], [3], lines=4).macro_f1().figure() == 0.0
    assert compare_selections([(1, 2)], [2], lines=4).accuracy().figure() == 1.0


@given(st.lists(TURN, min_size=1, max_size=20))
def test_f1_precision_and_recall_equal_those_of_scikit_learn(
    turns: list[tuple[tuple[int, ...], int | None]],
) -> None:
    found = compare_selections([turn[0] for turn in turns], [turn[1] for turn in turns], lines=4)
    truth = [lines[0] if lines else -1 for lines, _ in turns]
    guess = [-1 if choice is None else choice for _, choice in turns]
    assert found.macro_f1().figure() == pytest.approx(
        f1_score(truth, guess, average="macro", zero_division=0)
    )
    none = {"labels": [-1], "average": "macro", "zero_division": math.nan}
    precision, recall = precision_score(truth, guess, **none), recall_score(truth, guess, **none)
    assert found.none_precision().figure() == pytest.approx(precision, nan_ok=True)
    assert found.none_recall().figure() == pytest.approx(recall, nan_ok=True)


def test_f1_of_many_lines_takes_little_memory() -> None:
    generator = random.Random(0)
    truth, guess = ([generator.randrange(200) for _ in range(10_000)] for _ in range(2))
    found = compare_selections([(line,) for line in truth], guess, lines=200)
    tracemalloc.start()
    figure = found.macro_f1().figure()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert figure == pytest.approx(f1_score(truth, guess, average="macro"))
    assert most < 10_000_000


def test_recall_at_k_ranks_lines_without_none() -> None:
    probabilities = [[0.1, 0.3, 0.2, 0.4], [0.1, 0.3, 0.2, 0.4], [0.2, 0.2, 0.0, 0.6]]
    relevant = [(2,), (0, 1), (0,)]
    # Ranks: 2; 1 (line 1 is best); 1 or 2, a tie with line 1.
    assert recall_at(relevant, probabilities, k=1).figure() == pytest.approx((0 + 1 + 1 / 2) / 3)
    assert recall_at(relevant, probabilities, k=2).figure() == 1.0
    assert recall_at([*relevant, ()], [*probabilities, [1.0]], k=1).figure() == pytest.approx(1 / 2)


@given(
    shares=st.lists(st.sampled_from([0.0, 0.1, 0.2]), min_size=1, max_size=5),
    labelled=st.sets(st.integers(0, 4), min_size=1),
    k=st.integers(1, 5),
)
def test_recall_at_k_is_the_mean_over_all_orders_of_equal_lines(
    shares: list[float], labelled: set[int], k: int
) -> None:
    lines = tuple(sorted(line for line in labelled if line < len(shares))) or (0,)
    hits = []
    for order in permutations(range(len(shares))):
        ranked = sorted(order, key=lambda line: -shares[line])
        hits.append(any(line in lines for line in ranked[:k]))
    expected = sum(hits) / len(hits)
    assert recall_at([lines], [[*shares, 0.9]], k=k).figure() == pytest.approx(expected)


def test_no_turn_that_needs_a_line_has_no_accuracy_on_them() -> None:
    assert math.isnan(compare_selections([()], [None], lines=4).accuracy_needed().figure())


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(PersonalignError, match="equal numbers"):
        compare_selections([()], [], lines=4)
