"""Who the people of the synthetic corpus are: three to six facts each, test people made of held-out combinations."""

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from personalign.data.synthetic.grammar import Grammar, Kind, Part

FEWEST_LINES, MOST_LINES = 3, 6
_PARTNER_LINES = 5
_MOST_SHARED_KINDS = 4
_TRIES = 200
_HELD_OUT_ONE_IN = 10

Facts = Mapping[str, str]
"""The value of each kind that a person has, in the order of the persona lines."""


@dataclass(frozen=True, slots=True)
class Person:
    """`facts`, the month of each, all different, and the sentences that say them, line i saying fact i."""

    facts: Facts
    since: Mapping[str, str]
    lines: tuple[str, ...]


def new_person(
    rules: Grammar,
    rng: random.Random,
    *,
    part: Part,
    values: Callable[[Kind], tuple[str, ...]],
    accept: Callable[[Facts], bool],
) -> Person:
    """A person with one of `values` for each of three to six kinds, drawn until `accept` takes the facts.

    Every number of facts is as likely as another. It is drawn first, as larger sets are accepted more often in one
    split and less often in another; only where next to all sets of a size are taken it grows.
    """
    wanted = rng.randint(FEWEST_LINES, MOST_LINES)
    attempts = 0
    while True:
        lines = min(MOST_LINES, wanted + attempts // _TRIES)
        facts = {kind.name: rng.choice(values(kind)) for kind in rng.sample(rules.kinds, lines)}
        if accept(facts):
            return _describe(rules, rng, facts, part=part)
        attempts += 1


def new_partner(rules: Grammar, rng: random.Random, *, part: Part, facing: Facts) -> Person:
    """A partner for the person with the facts `facing`: up to four kinds in common, never the same value.

    So a value that the partner has told is never the right one for the person.
    """
    shared = rng.sample(tuple(facing), min(_MOST_SHARED_KINDS, len(facing)))
    others = [kind.name for kind in rules.kinds if kind.name not in facing]
    names = shared + rng.sample(others, _PARTNER_LINES - len(shared))
    rng.shuffle(names)
    facts = {
        name: rng.choice([value for value in rules.kind(name).seen if value != facing.get(name)])
        for name in names
    }
    return _describe(rules, rng, facts, part=part)


def _describe(rules: Grammar, rng: random.Random, facts: Facts, *, part: Part) -> Person:
    since = dict(zip(facts, rng.sample(rules.months, len(facts)), strict=True))
    lines = (
        rules.dated(rng.choice(rules.kind(name).lines.of(part)).format(value), since[name])
        for name, value in facts.items()
    )
    return Person(facts, since, tuple(lines))


def has_held_out_pair(rules: Grammar, facts: Facts) -> bool:
    """Whether two of the facts are a combination that only test people have.

    One pair of values in ten is held out, by a rule on their places in the grammar, so that each value still
    occurs in every part. Values of the unseen part are in no such pair.
    """
    places = sorted(
        (number, kind.seen.index(facts[kind.name]))
        for number, kind in enumerate(rules.kinds)
        if facts.get(kind.name) in kind.seen
    )
    return any(
        (7 * value_a + 3 * value_b + kind_a + kind_b) % _HELD_OUT_ONE_IN == 0
        for (kind_a, value_a), (kind_b, value_b) in itertools.combinations(places, 2)
    )
