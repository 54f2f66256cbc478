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


WORD = re.compile(r"[^\W\d_\u4e00-\u9fff]{3,}|[\u4e00-\u9fff]")
"""A word of three letters or more, or a Chinese character."""
# Words that say nothing of anybody.
_EMPTY = frozenset(
    [
        "the",
        "and",
        "for",
        "are",
        "was",
        "were",
        "has",
        "have",
        "had",
        "not",
        "but",
        "you",
        "your",
        "his",
        "her",
        "its",
        "our",
        "their",
        "they",
        "them",
        "with",
        "from",
        "that",
        "this",
        "there",
        "who",
        "what",
        "when",
        "how",
        "all",
        "any",
        "can",
        "will",
        "would",
        "been",
        "being",
        "like",
        "love",
        "very",
        "really",
        "most",
        "more",
        "some",
        "also",
        "just",
        "because",
        "about",
        "into",
        "out",
        "over",
        "than",
        "too",
        "one",
        "two",
        "since",
        "don",
        "ve",
        "ll",
        "我",
        "的",
        "是",
        "了",
        "在",
        "有",
        "不",
        "也",
        "很",
        "都",
        "一",
        "个",
        "和",
        "就",
        "没",
    ]
)


def content_words(text: str) -> list[str]:
    """The words that tell something, lowercased, each once."""
    return [word for word in dict.fromkeys(WORD.findall(text.lower())) if word not in _EMPTY]


def has_word(text: str, word: str) -> bool:
    """Whether the text has the word, whatever its case: a whole one, of Chinese characters anywhere."""
    if any("\u4e00" <= sign <= "\u9fff" for sign in word):
        return word in text
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


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
