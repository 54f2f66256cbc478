"""Orders of sessions: against all permutations, and what each rule promises."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.errors import PersonalignError
from personalign.personas import ordering
from personalign.personas.edit_distance import Distances
from personalign.personas.ordering import RULES, Ordering, order_sessions, order_sessions_of


def table(seed: int, sessions: int, *, whole: bool = False) -> Distances:
    rng = np.random.default_rng(seed)
    # Whole numbers make ties.
    drawn = rng.integers(0, 4, (sessions, sessions)) if whole else rng.random((sessions, sessions))
    upper = np.triu(drawn, 1).astype(float)
    found: Distances = upper + upper.T
    return found


def length(distances: Distances, path: tuple[int, ...]) -> float:
    return float(sum(distances[a, b] for a, b in itertools.pairwise(path)))


@pytest.mark.parametrize("sessions", range(1, 10))
@pytest.mark.parametrize("whole", [False, True])
def test_held_karp_is_the_shortest_of_all_orders(sessions: int, whole: bool) -> None:
    """Up to eight references: 40,320 orders."""
    distances = table(sessions, sessions, whole=whole)
    target = sessions // 2
    others = [at for at in range(sessions) if at != target]
    shortest = min(length(distances, (*path, target)) for path in itertools.permutations(others))
    found = order_sessions(distances, target, rule="exact")
    assert found.how == "held-karp"
    assert sorted(found.sessions) == others
    assert found.length == pytest.approx(shortest)
    assert found.length == pytest.approx(length(distances, (*found.sessions, target)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 18), st.sampled_from(RULES), st.booleans(), st.data())
@settings(max_examples=150, deadline=None)
def test_an_order_has_every_other_session_once(
    seed: int, sessions: int, rule: Ordering, whole: bool, data: st.DataObject
) -> None:
    distances = table(seed, sessions, whole=whole)
    target = data.draw(st.integers(0, sessions - 1))
    found = order_sessions(distances, target, rule=rule)
    assert sorted((*found.sessions, target)) == list(range(sessions))
    assert found.length == pytest.approx(length(distances, (*found.sessions, target)))
    shortest = order_sessions(distances, target, rule="exact").length
    chain = order_sessions(distances, target, rule="nearest-last").length
    assert shortest <= chain + 1e-9


def test_many_at_once_are_the_same_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [table(seed, 1 + seed % 8) for seed in range(40)]
    targets = [seed % len(distances) for seed, distances in enumerate(tables)]
    monkeypatch.setattr(ordering, "_CELLS", 200)
    for rule in RULES:
        alone = [order_sessions(*pair, rule=rule) for pair in zip(tables, targets, strict=True)]
        assert order_sessions_of(tables, targets, rule=rule) == alone


def test_a_toy_of_three() -> None:
    """Target 0; 1 is next to it, 2 next to 1, 3 farthest."""
    distances = np.array([[0, 1, 3, 6], [1, 0, 2, 5], [3, 2, 0, 4], [6, 5, 4, 0]], dtype=float)
    assert order_sessions(distances, 0, rule="greedy").sessions == (1, 2, 3)
    assert order_sessions(distances, 0, rule="nearest-last").sessions == (3, 2, 1)
    exact = order_sessions(distances, 0, rule="exact")
    assert (exact.sessions, exact.length) == ((3, 2, 1), 7.0)
    as_given = order_sessions(distances, 2, rule="none")
    assert (as_given.sessions, as_given.how, as_given.length) == ((0, 1, 3), "as given", 10.0)


def test_the_nearest_chain_is_not_always_the_shortest() -> None:
    """Going from the target to the nearest first makes the rest of the way long."""
    crossed = np.array([[0, 1, 2, 9], [1, 0, 3, 5], [2, 3, 0, 9], [9, 5, 9, 0]], dtype=float)
    assert order_sessions(crossed, 0, rule="nearest-last").length == 13.0
    assert order_sessions(crossed, 0, rule="exact").sessions == (3, 1, 2)
    assert order_sessions(crossed, 0, rule="exact").length == 10.0


def test_above_twelve_it_says_so_and_2_opt_mends_the_chain() -> None:
    places = np.random.default_rng(3).random((40, 2))
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert order_sessions(distances[:13, :13], 0, rule="exact").how == "held-karp"
    longer = order_sessions(distances[:14, :14], 0, rule="exact")
    assert longer.how == "nearest neighbour and 2-opt"
    found = order_sessions(distances, 0, rule="exact")
    assert found.length < 0.95 * order_sessions(distances, 0, rule="nearest-last").length
    path = [*found.sessions, 0]
    for start, end in itertools.combinations(range(len(path) - 1), 2):
        turned = path[:start] + path[start : end + 1][::-1] + path[end + 1 :]
        assert length(distances, tuple(turned)) >= found.length - 1e-9


@pytest.mark.parametrize(
    ("target", "rule", "message"),
    [
        (0, "nearest", "ordering: 'nearest' is unknown; write one of none, greedy, nearest-last, exact"),
        (3, "exact", "ordering: there is no session 3 of 3"),
    ],
)
def test_mistakes_are_named(target: int, rule: Ordering, message: str) -> None:
    with pytest.raises(PersonalignError) as caught:
        order_sessions(table(1, 3), target, rule=rule)
    assert message in str(caught.value)
