"""BLEU as three libraries compute it, from the same counts, against one reference each.

They agree where n-grams of every order match and differ in tokens, in smoothing and in what a reply shorter than the
order counts; on dialogue, where few 4-grams match, that is up to a point or two. Papineni et al. 2002.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np

from personalign.errors import PersonalignError
from personalign.evaluation.grams import grams_of, shared
from personalign.evaluation.sums import Floats, Sums, mean_of

Variant = Literal["coco", "nltk", "sacrebleu"]

ORDERS = 4
# pycocoevalcap's additive constants: they decide the score where no n-gram matches.
_SMALL = 1e-9
_TINY = 1e-15

Tokens = list[str]


def bleu_counts(responses: Sequence[Sequence[str]], golds: Sequence[Sequence[str]]) -> Floats:
    """[N, 14]: clipped hits and n-grams of orders 1 to 4, length, length of the gold reply, nltk's n-grams."""
    check_lengths(responses, golds)
    lengths = np.array([len(response) for response in responses])
    rows = np.zeros((len(responses), 3 * ORDERS + 2))
    rows[:, 2 * ORDERS] = lengths
    rows[:, 2 * ORDERS + 1] = [len(gold) for gold in golds]
    for n, grams in enumerate(grams_of([*responses, *golds], highest=ORDERS), start=1):
        rows[:, n - 1] = shared(grams)
        rows[:, ORDERS + n - 1] = np.maximum(0, lengths - n + 1)
        rows[:, 2 * ORDERS + 1 + n] = np.maximum(1, lengths - n + 1)
    return rows


def bleu(counts: Floats, *, order: int, variant: Variant) -> Sums:
    """Corpus BLEU x 100 of orders 1 to `order`, from `bleu_counts` [N, 14].

    - `coco`, pycocoevalcap (2015): each precision is (hits + 1e-15) / (n-grams + 1e-9).
    - `nltk`, corpus_bleu without smoothing: a reply shorter than an order counts as one n-gram of it, an order
      without hits as the smallest float; 0 without a single word in common.
    - `sacrebleu`, Post 2018, smoothing `exp`: the k-th order without hits counts as 1 / 2^k hits.
    """
    value = {"coco": _coco, "nltk": _nltk, "sacrebleu": _sacrebleu}[variant]
    return Sums(counts, partial(value, order=order))


def bleu_idl_legacy(responses: Sequence[str], golds: Sequence[str], *, order: int) -> Sums:
    """What IDL's release prints as BLEU: nltk's sentence BLEU of *characters*, the gold reply scored against ours.

    Mean over replies x 100. It is two to three times any other BLEU and compares with none: for reproduction alone.
    """
    return mean_of(_nltk(bleu_counts(golds, responses), order=order))


def _coco(totals: Floats, *, order: int) -> Floats:
    hits, grams = totals[..., :order], totals[..., ORDERS : ORDERS + order]
    product = np.prod((hits + _TINY) / (grams + _SMALL), axis=-1)
    ratio = (totals[..., 2 * ORDERS] + _TINY) / (totals[..., 2 * ORDERS + 1] + _SMALL)
    penalty = np.where(ratio >= 1, 1.0, np.exp(1 - 1 / np.minimum(ratio, 1)))
    return np.asarray(100 * product ** (1 / order) * penalty)


def _nltk(totals: Floats, *, order: int) -> Floats:
    hits, grams = totals[..., :order], totals[..., 2 * ORDERS + 2 : 2 * ORDERS + 2 + order]
    # A part without a reply has no n-gram to divide by, and no hit either.
    precisions = np.where(hits > 0, hits / np.maximum(grams, 1), sys.float_info.min)
    means = np.exp(np.log(precisions).mean(axis=-1))
    return np.where(totals[..., 0] > 0, 100 * means * _penalty(totals), 0.0)


def _sacrebleu(totals: Floats, *, order: int) -> Floats:
    hits, grams = totals[..., :order], totals[..., ORDERS : ORDERS + order]
    missed = np.cumsum(hits == 0, axis=-1)
    smoothed = np.where(hits > 0, hits, 0.5**missed) / np.maximum(grams, 1)
    scores = 100 * np.exp(np.log(smoothed).mean(axis=-1)) * _penalty(totals)
    return np.where(hits.any(axis=-1) & (grams > 0).all(axis=-1), scores, 0.0)


def _penalty(totals: Floats) -> Floats:
    """The brevity penalty of the paper; 0 for a corpus of empty replies."""
    length, gold = totals[..., 2 * ORDERS], totals[..., 2 * ORDERS + 1]
    short = np.exp(np.minimum(0.0, 1 - gold / np.maximum(length, 1)))
    return np.where(length > 0, short, 0.0)


def check_lengths(responses: Sequence[object], others: Sequence[object]) -> None:
    """Raises PersonalignError unless there is one of the others for each of at least one response."""
    if len(responses) != len(others) or not responses:
        raise PersonalignError(
            f"{len(responses)} responses stand against {len(others)} references or personas; "
            "give equal numbers, at least one"
        )
