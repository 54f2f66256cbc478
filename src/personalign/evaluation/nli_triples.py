"""NLI rows from sentences that are annotated with facts, as DialogueNLI was made (Welleck et al. 2019, section 3).

Two sentences that state one fact entail each other. Two that give one relation different objects contradict each other
where a person has one of it (a marital status, a favourite colour) and say nothing of each other where a person has many
(pets, hobbies): those are the hard neutral ones. A relation and its opposite contradict each other over one object.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalign.errors import PersonalignError
from personalign.evaluation.judge import CONTRADICTION, ENTAILMENT, LABELS, NEUTRAL
from personalign.evaluation.nli_rows import NliRow, normalise, read_objects

# Relations of PersonaExt and DialogueNLI of which a person has one, or has as if there were one.
ONE_OF = frozenset(
    {
        "attend_school",
        "diet",
        "employed_by_company",
        "employed_by_general",
        "favorite",
        "favorite_activity",
        "favorite_animal",
        "favorite_book",
        "favorite_color",
        "favorite_drink",
        "favorite_food",
        "favorite_hobby",
        "favorite_movie",
        "favorite_music",
        "favorite_music_artist",
        "favorite_place",
        "favorite_season",
        "favorite_show",
        "favorite_sport",
        "gender",
        "has_age",
        "has_degree",
        "has_profession",
        "job_status",
        "live_in_citystatecountry",
        "live_in_general",
        "marital_status",
        "name",
        "nationality",
        "physical_attribute",
        "place_origin",
        "previous_profession",
        "race",
        "school_status",
        "teach",
        "want_job",
    }
)
OPPOSITES = (
    ("like_activity", "dislike_activity"),
    ("like_animal", "dislike_animal"),
    ("like_color", "dislike_color"),
    ("like_drink", "dislike_drink"),
    ("like_drink", "do_not_drink"),
    ("like_food", "dislike_food"),
    ("like_food", "do_not_eat"),
    ("like_general", "dislike"),
    ("like_music", "dislike_music"),
    ("like_sport", "dislike_sport"),
    ("like_subject", "dislike_subject"),
    ("have_chidren", "have_no_children"),  # so spelt in PersonaExt
    ("have_children", "have_no_children"),
    ("have_family", "have_no_family"),
    ("have_pet", "have_no"),
    ("have_sibling", "have_no_sibling"),
    ("have_vehicle", "have_no"),
    ("has_ability", "weakness"),
    ("own", "have_no"),
)
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Fact:
    """One sentence and one of the facts that it states."""

    text: str
    subject: str
    relation: str
    object: str


def read_facts(path: Path | str) -> list[Fact]:
    """Rows `{text, triples: [[subject, relation, object], ...]}`, JSON or JSON Lines, compressed or not."""
    facts = []
    for place, row in read_objects(path):
        text, triples = row.get("text"), row.get("triples")
        if not isinstance(text, str) or not isinstance(triples, list):
            raise PersonalignError(f"{place}: expected {{text, triples}}, a text and a list of triples")
        for triple in triples:
            if not _is_triple(triple):
                raise PersonalignError(
                    f"{place}, field 'triples': {triple!r:.60} is not [subject, relation, object]"
                )
            subject, relation, thing = triple
            facts.append(Fact(text, normalise(subject), relation.strip(), normalise(thing)))
    return facts


def pairs_of_facts(facts: Sequence[Fact], *, limit: int, seed: int) -> list[NliRow]:
    """At most `limit` rows, a third of each class as far as the facts go; no pair twice, either way round.

    Facts of "i" and of "my ..." are facts of the speaker: subjects must be equal, or both the speaker. A text may state
    several facts, and all of them count: texts that share or oppose one are not neutral, and texts that oppose one do
    not entail each other.
    """
    shuffle = random.Random(seed)
    stated = _by(facts, lambda fact: normalise(fact.text))
    sources = {
        ENTAILMENT: _entailed(facts, shuffle),
        NEUTRAL: _neutral(facts, shuffle),
        CONTRADICTION: _contradicted(facts, shuffle),
    }
    rows: list[NliRow] = []
    seen: set[frozenset[str]] = set()
    each = limit // len(LABELS)
    for label, source in sources.items():
        kept = 0
        for first, second in source:
            key = frozenset((normalise(first.text), normalise(second.text)))
            if kept == each:
                break
            if len(key) == 2 and key not in seen and _holds(label, *(stated[text] for text in key)):
                seen.add(key)
                rows.append(NliRow(first.text, second.text, label))
                kept += 1
    shuffle.shuffle(rows)
    return rows


def _holds(label: int, first: Sequence[Fact], second: Sequence[Fact]) -> bool:
    """Whether nothing else that two texts state speaks against the label."""
    opposed = any(_opposed(one, other) for one in first for other in second)
    if label == ENTAILMENT:
        return not opposed
    shared = {_statement(fact) for fact in first} & {_statement(fact) for fact in second}
    return label == CONTRADICTION or not (opposed or shared)


def _opposed(first: Fact, second: Fact) -> bool:
    if _who(first) != _who(second):
        return False
    if first.relation == second.relation:
        return first.relation in ONE_OF and _apart(first, second)
    return first.object == second.object and not _unrelated(first, second)


def _statement(fact: Fact) -> tuple[str, str, str]:
    return _who(fact), fact.relation, fact.object


Pairs = Iterator[tuple[Fact, Fact]]


def _entailed(facts: Sequence[Fact], shuffle: random.Random) -> Pairs:
    same = _by(facts, _statement)
    yield from _drawn([group for group in same.values() if len(group) > 1], shuffle, lambda *_: True)


def _neutral(facts: Sequence[Fact], shuffle: random.Random) -> Pairs:
    """Of one relation that a person has many of, or of two relations; by turns."""
    many = _by(
        [fact for fact in facts if fact.relation not in ONE_OF], lambda fact: (_who(fact), fact.relation)
    )
    hard = _drawn([group for group in many.values() if len(group) > 1], shuffle, _apart)
    easy = _drawn(
        [list(facts)] if len(facts) > 1 else [], shuffle, lambda a, b: _unrelated(a, b) and _apart(a, b)
    )
    while True:
        pair = next(hard, None)
        other = next(easy, None)
        if pair is None and other is None:
            return
        if pair is not None:
            yield pair
        if other is not None:
            yield other


def _contradicted(facts: Sequence[Fact], shuffle: random.Random) -> Pairs:
    one = _by([fact for fact in facts if fact.relation in ONE_OF], lambda fact: (_who(fact), fact.relation))
    objects = _drawn([group for group in one.values() if len(group) > 1], shuffle, _apart)
    by_statement = _by(facts, _statement)
    opposed = [
        (first, second)
        for positive, negative in OPPOSITES
        for (who, relation, thing), group in by_statement.items()
        if relation == positive
        for first in group
        for second in by_statement.get((who, negative, thing), [])
    ]
    shuffle.shuffle(opposed)
    turns = iter(opposed)
    while True:
        pair, other = next(objects, None), next(turns, None)
        if pair is None and other is None:
            return
        if pair is not None:
            yield pair
        if other is not None:
            yield other if shuffle.random() < 0.5 else other[::-1]


def _drawn(groups: Sequence[Sequence[Fact]], shuffle: random.Random, fits: Any) -> Pairs:
    """Pairs from groups drawn by the square root of their size, so that frequent facts do not crowd out the others."""
    if not groups:
        return
    weights = [len(group) ** 0.5 for group in groups]
    # Far more than any limit; what comes back again is dropped by the caller.
    for _ in range(50 * sum(map(len, groups))):
        (group,) = shuffle.choices(groups, weights)
        for _ in range(_ATTEMPTS):
            first, second = shuffle.sample(group, 2)
            if fits(first, second):
                yield first, second
                break


def _who(fact: Fact) -> str:
    return "i" if fact.subject in ("i", "my", "me", "mine", "we", "myself") else fact.subject


def _apart(first: Fact, second: Fact) -> bool:
    """Their objects have no word in common, a plural counting as its singular: "two dogs" and "dog" may be one fact."""
    return not ({_stem(w) for w in first.object.split()} & {_stem(w) for w in second.object.split()})


def _stem(word: str) -> str:
    return re.sub(r"(ing|es|s)$", "", word)


def _unrelated(first: Fact, second: Fact) -> bool:
    opposed = {first.relation, second.relation}
    return len(opposed) == 2 and not any(opposed == set(pair) for pair in OPPOSITES)


def _by(facts: Sequence[Fact], key: Any) -> Mapping[Any, list[Fact]]:
    groups: defaultdict[Any, list[Fact]] = defaultdict(list)
    for fact in facts:
        groups[key(fact)].append(fact)
    return groups


def _is_triple(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(part, str) for part in value)
