"""The synthetic corpus: dialogues whose every reply is known to express one persona line, or none."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from personalign._files import write_jsonl
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.native import dialogue_to_row
from personalign.data.synthetic.conversation import EXCHANGES, MOST_EXCHANGES, converse
from personalign.data.synthetic.grammar import Grammar, Kind, Part, grammar
from personalign.data.synthetic.people import Facts, Person, has_held_out_pair, new_partner, new_person
from personalign.errors import PersonalignError

# To be raised with every change of what the same settings generate: a run then makes its dialogues anew.
CORPUS_VERSION = 2

Split = Literal["train", "align", "stop", "test", "unseen"]
SPLITS: tuple[Split, ...] = ("train", "align", "stop", "test", "unseen")

# Far below the 109,824 sets of six unseen facts, so that a new one is found soon.
_MOST_UNSEEN = 20_000

# Wordings that a split is told in. Held-out wordings in `stop` let thresholds be set on what test is like.
_PART: Mapping[Split, Part] = {
    "train": "train",
    "align": "train",
    "stop": "stop",
    "test": "test",
    "unseen": "test",
}


@dataclass(frozen=True, slots=True)
class Corpus:
    """The dialogues of each split; people and their sets of facts are disjoint between splits.

    - `train`, `align`: training wordings, training combinations of facts.
    - `stop`: persona lines and questions in wordings of its own, training combinations.
    - `test`: persona lines and questions in wordings of its own, and each person has a pair of facts that
      nobody in the splits above has. Replies may be in held-out wordings, too.
    - `unseen`: as test, but every fact of the person has a value that occurs in no other split.
    """

    language: str
    train: tuple[Dialogue, ...]
    align: tuple[Dialogue, ...]
    stop: tuple[Dialogue, ...]
    test: tuple[Dialogue, ...]
    unseen: tuple[Dialogue, ...]

    def splits(self) -> dict[Split, tuple[Dialogue, ...]]:
        return {
            "train": self.train,
            "align": self.align,
            "stop": self.stop,
            "test": self.test,
            "unseen": self.unseen,
        }


def generate(
    language: str,
    *,
    seed: int,
    people: Mapping[str, int],
    sessions_per_person: int = 1,
    exchanges: int = EXCHANGES,
) -> Corpus:
    """Draw a corpus in `language` ("en" or "zh"); equal arguments give an equal corpus on every machine.

    `people` is the number of people per split (a split left out is empty). Each person has
    `sessions_per_person` dialogues, each with another partner, of `exchanges` (1 to 20) messages by either
    speaker. People have three to six lines. About 45 % of the replies express no line with 7 exchanges; more with more,
    for want of lines.

    `Dialogue.extra` holds `language` and `truth`, per assistant turn an object of `act`, `kind` and `value`:
    `kind` is what was asked or told (null for small talk), `value` what the reply must state (null for none).

    Raises PersonalignError for an unknown language or split, and for numbers out of range.
    """
    rules = grammar(language)
    _check(people, sessions_per_person=sessions_per_person, exchanges=exchanges)
    taken: set[frozenset[tuple[str, str]]] = set()
    drawn: dict[Split, tuple[Dialogue, ...]] = {}
    for split in SPLITS:
        rng = random.Random(f"{seed}/{language}/{split}")
        drawn[split] = tuple(
            _session(
                rules,
                rng,
                person,
                name=f"{split}-{number:05d}",
                session=session,
                split=split,
                exchanges=exchanges,
            )
            for number in range(people.get(split, 0))
            for person in (_person(rules, rng, split=split, taken=taken),)
            for session in range(sessions_per_person)
        )
    return Corpus(language=language, **drawn)


def write_corpus(folder: Path | str, corpus: Corpus) -> dict[Split, Path]:
    """Write each split that has dialogues to `folder`/SPLIT.jsonl, in the native format; return the files."""
    paths: dict[Split, Path] = {}
    for split, dialogues in corpus.splits().items():
        if dialogues:
            paths[split] = Path(folder) / f"{split}.jsonl"
            write_jsonl(paths[split], map(dialogue_to_row, dialogues))
    return paths


def _check(people: Mapping[str, int], *, sessions_per_person: int, exchanges: int) -> None:
    for split, count in people.items():
        if split not in SPLITS:
            raise PersonalignError(f"people: there is no split '{split}'; write one of {', '.join(SPLITS)}")
        if count < 0:
            raise PersonalignError(f"people: {split} is {count}; write 0 or more")
    if people.get("unseen", 0) > _MOST_UNSEEN:
        raise PersonalignError(f"people: unseen is {people['unseen']}; write at most {_MOST_UNSEEN}")
    if sessions_per_person < 1:
        raise PersonalignError(f"sessions_per_person is {sessions_per_person}; write 1 or more")
    if not 1 <= exchanges <= MOST_EXCHANGES:
        raise PersonalignError(f"exchanges is {exchanges}; write a number from 1 to {MOST_EXCHANGES}")


def _person(
    rules: Grammar, rng: random.Random, *, split: Split, taken: set[frozenset[tuple[str, str]]]
) -> Person:
    def values(kind: Kind) -> tuple[str, ...]:
        return kind.unseen if split == "unseen" else kind.seen

    def accept(facts: Facts) -> bool:
        in_right_split = split == "unseen" or has_held_out_pair(rules, facts) == (split == "test")
        return in_right_split and frozenset(facts.items()) not in taken

    person = new_person(rules, rng, part=_PART[split], values=values, accept=accept)
    taken.add(frozenset(person.facts.items()))
    return person


def _session(
    rules: Grammar,
    rng: random.Random,
    person: Person,
    *,
    name: str,
    session: int,
    split: Split,
    exchanges: int,
) -> Dialogue:
    part = _PART[split]
    partner = new_partner(rules, rng, part=part, facing=person.facts)
    said = converse(rules, rng, person=person, partner=partner, exchanges=exchanges, part=part)
    line_of = {kind: index for index, kind in enumerate(person.facts)}
    messages = (turn for each in said for turn in (Turn("user", each.said), Turn("assistant", each.reply)))
    truth = [{"act": each.act, "kind": each.kind, "value": each.value} for each in said]
    return Dialogue(
        id=f"{name}-{session}",
        persona=person.lines,
        partner_persona=partner.lines,
        messages=tuple(messages),
        relevant=tuple((line_of[each.kind],) if each.act == "answer" and each.kind else () for each in said),
        person=name,
        extra={"language": rules.language, "truth": truth},
    )
