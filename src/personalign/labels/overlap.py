"""Words that two sentences share, the rare ones counting more."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from personalign.evaluation.tokens import Language, words


def inverse_document_frequency(texts: Sequence[str], *, language: Language = "en") -> dict[str, float]:
    """ln(N / df) / ln(N) of every word: 0 for one in all N texts, 1 for one in a single text.

    Dividing by ln(N) keeps a threshold meaningful for files of different size. Sparck Jones 1972.
    """
    frequency = Counter(word for text in texts for word in _word_set(text, language))
    scale = math.log(max(2, len(texts)))
    return {word: math.log(len(texts) / count) / scale for word, count in frequency.items()}


def overlap(first: str, second: str, *, weights: Mapping[str, float], language: Language = "en") -> float:
    """Summed weight of the different words that occur in both; words without a weight count 0."""
    shared = _word_set(first, language) & _word_set(second, language)
    return math.fsum(weights.get(word, 0.0) for word in shared)


@lru_cache(maxsize=100_000)
def _word_set(text: str, language: Language) -> frozenset[str]:
    return frozenset(words(text, language=language))
