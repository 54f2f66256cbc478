"""How texts are cut into words before they are compared or counted."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from personalign.errors import PersonalignError

Language = Literal["en", "zh", "zh-word"]
"""`zh` cuts Chinese into characters, `zh-word` into jieba's words; figures of one do not compare with the other's."""

# Ideographs and their extensions, kana, CJK punctuation and full-width forms: each character is a token.
_CJK = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_CJK_TOKENS = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_HAN = re.compile("[\u3400-\u9fff]")
_WORDS_AND_MARKS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_")


def mostly_chinese(texts: Sequence[str]) -> bool:
    """Whether most of the texts hold a Chinese character."""
    return 2 * sum(_HAN.search(text) is not None for text in texts) > len(texts)


def tokens(text: str, *, language: Language = "en") -> list[str]:
    """English: split at white space of any length and nothing else. Chinese: every character, or every word of jieba.

    In Chinese text, runs of other letters and digits stay whole: "我有2只dog" has 5 characters. English is cut like this
    in pycocoevalcap's BLEU; its ROUGE cuts at every single space, which differs where tokens stand further apart.
    """
    if language == "en":
        return text.split()
    if language == "zh":
        return [token for token in _CJK_TOKENS.findall(text) if not token.isspace()]
    return [token for token in _jieba().lcut(text) if not token.isspace()]


def words_and_marks(text: str, *, language: Language = "en") -> list[str]:
    """`tokens`, with each punctuation mark a token of its own: "well,yes" has 3; "don't" stays whole."""
    if language == "en":
        return _WORDS_AND_MARKS.findall(text)
    return [part for token in tokens(text, language=language) for part in _WORDS_AND_MARKS.findall(token)]


def words(text: str, *, language: Language = "en") -> list[str]:
    """Lower-cased words without punctuation."""
    return [token for token in words_and_marks(text.lower(), language=language) if token[0].isalnum()]


@cache
def _jieba() -> Any:
    try:
        import jieba
    except ImportError as error:
        raise PersonalignError(
            "Chinese words are cut by jieba, which is not installed: pip install 'personalign[zh]', or count "
            "characters with --language zh"
        ) from error
    jieba.setLogLevel("ERROR")
    return jieba
