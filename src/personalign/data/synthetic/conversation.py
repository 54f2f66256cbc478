"""What two people of the synthetic corpus say to each other, with the truth about every reply."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from personalign.data.synthetic.grammar import Grammar, Part
from personalign.data.synthetic.people import Person

EXCHANGES = 7
MOST_EXCHANGES = 20
# With seven exchanges 55 % are answers: people of three lines run out of them, people of six do not.
_SHARE_OF_ANSWERS = 0.6
_OWN_FACT_FIRST = 0.8
_GREETING = 0.7

Act = Literal["answer", "evade", "remark", "talk"]

# Sampled from without replacement: 7 kinds or more are left to ask for in vain, and 5 facts to tell.
_ACTS_WITHOUT_LINE: tuple[Act, ...] = ("talk",) * 8 + ("evade",) * 7 + ("remark",) * 5


@dataclass(frozen=True, slots=True)
class Exchange:
    """The partner says `said`, the person replies `reply`.

    `act`: `answer` states the persona line of `kind`; `evade` answers a question of a `kind` that no line
    answers; `remark` answers the partner's own fact; `talk` is small talk. Only an `answer` has a `value`.
    """

    said: str
    reply: str
    act: Act
    kind: str | None = None
    value: str | None = None


def converse(
    rules: Grammar, rng: random.Random, *, person: Person, partner: Person, exchanges: int, part: Part
) -> list[Exchange]:
    """A dialogue of 1 to 20 exchanges in which no kind is asked for twice."""
    acts = _plan(rng, exchanges, lines=len(person.facts))
    own_facts = [
        (kind, rules.dated(rng.choice(rules.kind(kind).lines.of(part)).format(value), partner.since[kind]))
        for kind, value in partner.facts.items()
    ]
    rng.shuffle(own_facts)
    told = own_facts[: acts.count("remark")]
    untold = dict(own_facts[len(told) :])
    known = iter(rng.sample(tuple(person.facts), len(person.facts)))
    unknown = [kind.name for kind in rules.kinds if kind.name not in person.facts]
    rng.shuffle(unknown)
    strangers = iter(unknown)
    remarks = iter(told)
    small_talk = _small_talk(rules, rng, opens=acts[0] == "talk")

    def question(kind: str) -> str:
        plain = rng.choice(rules.kind(kind).questions.of(part))
        if kind not in untold or rng.random() >= _OWN_FACT_FIRST:
            return plain
        return rules.join(untold.pop(kind), rng.choice((plain, rng.choice(rules.and_you))))

    def exchange(act: Act) -> Exchange:
        if act == "answer":
            kind = next(known)
            value = person.facts[kind]
            plain = rng.choice(rules.kind(kind).replies_in(part)).format(value)
            reply = rules.dated(plain, person.since[kind])
            return Exchange(question(kind), reply, act, kind, value)
        if act == "evade":
            kind = next(strangers)
            return Exchange(question(kind), rng.choice(rules.evasions), act, kind)
        if act == "remark":
            kind, statement = next(remarks)
            return Exchange(statement, rng.choice(rules.remarks), act, kind)
        return Exchange(*next(small_talk), act)

    return [exchange(act) for act in acts]


def _plan(rng: random.Random, exchanges: int, *, lines: int) -> list[Act]:
    """Three answers in five, as far as the lines reach."""
    answers = min(lines, int(_SHARE_OF_ANSWERS * exchanges + rng.random()))
    acts: list[Act] = ["answer"] * answers
    acts += rng.sample(_ACTS_WITHOUT_LINE, exchanges - answers)
    rng.shuffle(acts)
    return acts


def _small_talk(rules: Grammar, rng: random.Random, *, opens: bool) -> Iterator[tuple[str, str]]:
    if opens and rng.random() < _GREETING:
        greeting = rng.choice(tuple(rules.greetings))
        yield greeting, rng.choice(rules.greetings[greeting])
    for opening in rng.sample(tuple(rules.exchanges), len(rules.exchanges)):
        yield opening, rng.choice(rules.exchanges[opening])
