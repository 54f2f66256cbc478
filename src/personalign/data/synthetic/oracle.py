"""A judge that knows the grammar: what a text states, and whether that is what a persona line says."""

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from personalign.data.synthetic.grammar import (
    Kind,
    Part,
    find_months,
    find_values,
    grammar,
    replace_values,
)

Label = Literal["entailment", "neutral", "contradiction"]
LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")

# In capitals, so that no lower-cased text has it.
_CUT = "CUT"


@dataclass(frozen=True, slots=True)
class NliPair:
    """`premise` is a persona line, `hypothesis` a reply."""

    premise: str
    hypothesis: str
    label: Label


def stated(text: str, *, language: str) -> dict[str, tuple[str, ...]]:
    """The values that `text` names, per kind, in order of mention and each once.

    Any text is read, garbled or not: each value belongs to one kind, so the value's words alone decide.
    The grammar has no negation; "i have no dog" names a dog.
    """
    values: dict[str, tuple[str, ...]] = {}
    for kind, value in find_values(text, language=language):
        if value not in values.get(kind, ()):
            values[kind] = (*values.get(kind, ()), value)
    return values


def since(text: str, *, language: str) -> dict[str, set[str]]:
    """The months that `text` names, per kind of fact that it states; none for an undated one.

    A month belongs to the value last named before it, as both languages date a fact at its end; one before every
    value belongs to the first.
    """
    opening, *facts = replace_values(text.lower(), _cut_before(language), language=language).split(_CUT)
    months: dict[str, set[str]] = {}
    for fact in facts:
        kind = next(kind for kind, _ in find_values(fact, language=language))
        months.setdefault(kind, set()).update(find_months(opening + fact, language=language))
        opening = ""
    return months


@functools.cache
def _cut_before(language: str) -> dict[str, str]:
    return {value: _CUT + value for kind in grammar(language).kinds for value in kind.seen + kind.unseen}


@dataclass(frozen=True, slots=True)
class SyntheticOracle:
    """The truth about pairs of (persona line, reply) in `language`, "en" or "zh"."""

    language: str

    def __post_init__(self) -> None:
        grammar(self.language)

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        """One label per pair.

        entailment: of the kinds that the line states, the reply states one, and only with the line's value;
        contradiction: it states one with another value (with or without the right one) or since another month;
        neutral: none.
        """
        return [self._label(line, reply) for line, reply in pairs]

    def knows(self, line: str) -> bool:
        """Whether the line states a fact of the corpus."""
        return bool(stated(line, language=self.language))

    def is_right(self, reply: str, *, line: str) -> bool:
        """Whether `reply` states what `line` says, and nothing against it."""
        return self._label(line, reply) == "entailment"

    def _label(self, line: str, reply: str) -> Label:
        told, own = stated(reply, language=self.language), stated(line, language=self.language)
        common = told.keys() & own.keys()
        if not common:
            return "neutral"
        told_since, own_since = since(reply, language=self.language), since(line, language=self.language)
        # A reply may leave the month out; one that names another is wrong.
        dated_right = all(
            not told_since[kind] or not own_since[kind] or told_since[kind] == own_since[kind]
            for kind in common
        )
        return (
            "entailment"
            if dated_right and all(told[kind] == own[kind] for kind in common)
            else "contradiction"
        )


def nli_pairs(language: str, *, size: int, seed: int, part: Part = "train") -> list[NliPair]:
    """`size` pairs with values seen in training, a third of each label (in turns), in the wordings of `part`.

    Half of the neutral replies state a fact of another kind, the others none.
    """
    return list(_pairs(language, random.Random(f"{seed}/{language}/{part}/nli"), size=size, part=part))


def _pairs(language: str, rng: random.Random, *, size: int, part: Part) -> Iterator[NliPair]:
    rules = grammar(language)
    answers = [
        answer for said in (rules.greetings, rules.exchanges) for each in said.values() for answer in each
    ]
    silent = rules.remarks + rules.evasions + tuple(answers)

    def reply(kind: Kind, value: str, month: str) -> str:
        return rules.dated(rng.choice(kind.replies_in(part)).format(value), month)

    for number in range(size):
        kind, other_kind = rng.sample(rules.kinds, 2)
        value, other_value = rng.sample(kind.seen, 2)
        month, other_month = rng.sample(rules.months, 2)
        label = LABELS[number % len(LABELS)]
        if label == "entailment":
            hypothesis = reply(kind, value, month)
        elif label == "contradiction":
            hypothesis = rng.choice((reply(kind, other_value, month), reply(kind, value, other_month)))
        else:
            other = reply(other_kind, rng.choice(other_kind.seen), other_month)
            hypothesis = rng.choice((other, rng.choice(silent)))
        premise = rules.dated(rng.choice(kind.lines.of(part)).format(value), month)
        yield NliPair(premise, hypothesis, label)
