"""How much replies share with the gold reply, beside BLEU: ROUGE, chrF and ConvAI2's F1, each over one reference."""

import re
from collections.abc import Sequence

import numpy as np

from personalign.evaluation.bleu import Tokens, check_lengths
from personalign.evaluation.grams import grams_of, shared
from personalign.evaluation.sums import Floats, Sums, mean_of
from personalign.evaluation.tokens import Language, tokens

_COCO_BETA = 1.2
_CHRF_BETA = 2
_CHRF_ORDERS = 6
# What rouge_score (Google) keeps of a text, and what ParlAI drops before it compares words.
_NOT_ROUGE = re.compile(r"[^a-z0-9]+")
_PUNCTUATION = re.compile(r"[!\"#$%&()*+,\-./:;<=>?@\[\]\\^`{|}~_'’，。！？；：、（）「」『』“”…]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def rouge_l_coco(responses: Sequence[Tokens], golds: Sequence[Tokens]) -> Sums:
    """`rouge-l/coco`: mean F (beta 1.2) x 100 of the longest common subsequence of tokens. Lin 2004.

    pycocoevalcap cuts at every single space: the same number where tokens stand one space apart.
    """
    check_lengths(responses, golds)
    return mean_of(
        [100 * _f_of_subsequence(r, g, beta=_COCO_BETA) for r, g in zip(responses, golds, strict=True)]
    )


def rouge_l(responses: Sequence[Tokens], golds: Sequence[Tokens]) -> Sums:
    """`rouge-l/rouge_score`: the same with beta 1, on `rouge_tokens`."""
    check_lengths(responses, golds)
    return mean_of([100 * _f_of_subsequence(r, g, beta=1) for r, g in zip(responses, golds, strict=True)])


def rouge_n(responses: Sequence[Tokens], golds: Sequence[Tokens], *, order: int) -> Sums:
    """`rouge-N/rouge_score`: mean F x 100 of shared n-grams, on `rouge_tokens`. Lin 2004."""
    check_lengths(responses, golds)
    return mean_of(100 * _f_of_bags([*responses, *golds], order=order))


def rouge_tokens(text: str, *, language: Language = "en") -> Tokens:
    """Lower-cased runs of ASCII letters and digits, unstemmed: rouge_score's default; Chinese as `tokens` cuts it."""
    if language != "en":
        return tokens(text, language=language)
    return _NOT_ROUGE.sub(" ", text.lower()).split()


def f1_convai2(responses: Sequence[str], golds: Sequence[str], *, language: Language = "en") -> Sums:
    """`f1/convai2`: mean F1 x 100 of shared words, lower-cased, without punctuation and articles. Dinan et al. 2019."""
    check_lengths(responses, golds)
    return mean_of(
        100 * _f_of_bags([f1_words(text, language=language) for text in (*responses, *golds)], order=1)
    )


def f1_words(text: str, *, language: Language = "en") -> Tokens:
    """As ParlAI normalises an answer; marks of Chinese text go like those of English."""
    return tokens(_ARTICLES.sub(" ", _PUNCTUATION.sub(" ", text.lower())), language=language)


def chrf(responses: Sequence[str], golds: Sequence[str]) -> Sums:
    """`chrf/sacrebleu`: corpus chrF2 x 100, characters 1- to 6-grams without white space. Popović 2015."""
    check_lengths(responses, golds)
    half = len(responses)
    rows = np.zeros((half, 3 * _CHRF_ORDERS))
    texts = ["".join(text.split()) for text in (*responses, *golds)]
    for n, grams in enumerate(grams_of(texts, highest=_CHRF_ORDERS)):
        ours, theirs = grams.totals()[:half], grams.totals()[half:]
        # sacrebleu counts no n-gram of a reply whose gold reply is too short to have any.
        rows[:, 3 * n] = np.where(theirs > 0, ours, 0)
        rows[:, 3 * n + 1] = theirs
        rows[:, 3 * n + 2] = shared(grams)
    return Sums(rows, _chrf_value)


def _chrf_value(totals: Floats) -> Floats:
    grams, golds, hits = (totals[..., column::3] for column in range(3))
    counted = (grams > 0) & (golds > 0)
    orders = np.maximum(counted.sum(axis=-1), 1)
    precision = (np.where(counted, hits / np.maximum(grams, 1), 0)).sum(axis=-1) / orders
    recall = (np.where(counted, hits / np.maximum(golds, 1), 0)).sum(axis=-1) / orders
    below = _CHRF_BETA**2 * precision + recall
    return np.where(
        below > 0, 100 * (1 + _CHRF_BETA**2) * precision * recall / np.where(below > 0, below, 1), 0.0
    )


def _f_of_subsequence(response: Tokens, gold: Tokens, *, beta: float) -> float:
    hits = longest_common_subsequence(response, gold)
    if hits == 0:
        return 0.0
    precision, recall = hits / len(response), hits / len(gold)
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def _f_of_bags(texts: Sequence[Tokens], *, order: int) -> Floats:
    """[N / 2]: F1 of the n-grams of text i and text i + N / 2; 0 where nothing is shared."""
    *_, grams = grams_of(texts, highest=order)
    totals, half = grams.totals(), len(texts) // 2
    return np.asarray(2 * shared(grams) / np.maximum(1, totals[:half] + totals[half:]))


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length, one step per token of `second`: a row of the usual table is kept as the bits of a number.

    Hyyrö 2004: bit i is 0 where the length grows with token i of `first`.
    """
    places: dict[str, int] = {}
    for index, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << index
    whole = (1 << len(first)) - 1
    row = whole
    for token in second:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & whole
    return len(first) - row.bit_count()
