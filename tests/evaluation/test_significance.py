import math
import random
from collections.abc import Hashable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from personalign.errors import PersonalignError
from personalign.evaluation import significance
from personalign.evaluation.diversity import distinct
from personalign.evaluation.grams import Ngrams
from personalign.evaluation.significance import (
    compare,
    compare_over_seeds,
    estimate,
    holm,
    stars,
)
from personalign.evaluation.sums import Floats, Sums, mean_of


def bootstrap_by_dialogue(
    values: Sequence[float], groups: Sequence[Hashable], *, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The ends of the interval of a mean."""
    found = estimate([mean_of(values)], groups, samples=samples, seed=seed)
    return found.low, found.high


def test_the_interval_equals_that_of_a_plain_loop() -> None:
    generator = random.Random(3)
    dialogues = {
        name: [generator.gauss(ord(name) % 5, 1) for _ in range(size)]
        for name, size in zip("abcdefgh", [1, 7, 3, 3, 9, 2, 5, 4], strict=True)
    }
    values = [value for its_values in dialogues.values() for value in its_values]
    groups = [name for name, its_values in dialogues.items() for _ in its_values]
    means = []
    for _ in range(20_000):
        drawn = [value for name in generator.choices(sorted(dialogues), k=8) for value in dialogues[name]]
        means.append(sum(drawn) / len(drawn))
    expected = np.quantile(means, [0.025, 0.975])
    assert bootstrap_by_dialogue(values, groups, samples=20_000, seed=1) == pytest.approx(expected, abs=0.05)


def test_turns_of_one_dialogue_are_drawn_together() -> None:
    values = [0.0] * 50 + [1.0] * 50
    apart = bootstrap_by_dialogue(values, list(range(100)), seed=0)
    together = bootstrap_by_dialogue(values, ["a"] * 50 + ["b"] * 50, seed=0)
    assert together == (0.0, 1.0)
    assert 0.35 < apart[0] < 0.5 < apart[1] < 0.65


def test_a_seed_makes_it_repeatable() -> None:
    values, groups = [0.0, 1.0, 0.5, 0.2], [0, 1, 2, 3]
    assert bootstrap_by_dialogue(values, groups, seed=4) == bootstrap_by_dialogue(values, groups, seed=4)
    assert bootstrap_by_dialogue([2.0, 2.0], ["a", "b"], seed=0) == (2.0, 2.0)


def test_values_without_groups_are_refused() -> None:
    with pytest.raises(PersonalignError, match="one group per value"):
        bootstrap_by_dialogue([1.0, 2.0], ["a"])


def test_the_jackknife_of_a_mean_is_its_t_interval() -> None:
    values = [0.3, 1.7, 2.2, 0.1, 5.0, 3.1]
    found = estimate([mean_of(values)], list(range(6)), interval="jackknife")
    low, high = stats.t.interval(0.95, 5, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_jackknife_of_distinct_holds_the_figure_where_a_bootstrap_would_not() -> None:
    generator = random.Random(0)
    replies = [[f"w{int(generator.paretovariate(0.8))}" for _ in range(6)] for _ in range(80)]
    sums = distinct(Ngrams(replies), order=1)
    found = estimate([sums], list(range(80)), interval="jackknife")
    biased = estimate([sums], list(range(80)), interval="bootstrap")
    assert found.low < found.value < found.high
    assert biased.high < biased.value


def test_one_dialogue_has_no_interval() -> None:
    found = estimate([mean_of([1.0, 2.0])], ["a", "a"])
    assert found.value == 1.5
    assert math.isnan(found.low)


def test_seeds_are_averaged() -> None:
    found = estimate([mean_of([0.0, 0.0, 1.0]), mean_of([1.0, 1.0, 1.0])], [0, 1, 2])
    assert found.value == pytest.approx((1 / 3 + 1) / 2)


def test_randomisation_equals_the_exact_test_over_all_exchanges() -> None:
    generator = random.Random(5)
    first = [generator.gauss(0.6, 1) for _ in range(10)]
    second = [generator.gauss(0.0, 1) for _ in range(10)]
    exact = stats.permutation_test(
        (first, second), lambda a, b: np.mean(a) - np.mean(b), permutation_type="samples", n_resamples=np.inf
    )
    found = compare([mean_of(first)], [mean_of(second)], list(range(10)), samples=20_000)
    assert found.p_randomisation == pytest.approx(exact.pvalue, abs=0.01)
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))
    gaps = np.array(first) - np.array(second)
    assert found.effect == pytest.approx(gaps.mean() / gaps.std(ddof=1))


def test_the_same_answers_as_more_seeds_are_no_more_evidence() -> None:
    generator = random.Random(5)
    first = mean_of([generator.gauss(0.6, 1) for _ in range(10)])
    second = mean_of([generator.gauss(0.0, 1) for _ in range(10)])
    once = compare([first], [second], list(range(10)), samples=4000)
    thrice = compare([first] * 3, [second] * 3, list(range(10)), samples=4000)
    assert thrice.p_randomisation == once.p_randomisation


def test_a_clear_difference_is_found_and_none_is_not() -> None:
    generator = random.Random(1)
    values = [generator.random() for _ in range(60)]
    groups = [index // 2 for index in range(60)]
    clear = compare([mean_of([v + 0.5 for v in values])], [mean_of(values)], groups, samples=999)
    assert clear.p_randomisation == pytest.approx(1 / 1000)
    assert clear.p_bootstrap == pytest.approx(2 / 1000)
    assert clear.low == pytest.approx(0.5)
    same = compare([mean_of(values)], [mean_of(values)], groups, samples=999)
    assert same.p_randomisation == same.p_bootstrap == 1.0
    assert (same.difference, same.low, same.high, same.effect) == (0, 0, 0, 0)


def test_randomisation_exchanges_whole_dialogues_of_different_words() -> None:
    # Two dialogues whose replies share no word: exchanging both gives the same difference back, exchanging one none.
    ours = distinct(Ngrams([["a", "b"], ["c", "d"]]), order=1)
    theirs = distinct(Ngrams([["x", "x"], ["y", "y"]]), order=1)
    found = compare([ours], [theirs], [0, 1], samples=4000, interval="jackknife")
    assert found.difference == pytest.approx(0.5)
    assert found.p_randomisation == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("kept", [0, 1_000_000])
def test_samples_are_drawn_some_at_a_time_and_are_the_same(
    monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    generator = random.Random(4)
    ours, theirs = (
        [mean_of([generator.randrange(10) for _ in range(40)]) for _ in range(2)] for _ in range(2)
    )
    groups = [index // 2 for index in range(40)]
    widest = 0
    weighted = Sums.weighted

    def watched(sums: Sums, weights: Floats) -> Floats:
        nonlocal widest
        widest = max(widest, weights.size)
        return weighted(sums, weights)

    monkeypatch.setattr(Sums, "weighted", watched)
    found = []
    for held in (4_000_000, 1000):
        monkeypatch.setattr(significance, "_HELD", held)
        monkeypatch.setattr(significance, "_KEPT", kept)
        significance._kept_counts.cache_clear()
        widest = 0
        found.append((estimate(ours, groups, samples=777), compare(ours, theirs, groups, samples=777)))
    # An exchange takes a dialogue from either system.
    assert widest <= 2 * 1000
    assert found[0] == found[1]
    assert 0 < found[0][1].p_randomisation < 1


def test_the_test_over_seeds_is_students() -> None:
    first, second = [0.81, 0.79, 0.84], [0.70, 0.74, 0.69, 0.73]
    found = compare_over_seeds(first, second)
    theirs = stats.ttest_ind(first, second)
    assert found.p == pytest.approx(float(theirs.pvalue))
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.effect > 3
    assert compare_over_seeds([1.0, 1.0], [1.0, 1.0]).p == 1.0
    assert compare_over_seeds([1.0, 1.0], [2.0, 2.0]).p == 0.0
    with pytest.raises(PersonalignError, match="two or more"):
        compare_over_seeds([1.0], [1.0, 2.0])


def test_holm_by_hand() -> None:
    # Sorted .01 * 4, .02 * 3, .03 * 2, .04 * 1, none below the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    adjusted = holm([0.9, math.nan, 0.8])
    assert adjusted[0] == adjusted[2] == 1.0
    assert math.isnan(adjusted[1])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_stars() -> None:
    assert [stars(p) for p in (0.0005, 0.005, 0.03, 0.05, math.nan)] == ["***", "**", "*", "", ""]
