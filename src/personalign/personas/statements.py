"""What people say of themselves, found by its words alone: what stands in where no extractor was trained."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

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
# Thai, Lao, Tibetan, Burmese, Hangul, Khmer, kana and Han with their marks; the half-width forms are folded into them.
_SCRIPTS = (
    "\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u19e0-\u19ff\u3005-\u3007\u3031-\u3035\u3040-\u318f"
    "\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\ua9e0-\ua9ff\uaa60-\uaa7f\uac00-\ud7ff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{_SCRIPTS}]")
# A letter, digit or underscore of any other script.
_LETTER = rf"[^\W{_SCRIPTS}]"
_ONE_FORM = {
    **dict.fromkeys(
        map(ord, "\u2018\u2019\u201b\u2032\u02b9\u02bb\u02bc\u02bd\u055a\u05f3\ua78c\uff07`\u00b4"), "'"
    ),
    **dict.fromkeys(map(ord, "\u2010\u2011"), "-"),
    # Turkish: in lower case they would be other letters than i.
    **dict.fromkeys(map(ord, "\u0130\u0131"), "i"),
}
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
    """Whether the text has the word, however both are typed: case, accents and apostrophes have several forms.

    A whole word, but in scripts that set no spaces between words, or glue endings to them: there anywhere.
    """
    said, wanted = _folded(text), _folded(word)
    if not wanted or wanted not in said:
        return False
    begin = "" if _UNSPACED.match(wanted[0]) else rf"(?<!{_LETTER})"
    end = "" if _UNSPACED.match(wanted[-1]) else rf"(?!{_LETTER})"
    return re.search(f"{begin}{re.escape(wanted)}{end}", said) is not None


def messages_with(texts: Sequence[str], words: Iterable[str]) -> dict[str, int]:
    """How many of the texts have each word."""
    return {word: sum(has_word(text, word) for text in texts) for word in dict.fromkeys(words)}


@lru_cache(maxsize=2**15)
def _folded(text: str) -> str:
    """In one form, whatever the keyboard: NFKC, lower case, straight apostrophes, no signs that nobody sees."""
    folded = unicodedata.normalize("NFKC", text.translate(_ONE_FORM)).casefold()
    seen = "".join(sign for sign in folded if unicodedata.category(sign) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen).split())


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
