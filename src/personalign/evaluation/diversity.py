"""How varied the replies of a system are, over the whole test set. Both fall or rise with its size."""

import math
from collections import Counter
from collections.abc import Sequence

from personalign.evaluation.tokens import Language, ngrams, words_and_marks


def entropy(responses: Sequence[str], *, order: int, language: Language = "en") -> float:
    """`entropy-N/corpus`: -sum p ln p, in nats, of the n-grams pooled over all replies.

    Punctuation marks are tokens of their own, and so is each Chinese character. Zhang et al. 2018; PAL prints one of
    orders 1 to 4 without saying which. 0 where no reply is as long as `order`.
    """
    counts = _pooled(responses, order=order, language=language)
    total = counts.total()
    return sum(count / total * math.log(total / count) for count in counts.values()) if total else 0.0


def distinct(responses: Sequence[str], *, order: int, language: Language = "en") -> float:
    """`distinct-N/corpus`: different n-grams over all replies, per *token* (not per n-gram), in [0, 1].

    Dividing by tokens is Li et al. 2016 and what PAL computes for both orders. Tokens are those of `entropy`.
    """
    token_count = sum(len(words_and_marks(response, language=language)) for response in responses)
    return len(_pooled(responses, order=order, language=language)) / token_count if token_count else 0.0


def _pooled(responses: Sequence[str], *, order: int, language: Language) -> Counter[tuple[str, ...]]:
    pooled: Counter[tuple[str, ...]] = Counter()
    for response in responses:
        pooled.update(ngrams(words_and_marks(response, language=language), order))
    return pooled
