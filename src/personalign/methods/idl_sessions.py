"""Which sessions of a person are told before which, and in what order: what IDL learns from and answers from."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from personalign.data.dialogue import Dialogue
from personalign.data.people import Person
from personalign.methods.idl import Remembered, remember
from personalign.methods.idl_recipe import Sessions
from personalign.models.encoder import Encoder
from personalign.personas.edit_distance import Distances, EncodedSession, edit_distances_of, encode_sessions
from personalign.personas.extraction import Extractor, persona_intensive_of
from personalign.personas.identification import Sample, cluster, identify
from personalign.personas.ordering import order_sessions_of
from personalign.prompts import UNSELECTED, Prompter

# Of more sessions of one person only those are compared that are told together.
MOST_COMPARED = 200


@dataclass(frozen=True, slots=True)
class Told:
    """A session behind `references`, the first of which is told first; `how` says what ordered them."""

    person: str
    session: Dialogue
    references: tuple[Dialogue, ...]
    how: str

    def fitting(self, prompter: Prompter, *, room: int = 0) -> "Told":
        """Without as many of the first references as keep the last turn, or the next one, from being shown whole.

        Whole sessions go rather than messages: all turns of a session then have one history, which they share in a tree.
        `room` tokens of the prompt stay free.
        """
        told = self
        while told.references and not told._fits(prompter, room):
            told = replace(told, references=told.references[1:])
        return told

    def _fits(self, prompter: Prompter, room: int) -> bool:
        dialogue = self.remembered().dialogue
        turn = len(dialogue.messages) if not self.session.messages else dialogue.reply_indices()[-1]
        if prompter.window(dialogue, turn).trimmed:
            return False
        return (
            not room
            or len(prompter.reply(dialogue, turn, line=UNSELECTED)) + room <= prompter.settings.budget
        )

    def latest(self, count: int) -> "Told":
        """Behind so many of the references, those that are told last."""
        return replace(self, references=self.references[len(self.references) - count :])

    def remembered(self) -> Remembered:
        return remember(self.session, self.references)

    def row(self) -> dict[str, Any]:
        """As it is kept: who is told before whom, by the sessions' ids."""
        told = [reference.id for reference in self.references]
        return {"person": self.person, "session": self.session.id, "references": told, "how": self.how}


@dataclass(frozen=True, slots=True)
class People:
    """People with what decides the order of their sessions.

    Of each person: the sessions' messages as vectors, the distances of the sessions [sessions, sessions], a unit vector
    for each session [sessions, width], and the cluster of each. Distances are None of somebody of very many sessions,
    few of which are ever told together.
    """

    people: Sequence[Person]
    encoded: Sequence[Sequence[EncodedSession]]
    distances: Sequence[Distances | None]
    vectors: Sequence[np.ndarray]
    clusters: Sequence[np.ndarray]

    def __iter__(self) -> Iterator[tuple[int, Person, np.ndarray, np.ndarray]]:
        return zip(range(len(self.people)), self.people, self.vectors, self.clusters, strict=True)

    def distances_among(self, chosen: Sequence[tuple[int, Sequence[int]]]) -> list[Distances]:
        """Of a person, by number, the distances of some sessions to each other; for many at a time."""
        held = [(self.distances[person], list(sessions)) for person, sessions in chosen]
        fresh = iter(
            edit_distances_of(
                [
                    [self.encoded[person][at] for at in sessions]
                    for person, sessions in chosen
                    if self.distances[person] is None
                ]
            )
        )
        return [next(fresh) if table is None else table[np.ix_(at, at)] for table, at in held]


def read_people(
    people: Sequence[Person], settings: Sessions, *, encoder: Encoder, extractor: Extractor | None, seed: int
) -> People:
    """Encode what the people said once: their messages, and what of them tells facts."""
    sessions = [session for person in people for session in person.sessions]
    sizes = np.cumsum([len(person.sessions) for person in people])[:-1]
    encoded = encode_sessions(sessions, encoder)
    ends = [0, *sizes.tolist(), len(sessions)]
    owned = [encoded[start:end] for start, end in pairwise(ends)] if people else []
    few = [held for held in owned if len(held) <= MOST_COMPARED]
    tables = iter(edit_distances_of(few))
    distances = [next(tables) if len(held) <= MOST_COMPARED else None for held in owned]
    telling = map(" ".join, _telling(sessions, extractor))
    vectors = np.split(encoder.encode(list(telling)), sizes) if people else []
    clusters = [
        cluster(held, clusterer=settings.clusterer, clusters=settings.clusters, seed=seed) for held in vectors
    ]
    return People(people, owned, distances, vectors, clusters)


def _telling(sessions: Sequence[Dialogue], extractor: Extractor | None) -> list[list[str]]:
    if extractor is not None:
        return persona_intensive_of(sessions, extractor)
    return [list(session.said()) for session in sessions]


def told_in_training(
    people: People, settings: Sessions, *, static: bool = True, dynamic: bool = True, seed: int
) -> list[Told]:
    """What stage 1 learns from.

    Without `static` identification the same sessions are told after as many others of the person, drawn at random;
    without `dynamic` identification the references come in any order. (IDL, Table 3.)
    """
    # Two draws, so that sessions in any order are the same sessions.
    drawing, shuffling = random.Random(f"{seed}/told"), random.Random(f"{seed}/order")
    chosen: list[tuple[int, int, list[int]]] = []
    for number, person, vectors, clusters in people:
        for sample in identify(
            vectors,
            clusters,
            rule=settings.identification,
            neighbours=settings.references,
            seed=_seed_of(person, seed),
        ):
            references = list(sample.references)
            if not static:
                references = _others(sample, len(person.sessions), len(references), drawing)
            chosen.append((number, sample.target, references))
    if not dynamic:
        for _, _, references in chosen:
            shuffling.shuffle(references)
    rule = settings.ordering if dynamic else "none"
    kept = [(number, [*references, target]) for number, target, references in chosen]
    orders = order_sessions_of(
        people.distances_among(kept), [len(sessions) - 1 for _, sessions in kept], rule=rule
    )
    return [
        _told(people.people[number], sessions[-1], [sessions[place] for place in order.sessions], order.how)
        for (number, sessions), order in zip(kept, orders, strict=True)
    ]


def _told(person: Person, target: int, references: Sequence[int], how: str) -> Told:
    return Told(person.name, person.sessions[target], tuple(person.sessions[at] for at in references), how)


def _seed_of(person: Person, seed: int) -> int:
    # One number for all would have everybody's same session chosen.
    return random.Random(f"{seed}/{person.name}").randrange(2**31)


def _others(sample: Sample, sessions: int, count: int, rng: random.Random) -> list[int]:
    others = [at for at in range(sessions) if at != sample.target]
    return rng.sample(others, count)


def told_in_test(
    people: People, settings: Sessions, *, answer: str, most: int | None = None, cluster_of: str | None = None
) -> list[Told]:
    """What is answered from: every session after the person's others, or (`answer` "last") the last after the others.

    What somebody says in the session that is answered is not known, so nothing here reads it: the latest `most` other
    sessions are told (by default as many as in training), the latest of them last, the others on the shortest way to
    that one. Only `cluster_of`, "in" or "out", looks at it, as IDL's Table 5 does: the sessions of its own cluster or of
    the others, of either as many as there are of both.
    """
    most = settings.references if most is None else most
    chosen: list[tuple[int, int, list[int]]] = []
    for number, person, _, clusters in people:
        count = len(person.sessions)
        for target in range(count) if answer == "each" else [count - 1]:
            others = [at for at in range(count) if at != target]
            limit = most
            if cluster_of is not None:
                own = [at for at in others if clusters[at] == clusters[target]]
                foreign = [at for at in others if clusters[at] != clusters[target]]
                limit = min(most, len(own), len(foreign))
                others = own if cluster_of == "in" else foreign
            chosen.append((number, target, others[len(others) - limit :] if limit else []))
    ordered = _latest_last(people, [(number, references) for number, _, references in chosen], settings)
    return [
        _told(people.people[number], target, places, how)
        for (number, target, _), (places, how) in zip(chosen, ordered, strict=True)
    ]


def told_to(people: People, settings: Sessions, session: Dialogue) -> Told:
    """A session that is to come, behind the latest of the only person's others, in the order of `told_in_test`."""
    [person] = people.people
    latest = list(range(len(person.sessions)))[-settings.references :]
    [(places, how)] = _latest_last(people, [(0, latest)], settings)
    return Told(person.name, session, tuple(person.sessions[at] for at in places), how)


def _latest_last(
    people: People, chosen: Sequence[tuple[int, Sequence[int]]], settings: Sessions
) -> list[tuple[list[int], str]]:
    """Sessions of each, the last of those given staying last, and what ordered them."""
    known = [(number, references) for number, references in chosen if references]
    orders = iter(
        order_sessions_of(
            people.distances_among(known),
            [len(references) - 1 for _, references in known],
            rule=settings.ordering,
        )
    )
    found: list[tuple[list[int], str]] = []
    for _, references in chosen:
        if references:
            order = next(orders)
            found.append(([*(references[place] for place in order.sessions), references[-1]], order.how))
        else:
            found.append(([], "nothing to order"))
    return found


def summary(told: Sequence[Told]) -> dict[str, Any]:
    """How many sessions, of how many people, after how many others, ordered by what."""
    return {
        "sessions": len(told),
        "people": len({item.person for item in told}),
        "references": dict(sorted(Counter(len(item.references) for item in told).items())),
        "ordered by": dict(Counter(item.how for item in told)),
    }
