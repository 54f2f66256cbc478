"""Facts in what people say: (subject, relation, object) triples, and the utterances that hold any."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple, Protocol

from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError
from personalign.evaluation.nli_rows import normalise
from personalign.evaluation.nli_triples import Fact

# After a mark and a space, so that neither "3.5" nor "example.org" is cut; Chinese has no space there.
_ENDS = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")


class Triple(NamedTuple):
    """A fact, such as ("i", "have_pet", "two dogs"); subject and object are words of the sentence."""

    subject: str
    relation: str
    object: str


class Extractor(Protocol):
    """Finds the facts of sentences. Two kinds: a tagger on a small encoder, and a language model that writes them."""

    @property
    def name(self) -> str: ...

    def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
        """The facts of each text, in order; an empty tuple for a text without any."""
        ...


def sentences_of(text: str) -> list[str]:
    """The sentences of a message; a line is one, or several."""
    return [said for part in _ENDS.split(text) if (said := part.strip())]


@dataclass(frozen=True, slots=True)
class BySentence:
    """An extractor that reads the sentences of each message apart: of one text a tagger finds one fact."""

    extractor: Extractor

    @property
    def name(self) -> str:
        return self.extractor.name

    def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
        """The facts of each message's sentences, each once."""
        cut = [sentences_of(text) for text in texts]
        found = iter(self.extractor.triples([said for sentences in cut for said in sentences]))
        return [
            tuple(dict.fromkeys(triple for _ in sentences for triple in next(found))) for sentences in cut
        ]


def persona_intensive(dialogue: Dialogue, extractor: Extractor) -> list[str]:
    """The person's messages that hold a fact (IDL, Eq. 2); all of them where none does (IDL's release).

    What is extracted from is what the person says; a message counts where the object of one of its facts stands in it.
    """
    return persona_intensive_of([dialogue], extractor)[0]


def persona_intensive_of(dialogues: Sequence[Dialogue], extractor: Extractor) -> list[list[str]]:
    """`persona_intensive` of each; the extractor reads all messages in one call."""
    found = iter(extractor.triples([text for dialogue in dialogues for text in dialogue.said()]))
    kept = []
    for dialogue in dialogues:
        said = list(dialogue.said())
        facts = [next(found) for _ in said]
        kept.append(
            [text for text, triples in zip(said, facts, strict=True) if _stands_in(triples, text)] or said
        )
    return kept


def _stands_in(triples: Sequence[Triple], text: str) -> bool:
    words = " ".join(text.lower().split())
    return any(triple.object.lower() in words for triple in triples)


@dataclass(frozen=True, slots=True)
class ExtractionScores:
    """Shares of the gold triples: exact matches (IDL, A.2: one wrong element makes it false), and F1 per element.

    Case and punctuation make no difference. An element counts as found where the text's triples have it, in any order;
    F1 of exact triples is `f1`.
    """

    texts: int
    gold: int
    exact_match: float
    f1: float
    subject_f1: float
    relation_f1: float
    object_f1: float


def score_extraction(gold: Sequence[Sequence[Triple]], found: Sequence[Sequence[Triple]]) -> ExtractionScores:
    """Compare what was found with what is right, text by text."""
    right, given = ([[plain(triple) for triple in triples] for triples in side] for side in (gold, found))
    pairs = zip(right, given, strict=True)
    exact = sum(triple in others for triples, others in pairs for triple in triples)
    total = sum(map(len, right))
    whole, *elements = (
        _f1([[pick(triple) for triple in triples] for triples in right],
            [[pick(triple) for triple in triples] for triples in given])
        for pick in (tuple, itemgetter(0), itemgetter(1), itemgetter(2))
    )  # fmt: skip
    return ExtractionScores(len(right), total, exact / max(1, total), whole, *elements)


def plain(triple: Triple) -> Triple:
    """As two triples are compared: without case and punctuation."""
    return Triple(normalise(triple.subject), triple.relation, normalise(triple.object))


def _f1(gold: Sequence[Sequence[object]], found: Sequence[Sequence[object]]) -> float:
    hits = 0
    for right, given in zip(gold, found, strict=True):
        left = list(right)
        for item in given:
            if item in left:
                left.remove(item)
                hits += 1
    total = sum(map(len, gold)) + sum(map(len, found))
    return 2 * hits / total if total else 1.0


def split_facts(facts: Sequence[Fact], *, held_out: float, seed: int) -> tuple[list[Fact], list[Fact]]:
    """Those to learn from and those held out, by sentence, however it is cased and punctuated."""
    texts = sorted({normalise(fact.text) for fact in facts})
    if len(texts) < 2:
        raise PersonalignError(f"{len(texts)} sentences cannot be split; give at least two")
    random.Random(f"{seed}/extraction").shuffle(texts)
    chosen = set(texts[: max(1, round(held_out * len(texts)))])
    held = [normalise(fact.text) in chosen for fact in facts]
    return (
        [fact for fact, out in zip(facts, held, strict=True) if not out],
        [fact for fact, out in zip(facts, held, strict=True) if out],
    )


def gold_triples(facts: Sequence[Fact]) -> dict[str, tuple[Triple, ...]]:
    """The facts by sentence."""
    found: dict[str, list[Triple]] = {}
    for fact in facts:
        found.setdefault(fact.text, []).append(Triple(fact.subject, fact.relation, fact.object))
    return {text: tuple(triples) for text, triples in found.items()}
