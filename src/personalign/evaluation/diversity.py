"""How varied the replies of a system are: over the whole test set, which both grow or fall with, and each in itself."""

from collections.abc import Hashable, Sequence

import numpy as np

from personalign.evaluation.bleu import Tokens
from personalign.evaluation.grams import TOKENS, Ngrams
from personalign.evaluation.sums import Floats, Pooled, Sums, mean_of, quotient


def distinct(replies: Ngrams, *, order: int) -> Sums:
    """`distinct-N/corpus`: different n-grams over all replies, per *token* (not per n-gram), in [0, 1].

    Dividing by tokens is Li et al. 2016 and what PAL computes for every order. It falls as the test set grows: compare
    equal numbers of replies only. 0 where there is no token.
    """
    return _pooled(replies, order, _DISTINCT)


def entropy(replies: Ngrams, *, order: int) -> Sums:
    """`entropy-N/corpus`: -sum p ln p, in nats, of the n-grams pooled over all replies; 0 where there is none.

    Zhang et al. 2018; PAL prints one of the orders 1 to 4 without saying which.
    """
    return _pooled(replies, order, _ENTROPY)


def distinct_per_response(replies: Ngrams, *, order: int) -> Sums:
    """`distinct-N/per_response`: mean over replies of different n-grams per n-gram, in [0, 1], as IDL prints it.

    Short replies repeat nothing, so this is near 1 for every system. Replies shorter than `order` are left out.
    """
    grams = replies.of_order(order)
    totals = grams.totals()
    return mean_of(grams.different() / np.maximum(1, totals), totals > 0)


def repetition(replies: Ngrams, *, order: int) -> Sums:
    """`repetition-N`: share of n-grams that repeat an earlier one of the same reply, pooled. Welleck et al. 2020.

    Pooled over all n-grams (seq-rep-n is the mean over replies): one long loop weighs what it takes up.
    """
    grams = replies.of_order(order)
    totals = grams.totals()
    return Sums(np.stack([totals - grams.different(), totals], axis=1).astype(np.float64), quotient)


def repeated_replies(responses: Sequence[Tokens]) -> Sums:
    """`repeated_replies`: share of replies that another turn got word for word, the first of each included."""
    from scipy import sparse

    number: dict[Hashable, int] = {TOKENS: 0}
    columns = [number.setdefault(tuple(response), len(number)) for response in responses]
    places = np.arange(len(responses)), np.array(columns, dtype=np.int64)
    rows = sparse.csr_array((np.ones(len(responses)), places), shape=(len(responses), len(number)))
    return Sums(rows, _REPEATED, number)


def length(responses: Sequence[Tokens]) -> Sums:
    """`length/tokens`: mean tokens of a reply."""
    return mean_of([len(response) for response in responses])


def _pooled(replies: Ngrams, order: int, value: Pooled) -> Sums:
    rows, names = replies.pooled(order)
    return Sums(rows, value, names)


def _occurs(counts: Floats) -> Floats:
    return np.asarray(counts > 0, dtype=np.float64)


def _times_log(counts: Floats) -> Floats:
    return np.asarray(counts * np.log(np.maximum(counts, 1)))


def _per_token(tokens: Floats, grams: Floats, kinds: Floats) -> Floats:
    return np.where(tokens > 0, kinds / np.maximum(tokens, 1), 0.0)


def _nats(tokens: Floats, grams: Floats, terms: Floats) -> Floats:
    # ln N - (sum c ln c) / N, which is -sum p ln p with one logarithm per count.
    total = np.maximum(grams, 1)
    return np.asarray(np.log(total) - terms / total)


def _if_again(counts: Floats) -> Floats:
    return np.asarray(np.where(counts > 1, counts, 0.0))


def _per_reply(tokens: Floats, replies: Floats, again: Floats) -> Floats:
    return np.where(replies > 0, again / np.maximum(replies, 1), np.nan)


_REPEATED = Pooled(_if_again, _per_reply)
_DISTINCT = Pooled(_occurs, _per_token)
_ENTROPY = Pooled(_times_log, _nats)
