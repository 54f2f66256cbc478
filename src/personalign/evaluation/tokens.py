"""How texts are cut into words before they are compared or counted."""

import re
from collections import Counter
from typing import Literal

Language = Literal["en", "zh"]

# Ideographs and their extensions, kana, CJK punctuation and full-width forms: each character is a token.
_CJK = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_CJK_TOKENS = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_WORDS_AND_MARKS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")


def tokens(text: str, *, language: Language = "en") -> list[str]:
    """English: split at white space of any length and nothing else. Chinese: every character.

    In Chinese text, runs of other letters and digits stay whole: "我有2只dog" has 5 tokens. English is cut like this in
    pycocoevalcap's BLEU; its ROUGE cuts at every single space, which differs where tokens stand further apart.
    """
    if language == "zh":
        return [token for token in _CJK_TOKENS.findall(text) if not token.isspace()]
    return text.split()


def words_and_marks(text: str, *, language: Language = "en") -> list[str]:
    """`tokens`, with each punctuation mark a token of its own: "well,yes" has 3; "don't" stays whole."""
    if language == "zh":
        return [part for token in tokens(text, language="zh") for part in _WORDS_AND_MARKS.findall(token)]
    return _WORDS_AND_MARKS.findall(text)


def words(text: str, *, language: Language = "en") -> list[str]:
    """Lower-cased words without punctuation."""
    return [token for token in words_and_marks(text.lower(), language=language) if token[0].isalnum()]


def ngrams(sequence: list[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n tokens occurs."""
    return Counter(zip(*(sequence[start:] for start in range(n)), strict=False))
