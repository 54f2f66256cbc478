"""N-grams of thousands of short texts, counted at once in arrays: a test set has millions of them."""

import sys
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# The name of the first column of pooled n-grams: tokens, not a kind of n-gram.
TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of one order in N texts: `gram[k]` occurs `count[k]` times in text `text[k]`, sorted by both.

    Equal n-grams have equal numbers below `kinds`. `first[g]`: where n-gram g first begins among all tokens.
    """

    order: int
    text: Ints
    gram: Ints
    count: Ints
    kinds: int
    first: Ints
    texts: int

    def totals(self) -> Ints:
        """[N], n-grams of each text."""
        return _per_text(self.text, self.count, self.texts)

    def different(self) -> Ints:
        """[N], different n-grams of each text."""
        return _per_text(self.text, np.ones_like(self.count), self.texts)


def grams_of(texts: Sequence[Sequence[Hashable]], *, highest: int = sys.maxsize) -> Iterator[Grams]:
    """The n-grams of orders 1 to `highest`, one order at a time, each made when it is asked for."""
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    number: dict[Hashable, int] = {}
    tokens = np.fromiter(
        (number.setdefault(token, len(number)) for token in chain.from_iterable(texts)),
        dtype=np.int64,
        count=int(lengths.sum()),
    )
    owner = np.repeat(np.arange(len(texts)), lengths)
    # How many tokens of its text stand from each place on.
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))
    gram, places = tokens, np.arange(len(tokens))
    for order in range(1, highest + 1):
        if order > 1:
            # Those that go on: the n-gram before, and the token after it, as one number.
            goes_on = left[places] >= order
            places = places[goes_on]
            gram = gram[goes_on] * len(number) + tokens[places + order - 1]
        kinds, first, gram = np.unique(gram, return_index=True, return_inverse=True)
        keys, count = np.unique(owner[places] * len(kinds) + gram, return_counts=True)
        text, kind = np.divmod(keys, len(kinds)) if len(kinds) else (keys, keys)
        yield Grams(order, text, kind, count, len(kinds), places[first], len(texts))


class Ngrams:
    """The n-grams of a system's replies, those of one order counted once, whoever asks for them."""

    def __init__(self, responses: Sequence[Sequence[Hashable]]) -> None:
        self.responses = responses
        self._orders: list[Grams] = []
        self._coming = grams_of(responses)
        self._pooled: dict[int, tuple[Any, dict[Hashable, int]]] = {}

    def of_order(self, order: int) -> Grams:
        while len(self._orders) < order:
            self._orders.append(next(self._coming))
        return self._orders[order - 1]

    def pooled(self, order: int) -> tuple[Any, dict[Hashable, int]]:
        """scipy CSR [N, 1 + kinds]: tokens of each reply, then how often it has each n-gram; and each column's name."""
        if order not in self._pooled:
            self._pooled[order] = self._pool(self.of_order(order))
        return self._pooled[order]

    def _pool(self, grams: Grams) -> tuple[Any, dict[Hashable, int]]:
        from scipy import sparse

        texts = np.arange(grams.texts)
        lengths = np.array([len(response) for response in self.responses], dtype=np.float64)
        values = np.concatenate([lengths, grams.count])
        places = np.concatenate([texts, grams.text]), np.concatenate([np.zeros_like(texts), grams.gram + 1])
        rows = sparse.csr_array((values, places), shape=(grams.texts, grams.kinds + 1))
        every = list(chain.from_iterable(self.responses))
        starts = [every[offset:] for offset in range(grams.order)]
        whole = list(zip(*starts, strict=False))
        names: dict[Hashable, int] = {TOKENS: 0}
        names.update((whole[place], number) for number, place in enumerate(grams.first.tolist(), start=1))
        return rows, names


def shared(grams: Grams) -> Ints:
    """[N / 2]: n-grams that text i and text i + N / 2 share, each as often as in the one that has it less often."""
    half = grams.texts // 2
    mine = grams.text < half
    ours = grams.text[mine] * grams.kinds + grams.gram[mine]
    theirs = (grams.text[~mine] - half) * grams.kinds + grams.gram[~mine]
    both, left, right = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    least = np.minimum(grams.count[mine][left], grams.count[~mine][right])
    return _per_text(both // max(1, grams.kinds), least, half)


def _per_text(text: Ints, weights: Ints, texts: int) -> Ints:
    return np.bincount(text, weights=weights, minlength=texts).astype(np.int64)
