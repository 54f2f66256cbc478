import random

import numpy as np
import pytest

from personalign.errors import PersonalignError
from personalign.evaluation.significance import bootstrap_by_dialogue


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
