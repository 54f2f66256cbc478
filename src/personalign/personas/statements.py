"""What people say of themselves, found by its words alone: what stands in where no extractor was trained."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from personalign.personas.extraction import Triple

# Ends of sentences in English and Chinese; of a message in several lines, each line is one.
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]*")
_ABOUT_ONESELF = re.compile(
    r"\b(i|i'm|i’m|im|i've|i’ve|i'd|i’d|i'll|i’ll|my|mine|we|our)\b|[我咱俺]", re.IGNORECASE
)
_QUESTION = re.compile(r"[?？]\s*$|[吗呢]\s*[。？?]*$")
_FEWEST_SIGNS, _MOST_SIGNS = 8, 160
_FEWEST_CHINESE = 4


@dataclass(frozen=True, slots=True)
class Statements:
    """An Extractor: each sentence in the first person that is no question is a fact, with itself for an object."""

    name: str = "sentences in the first person"

    def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
        return [tuple(Triple("i", "say", said) for said in _statements(text)) for text in texts]


def _statements(text: str) -> list[str]:
    sentences = (" ".join(match.group().split()) for match in _SENTENCE.finditer(text))
    return [said for said in sentences if _tells(said)]


def _tells(said: str) -> bool:
    found = _ABOUT_ONESELF.search(said)
    if found is None or _QUESTION.search(said):
        return False
    fewest = _FEWEST_CHINESE if found.group() in "我咱俺" else _FEWEST_SIGNS
    return fewest <= len(said) <= _MOST_SIGNS
