"""What a reply is aligned against: a criterion and a rejected reply for each, and whether a judge agrees with them."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from personalign.data.people import Person
from personalign.evaluation.judge import LABELS, Judge
from personalign.evaluation.nli_rows import normalise
from personalign.methods.idl import Aligned, learnt_turns
from personalign.methods.idl_sessions import Told
from personalign.models.encoder import Encoder
from personalign.personas.criteria import CriterionMaker, Kind, criterion_maker
from personalign.personas.extraction import Extractor

# How many of a kind a report shows.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class MadeTriple:
    """What a person said at message `turn` of a session, and two replies that are worse; `kind` is the criterion's."""

    turn: int
    gold: str
    kind: Kind
    criterion: str
    rejected: str

    def aligned(self, past: int) -> Aligned:
        """For the session behind `past` messages of others."""
        return Aligned(self.turn + past, self.criterion, self.rejected)


@dataclass(slots=True)
class TripleMaker:
    """Makes triples for what people said. Build it with `triple_maker`."""

    _criteria: CriterionMaker
    _said: Mapping[str, Sequence[str]]
    _seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def of(self, told: Told, *, every_turn: bool) -> list[MadeTriple]:
        """For the last of the person's turns in the session, or every one; those without a criterion are left out."""
        session = told.session
        made = []
        for nth, turn in enumerate(session.reply_indices()):
            if turn not in learnt_turns(session, every_turn=every_turn):
                continue
            gold = session.messages[turn].content
            criterion = self._criteria.one(told.person, gold)
            if criterion is None:
                continue
            ranked = () if session.candidates is None else session.candidates[nth]
            rejected = self._rejected(told.person, gold, criterion.text, ranked)
            if rejected is not None:
                made.append(MadeTriple(turn, gold, criterion.kind, criterion.text, rejected))
        return made

    def _rejected(self, person: str, gold: str, criterion: str, candidates: Sequence[str]) -> str | None:
        """The first distractor (the release's choice: its candidates come best last), else what somebody else said."""
        taken = {normalise(gold), normalise(criterion)}
        for text in candidates:
            if text.strip() and normalise(text) not in taken:
                self.counts["rejected: a candidate"] += 1
                return text
        rng = random.Random(f"{self._seed}/rejected/{person}/{gold}")
        others = [name for name in self._said if name != person]
        rng.shuffle(others)
        for name in others:
            possible = [text for text in self._said[name] if text.strip() and normalise(text) not in taken]
            if possible:
                self.counts["rejected: somebody else's words"] += 1
                return rng.choice(possible)
        self.counts["without a rejected reply"] += 1
        return None


def triple_maker(
    people: Sequence[Person], *, extractor: Extractor | None, encoder: Encoder, similar: int, seed: int
) -> TripleMaker:
    """Reads what these people said; without an extractor, criteria are what partners said (inversion) alone."""
    criteria = criterion_maker(
        people, extractor=extractor or NoFacts(), encoder=encoder, similar=similar, seed=seed
    )
    said = {
        person.name: [text for session in person.sessions for text in session.said()] for person in people
    }
    return TripleMaker(criteria, said, seed, criteria.counts)


class NoFacts:
    """An extractor that finds nothing."""

    name = "none"

    def triples(self, texts: Sequence[str]) -> list[tuple[Any, ...]]:
        return [() for _ in texts]


def examples_by_kind(made: Iterable[Sequence[MadeTriple]]) -> dict[str, list[dict[str, Any]]]:
    """The first few of each kind."""
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for triples in made:
        for triple in triples:
            if len(found[triple.kind]) < _SHOWN:
                found[triple.kind].append(asdict(triple))
    return dict(found)


def verified(made: Sequence[tuple[Sequence[str], MadeTriple]], judge: Judge) -> dict[str, dict[str, float]]:
    """What the judge says of the criteria of each kind, and of the gold replies, as shares of those judged.

    Each triple comes with the profile of its person, which may be empty.

    `contradicts`: of the gold reply, as premise, or of a line of the person's profile; `entailed`: of the gold reply or a
    line. A conflict should contradict, an invention and the partner's words be neutral or contradict; what is entailed
    is no worse than the gold reply, and the share of it is the kind's fault.
    """
    asked: list[tuple[str, str]] = []
    owners: list[tuple[str, int]] = []
    for number, (persona, triple) in enumerate(made):
        premises = [triple.gold, *persona]
        asked += [(premise, triple.criterion) for premise in premises]
        owners += [(triple.kind, number)] * len(premises)
        asked += [(line, triple.gold) for line in persona]
        owners += [("gold", number)] * len(persona)
    labels: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for owner, found in zip(owners, judge.judge(asked).classes().tolist() if asked else [], strict=True):
        labels[owner].add(LABELS[found])
    kinds: defaultdict[str, list[set[str]]] = defaultdict(list)
    for (kind, _), every in labels.items():
        kinds[kind].append(every)
    return {
        kind: {
            "judged": float(len(held)),
            "contradicts": sum("contradiction" in item for item in held) / len(held),
            "entailed": sum("entailment" in item for item in held) / len(held),
        }
        for kind, held in kinds.items()
    }
