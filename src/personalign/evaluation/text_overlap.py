"""How much replies share with references, and with the persona."""

import math
from collections.abc import Sequence

from personalign.errors import PersonalignError
from personalign.evaluation.tokens import Language, ngrams, tokens, words

# pycocoevalcap's additive constants: they decide the score where no n-gram matches.
_SMALL = 1e-9
_TINY = 1e-15
_BETA = 1.2


def bleu_coco(
    responses: Sequence[str], references: Sequence[Sequence[str]], *, order: int, language: Language = "en"
) -> float:
    """`bleu-N/coco`: corpus BLEU in [0, 1] as pycocoevalcap (2015) computes it; tables print it times 100.

    Geometric mean of the clipped precisions 1..order, each (hits + 1e-15) / (n-grams + 1e-9), and the brevity
    penalty against the reference whose length is closest (the shorter of two equally close).
    `references[i]`: one or more references of `responses[i]`. Chinese is cut into characters. Papineni et al. 2002.
    """
    _check(responses, references)
    hits, guesses = [0] * order, [0] * order
    response_length = reference_length = 0
    for response, its_references in zip(responses, references, strict=True):
        guess = tokens(response, language=language)
        targets = [tokens(reference, language=language) for reference in its_references]
        response_length += len(guess)
        reference_length += min((abs(len(target) - len(guess)), len(target)) for target in targets)[1]
        for n in range(1, order + 1):
            most = ngrams(targets[0], n)
            for target in targets[1:]:
                most |= ngrams(target, n)
            hits[n - 1] += (ngrams(guess, n) & most).total()
            guesses[n - 1] += max(0, len(guess) - n + 1)
    product = math.prod((hit + _TINY) / (count + _SMALL) for hit, count in zip(hits, guesses, strict=True))
    ratio = (response_length + _TINY) / (reference_length + _SMALL)
    penalty = 1.0 if ratio >= 1 else math.exp(1 - 1 / ratio)
    return float(product ** (1 / order) * penalty)


def rouge_l_coco(
    responses: Sequence[str], references: Sequence[Sequence[str]], *, language: Language = "en"
) -> float:
    """`rouge-l/coco`: mean over items of the longest-common-subsequence F with beta 1.2, in [0, 1].

    Precision and recall are each the best over the references, as in pycocoevalcap, which cuts at every single space:
    the same number where tokens stand one space apart. Chinese is cut into characters. Lin 2004.
    """
    _check(responses, references)
    scores = [
        _rouge_l(tokens(response, language=language), [tokens(text, language=language) for text in targets])
        for response, targets in zip(responses, references, strict=True)
    ]
    return sum(scores) / len(scores)


def _rouge_l(guess: list[str], targets: list[list[str]]) -> float:
    common = [longest_common_subsequence(guess, target) for target in targets]
    if max(common) == 0:
        return 0.0
    precision = max(common) / len(guess)
    recall = max(length / len(target) for length, target in zip(common, targets, strict=True) if target)
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length, in len(first) * len(second) steps."""
    row = [0] * (len(second) + 1)
    for token in first:
        diagonal = 0
        for column, other in enumerate(second, start=1):
            above = row[column]
            row[column] = diagonal + 1 if token == other else max(above, row[column - 1])
            diagonal = above
    return row[-1]


def copy_rate(
    responses: Sequence[str], personas: Sequence[Sequence[str]], *, language: Language = "en"
) -> float:
    """`copy_rate`: mean over replies of `copied_share`."""
    _check(responses, personas)
    shares = [
        copied_share(response, persona, language=language)
        for response, persona in zip(responses, personas, strict=True)
    ]
    return sum(shares) / len(shares)


def copied_share(response: str, persona: Sequence[str], *, language: Language = "en") -> float:
    """Length of the longest run of words that a reply shares with one persona line, over the reply's length.

    Words are lower-cased, punctuation does not count; Chinese words are characters. 0 for a reply without words.
    """
    reply = words(response, language=language)
    if not reply:
        return 0.0
    longest = (_longest_common_run(reply, words(line, language=language)) for line in persona)
    return max(longest, default=0) / len(reply)


def _longest_common_run(first: Sequence[str], second: Sequence[str]) -> int:
    best, row = 0, [0] * (len(second) + 1)
    for token in first:
        row = [0] + [row[i] + 1 if token == other else 0 for i, other in enumerate(second)]
        best = max(best, *row)
    return best


def _check(responses: Sequence[str], others: Sequence[Sequence[str]]) -> None:
    if len(responses) != len(others) or not responses:
        raise PersonalignError(
            f"{len(responses)} responses stand against {len(others)} references or personas; "
            "give equal numbers, at least one"
        )
