"""How varied the replies of a system are: over the whole test set, which both grow or fall with, and each in itself."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from personalign.evaluation.bleu import Tokens
from personalign.evaluation.grams import Grams, grams_of
from personalign.evaluation.sums import Floats, Sums, Value, mean_of, quotient

# The first column of pooled n-grams: tokens, not a kind of n-gram.
_TOKENS = "tokens"


def distinct(responses: Sequence[Tokens], *, order: int) -> Sums:
    """`distinct-N/corpus`: different n-grams over all replies, per *token* (not per n-gram), in [0, 1].

    Dividing by tokens is Li et al. 2016 and what PAL computes for every order. It falls as the test set grows: compare
    equal numbers of replies only. 0 where there is no token.
    """
    return _pooled(responses, order, _distinct_value)


def entropy(responses: Sequence[Tokens], *, order: int) -> Sums:
    """`entropy-N/corpus`: -sum p ln p, in nats, of the n-grams pooled over all replies; 0 where there is none.

    Zhang et al. 2018; PAL prints one of the orders 1 to 4 without saying which.
    """
    return _pooled(responses, order, _entropy_value)


def distinct_per_response(responses: Sequence[Tokens], *, order: int) -> Sums:
    """`distinct-N/per_response`: mean over replies of different n-grams per n-gram, in [0, 1], as IDL prints it.

    Short replies repeat nothing, so this is near 1 for every system. Replies shorter than `order` are left out.
    """
    grams = _of_order(responses, order)
    totals = grams.totals()
    return mean_of(grams.different() / np.maximum(1, totals), totals > 0)


def repetition(responses: Sequence[Tokens], *, order: int) -> Sums:
    """`repetition-N`: share of n-grams that repeat an earlier one of the same reply, pooled. Welleck et al. 2020.

    Pooled over all n-grams (seq-rep-n is the mean over replies): one long loop weighs what it takes up.
    """
    grams = _of_order(responses, order)
    totals = grams.totals()
    return Sums(np.stack([totals - grams.different(), totals], axis=1).astype(np.float64), quotient)


def repeated_replies(responses: Sequence[Tokens]) -> Sums:
    """`repeated_replies`: share of replies that another turn got word for word, the first of each included."""
    times = Counter(tuple(response) for response in responses)
    return mean_of([float(times[tuple(response)] > 1) for response in responses])


def length(responses: Sequence[Tokens]) -> Sums:
    """`length/tokens`: mean tokens of a reply."""
    return mean_of([len(response) for response in responses])


def _of_order(responses: Sequence[Tokens], order: int) -> Grams:
    *_, grams = grams_of(responses, highest=order)
    return grams


def _pooled(responses: Sequence[Tokens], order: int, value: Value) -> Sums:
    """Columns: tokens, then how often each n-gram occurs."""
    from scipy import sparse

    grams = _of_order(responses, order)
    lengths = [len(response) for response in responses]
    counts = sparse.csr_array(
        (grams.count.astype(np.float64), (grams.text, grams.gram)), shape=(len(responses), grams.kinds)
    )
    rows = sparse.hstack([sparse.csr_array(np.array([lengths], dtype=np.float64).T), counts]).tocsr()
    every = [token for response in responses for token in response]
    names: dict[Hashable, int] = {_TOKENS: 0}
    for number, place in enumerate(grams.first.tolist(), start=1):
        names[tuple(every[place : place + order])] = number
    return Sums(rows, value, names)


def _distinct_value(totals: Floats) -> Floats:
    tokens = totals[..., 0]
    kinds = (totals[..., 1:] > 0).sum(axis=-1)
    return np.where(tokens > 0, kinds / np.maximum(tokens, 1), 0.0)


def _entropy_value(totals: Floats) -> Floats:
    counts = totals[..., 1:]
    total = np.maximum(counts.sum(axis=-1), 1)
    # ln N - (sum c ln c) / N, which is -sum p ln p with one logarithm per count.
    return np.asarray(np.log(total) - (counts * np.log(np.maximum(counts, 1))).sum(axis=-1) / total)
