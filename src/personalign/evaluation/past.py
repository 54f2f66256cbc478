"""Does a reply sound like the person's own past? Lexical figures that need no profile and no model.

The past are the person's messages in other dialogues of the data or, where there are none, the earlier ones of this
dialogue. Words are lower-cased, without punctuation; no stop words are dropped.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from personalign.evaluation.bleu import Tokens
from personalign.evaluation.sums import Sums, mean_of


@dataclass(frozen=True, slots=True)
class Past:
    """`messages`: the words of each, as sets; `counts`: of all together; `idf`: ln(N / df) over the N messages."""

    messages: Sequence[frozenset[str]]
    counts: Mapping[str, int]
    idf: Mapping[str, float]


def prepare(messages: Sequence[Tokens]) -> Past:
    frequency = Counter(word for message in messages for word in set(message))
    return Past(
        [frozenset(message) for message in messages],
        Counter(word for message in messages for word in message),
        {word: math.log(len(messages) / count) for word, count in frequency.items()},
    )


def p_cover(responses: Sequence[Tokens], pasts: Sequence[Past]) -> Sums:
    """`p_cover/past`: mean over replies of max over past messages h of the idf of the words that reply and h share.

    idf(w) = ln(N / df(w)) over the person's N past messages: a word that all of them use adds nothing.
    Ma et al. 2021 (DHAP). Turns without a past are left out.
    """
    values = []
    for response, past in zip(responses, pasts, strict=True):
        own = set(response)
        values.append(
            max((sum(past.idf[word] for word in own & message) for message in past.messages), default=0.0)
        )
    return _mean_with_past(values, pasts)


def p_f1(responses: Sequence[Tokens], pasts: Sequence[Past]) -> Sums:
    """`p_f1/past`: mean unigram F1 of the reply and all past messages together; turns without a past are left out."""
    values = []
    for response, past in zip(responses, pasts, strict=True):
        own = Counter(response)
        hits = sum(min(count, past.counts.get(word, 0)) for word, count in own.items())
        values.append(_f1(hits, own.total(), sum(past.counts.values())))
    return _mean_with_past(values, pasts)


def p_f1_last(responses: Sequence[Tokens], owns: Sequence[Sequence[Tokens]]) -> Sums:
    """`p_f1/last_own`: F1 of the *sets* of words of the reply and the person's last message, as IDL's release does."""
    values = []
    for response, own in zip(responses, owns, strict=True):
        ours, theirs = set(response), set(own[-1]) if own else set()
        values.append(_f1(len(ours & theirs), len(ours), len(theirs)))
    return mean_of(values, [len(own) > 0 for own in owns])


def p_co(responses: Sequence[Tokens], pasts: Sequence[Past]) -> Sums:
    """`p_co/past`: mean cosine of the tf-idf vectors of the reply and all past messages together. Zhong et al. 2022.

    tf is the count, idf that of `p_cover`; words that the past does not have weigh nothing. 0 where nothing that weighs
    is shared; turns without a past are left out.
    """
    values = []
    for response, past in zip(responses, pasts, strict=True):
        ours = {word: count * past.idf.get(word, 0.0) for word, count in Counter(response).items()}
        theirs = {word: count * past.idf[word] for word, count in past.counts.items()}
        dot = sum(value * theirs[word] for word, value in ours.items() if word in theirs)
        norm = math.hypot(*ours.values()) * math.hypot(*theirs.values())
        values.append(dot / norm if norm > 0 else 0.0)
    return _mean_with_past(values, pasts)


def _mean_with_past(values: Sequence[float], pasts: Sequence[Past]) -> Sums:
    return mean_of(values, [len(past.messages) > 0 for past in pasts])


def _f1(hits: int, guesses: int, targets: int) -> float:
    return 2 * hits / (guesses + targets) if hits else 0.0
