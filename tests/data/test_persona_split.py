"""Parts share no persona set and no person, whatever the data look like."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.split import normalise_line, overlap, persona_key, split_by_persona
from personalign.errors import PersonalignError

SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}


def dialogue(number: int, persona: tuple[str, ...], person: str | None = None) -> Dialogue:
    return Dialogue(f"d{number}", persona, (Turn("user", f"hi {number}"),), person=person)


def numbered(personas: int, *, each: int = 1) -> list[Dialogue]:
    return [dialogue(n, (f"i am {n % personas}.", "i exist.")) for n in range(personas * each)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abc"), max_size=2), st.sampled_from([None, *"vwxyz"]))),
    st.integers(0, 5),
)
def test_parts_are_disjoint_and_complete(shape: list[tuple[set[str], str | None]], seed: int) -> None:
    dialogues = [dialogue(n, tuple(lines), person) for n, (lines, person) in enumerate(shape)]
    try:
        parts = split_by_persona(dialogues, {"a": 0.7, "b": 0.3}, seed=seed)
    except PersonalignError:
        assert reachable_groups(dialogues) < 2
        return
    assert Counter(d.id for part in parts.values() for d in part) == Counter(d.id for d in dialogues)
    assert all(parts.values())
    shared = overlap(parts["a"], parts["b"])
    assert (shared.persona_sets, shared.people, shared.ids) == (0, 0, 0)


def reachable_groups(dialogues: list[Dialogue]) -> int:
    """An oracle in the plainest words: merge sets that touch until none does."""
    groups = [{d.id} for d in dialogues]
    for first, second in itertools.combinations(dialogues, 2):
        same_persona = bool(first.persona) and set(first.persona) == set(second.persona)
        if same_persona or (first.person is not None and first.person == second.person):
            touching = [group for group in groups if first.id in group or second.id in group]
            groups = [group for group in groups if group not in touching] + [set().union(*touching)]
    return len(groups)


def test_sizes_follow_the_shares_and_the_seed_decides() -> None:
    dialogues = numbered(200, each=3)
    parts = split_by_persona(dialogues, SHARES, seed=1)
    for name, share in SHARES.items():
        assert abs(len(parts[name]) - share * 600) <= 3
    assert parts == split_by_persona(dialogues, SHARES, seed=1)
    assert parts != split_by_persona(dialogues, SHARES, seed=2)
    order = {d.id: place for place, d in enumerate(dialogues)}
    assert all(part == sorted(part, key=lambda d: order[d.id]) for part in parts.values())


def test_sessions_of_a_person_and_chains_of_them_stay_together() -> None:
    chain = [dialogue(0, ("a",), "p"), dialogue(1, ("b",), "p"), dialogue(2, ("B .",), "q")]
    parts = split_by_persona([*chain, dialogue(3, ("c",))], {"x": 0.5, "y": 0.5}, seed=0)
    assert sorted(sorted(d.id for d in part) for part in parts.values()) == [["d0", "d1", "d2"], ["d3"]]


def test_empty_personas_bind_nothing() -> None:
    parts = split_by_persona([dialogue(n, ()) for n in range(10)], {"x": 0.5, "y": 0.5}, seed=0)
    assert [len(part) for part in parts.values()] == [5, 5]


def test_small_parts_are_never_empty() -> None:
    parts = split_by_persona(numbered(3), SHARES, seed=0)
    assert [len(part) for part in parts.values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("shares", "word"),
    [
        ({}, "none at all"),
        ({"a": 1.2, "b": -0.2}, "positive"),
        ({"a": 0.5}, "sum to 0.5"),
        ({"a": float("nan"), "b": 1.0}, "positive"),
        ({"a": 0.5, "b": 0.25, "c": 0.125, "d": 0.125}, "too few for the 4 parts a, b, c, d"),
    ],
)
def test_shares_that_cannot_be(shares: dict[str, float], word: str) -> None:
    with pytest.raises(PersonalignError, match=word):
        split_by_persona(numbered(3), shares, seed=0)


@pytest.mark.parametrize("line", ["i keep bees.", "I keep  bees", " i keep bees .", "ｉ keep bees。"])
def test_editions_of_a_line_are_one(line: str) -> None:
    assert normalise_line(line) == "i keep bees"


def test_the_order_of_lines_does_not_matter() -> None:
    assert persona_key(dialogue(0, ("a.", "b"))) == persona_key(dialogue(1, ("B .", "A")))


def test_overlap_counts_each_kind() -> None:
    first = [dialogue(0, ("a", "b"), "p"), dialogue(1, ("c",))]
    second = [dialogue(0, ("b", "a")), dialogue(2, ("c", "d"), "p")]
    counts = overlap(first, second)
    assert (counts.persona_sets, counts.people, counts.ids) == (1, 1, 1)
    assert (counts.persona_lines, counts.utterances) == (3, 1)
