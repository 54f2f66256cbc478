"""Criterion replies: worse than what the person said, because they conflict, invent, or are somebody else's."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from personalign.data.dialogue import Dialogue, Role
from personalign.data.people import Person
from personalign.errors import PersonalignError
from personalign.evaluation.nli_rows import normalise
from personalign.models.encoder import Encoder
from personalign.personas.extraction import Extractor, Triple, plain

Kind = Literal["inconsistency", "fabrication", "inversion"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# IDL, section 3.3.2, says "top-m" and no number.
SIMILAR = 50
_MARKS = " .,;:!?\"'()"


@dataclass(frozen=True, slots=True)
class Criterion:
    kind: Kind
    text: str


@dataclass(slots=True)
class CriterionMaker:
    """Makes criterion replies from what people say (IDL, section 3.3.2). Build it with `criterion_maker`."""

    _facts: Mapping[str, tuple[Triple, ...]]
    _of_person: Mapping[str, frozenset[Triple]]
    _objects: Mapping[str, Sequence[str]]
    _own_objects: Mapping[str, Mapping[str, Sequence[str]]]
    _partners: Mapping[str, Sequence[str]]
    _said: Sequence[str]
    _vectors: np.ndarray
    _row: Mapping[str, int]
    _similar: int
    _seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def every(self, person: str, reply: str) -> list[Criterion]:
        """At most one of each kind, none of them empty or what was said; the same on every call.

        Raises PersonalignError for somebody who is not among the people that were read.
        """
        if person not in self._of_person:
            raise PersonalignError(f"person: nobody who was read is called '{person}'")
        rng = random.Random(f"{self._seed}/{person}/{reply}")
        made = {
            "inconsistency": self._inconsistent(person, reply, rng),
            "fabrication": self._fabricated(person, reply, rng),
            "inversion": self._inverted(person, reply),
        }
        return [
            Criterion(kind, text)
            for kind in KINDS
            if (text := made[kind]) is not None and text.strip() and normalise(text) != normalise(reply)
        ]

    def one(self, person: str, reply: str) -> Criterion | None:
        """A kind at random, of those that can be made of this reply; counted. None, counted too, where none can."""
        found = self.every(person, reply)
        if not found:
            self.counts["none could be made"] += 1
            return None
        chosen = random.Random(f"{self._seed}/kind/{person}/{reply}").choice(found)
        self.counts[chosen.kind] += 1
        return chosen

    def _inconsistent(self, person: str, reply: str, rng: random.Random) -> str | None:
        """A fact's object replaced by another of its relation: from the person's sessions, else from anybody's."""
        facts = list(self._facts.get(reply, ()))
        rng.shuffle(facts)
        for fact in facts:
            # Without the marks around it, which stay.
            thing = fact.object.strip(_MARKS)
            place = re.search(rf"(?<!\w){re.escape(thing)}(?!\w)", reply, re.IGNORECASE) if thing else None
            if place is None:
                continue
            own = self._own_objects[person].get(fact.relation, ())
            for pool in (own, self._objects.get(fact.relation, ())):
                others = [other for other in pool if normalise(other) != normalise(fact.object)]
                if others:
                    return reply[: place.start()] + rng.choice(others) + reply[place.end() :]
        return None

    def _fabricated(self, person: str, reply: str, rng: random.Random) -> str | None:
        """Something alike that somebody else said, with facts of which the person has none."""
        if reply not in self._row:
            return None
        # Of all texts, those that some person said come first.
        likeness = self._vectors[: len(self._said)] @ self._vectors[self._row[reply]]
        nearest = np.argsort(-likeness, kind="stable")[: self._similar + 1]
        mine = self._of_person[person]
        candidates = [
            text
            for text in (self._said[at] for at in nearest)
            if (facts := self._facts.get(text, ())) and text != reply and not mine & set(map(plain, facts))
        ]
        return rng.choice(candidates) if candidates else None

    def _inverted(self, person: str, reply: str) -> str | None:
        """What a partner of the person said that is most like the reply."""
        said = [text for text in self._partners.get(person, ()) if normalise(text) != normalise(reply)]
        if reply not in self._row or not said:
            return None
        likeness = self._vectors[[self._row[text] for text in said]] @ self._vectors[self._row[reply]]
        return said[int(likeness.argmax())]


def criterion_maker(
    people: Sequence[Person], *, extractor: Extractor, encoder: Encoder, similar: int = SIMILAR, seed: int = 0
) -> CriterionMaker:
    """Read everything that these people and their partners say once: its facts and its vectors."""
    own = {person.name: _distinct(person.sessions, "assistant") for person in people}
    partners = {person.name: _distinct(person.sessions, "user") for person in people}
    said = sorted({text for texts in own.values() for text in texts})
    facts = dict(zip(said, extractor.triples(said), strict=True))
    texts = sorted({*said, *(text for held in partners.values() for text in held)})
    vectors = encoder.encode(texts)
    row = {text: at for at, text in enumerate(texts)}
    # What may be taken for the person's own is what some person said; partners' words serve inversion alone.
    places = [row[text] for text in said]
    order = [*places, *(at for at in range(len(texts)) if texts[at] not in facts)]
    return CriterionMaker(
        _facts=facts,
        _of_person={
            name: frozenset(plain(triple) for text in held for triple in facts[text])
            for name, held in own.items()
        },
        _objects=_objects_of(facts.values()),
        _own_objects={name: _objects_of(facts[text] for text in held) for name, held in own.items()},
        _partners=partners,
        _said=said,
        _vectors=vectors[order],
        _row={texts[at]: place for place, at in enumerate(order)},
        _similar=similar,
        _seed=seed,
    )


def _objects_of(facts: Iterable[Sequence[Triple]]) -> dict[str, list[str]]:
    """By relation, as they were said but for the marks around them."""
    found: dict[str, set[str]] = defaultdict(set)
    for triples in facts:
        for triple in triples:
            if thing := triple.object.strip(_MARKS):
                found[triple.relation].add(thing)
    return {relation: sorted(things) for relation, things in found.items()}


def _distinct(sessions: Iterable[Dialogue], role: Role) -> list[str]:
    return list(dict.fromkeys(text for session in sessions for text in session.said(role)))
