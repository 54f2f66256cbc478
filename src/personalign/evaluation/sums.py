"""Every figure over a test set as a function of sums over its examples.

BLEU is a function of summed hits and lengths, a mean of a sum and a count, Distinct of how often each n-gram occurs. Kept
like this, a figure can be taken of any part of the test set, resampled by dialogue, and compared between two systems with
the replies of some dialogues exchanged, without looking at a text again.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from personalign.errors import PersonalignError

Floats = npt.NDArray[np.float64]
Value = Callable[[Floats], Floats]
"""Totals [..., K] to figures [...]."""

# Resampled totals of n-gram counts are wide: so many numbers are held at a time (64 MB).
_HELD = 8_000_000


@dataclass(frozen=True, slots=True)
class Pooled:
    """A figure of how often each thing occurs: of tokens (column 0), occurrences, and a sum of one term per column.

    `term` is taken of each count by itself and is 0 of 0; `combine` makes the figure of [...] tokens, occurrences and
    summed terms.
    """

    term: Callable[[Floats], Floats]
    combine: Callable[[Floats, Floats, Floats], Floats]

    def __call__(self, totals: Floats) -> Floats:
        counts = totals[..., 1:]
        return self.combine(totals[..., 0], counts.sum(axis=-1), self.term(counts).sum(axis=-1))

    def without_each(self, rows: Any) -> Floats:
        """[N], the figure of all rows of the CSR `rows` but each in turn: only what a row has counts less without it."""
        total = np.asarray(rows.sum(axis=0), dtype=np.float64)
        terms = self.term(total[1:]).sum()
        counted = rows.indices > 0
        before = total[rows.indices]
        lost = np.where(counted, self.term(before) - self.term(before - rows.data), 0.0)
        of_rows = [
            np.bincount(np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr)), values, rows.shape[0])
            for values in (np.where(counted, 0.0, rows.data), np.where(counted, rows.data, 0.0), lost)
        ]
        return self.combine(total[0] - of_rows[0], total[1:].sum() - of_rows[1], terms - of_rows[2])


@dataclass(frozen=True, slots=True)
class Sums:
    """`rows`: [N, K], dense or scipy CSR; `value`: what totals come to.

    `columns`, of CSR rows: what each column counts, where this differs between systems, in the order of first occurrence;
    `aligned` gives two systems the same.
    `units[i]`, of dense rows: what example i is part of, where the figure counts units and not examples. A unit's row is
        the maximum of its examples', of those that are there.
    """

    rows: Any
    value: Value
    columns: Mapping[Hashable, int] | None = None
    units: Sequence[Hashable] | None = None

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def figure(self) -> float:
        """The figure over all examples. Raises PersonalignError where there are none."""
        if not len(self):
            raise PersonalignError("there are no replies to score; give at least one")
        rows = self.rows if self.units is None else self._units()[0]
        return float(self.value(_dense(rows.sum(axis=0)).reshape(-1)))

    def per_example(self) -> Floats:
        """[N], the figure of each example alone."""
        return np.concatenate(
            [self.value(_dense(self.rows[start:end])) for start, end in self._chunks(len(self))]
            or [np.zeros(0)]
        )

    def of(self, kept: Sequence[int] | npt.NDArray[np.int64]) -> "Sums":
        """The same figure over the examples `kept` only."""
        units = None if self.units is None else [self.units[index] for index in kept]
        return Sums(self.rows[np.asarray(kept, dtype=np.int64)], self.value, self.columns, units)

    def grouped(self, groups: Sequence[Hashable]) -> "Sums":
        """One row per group, in the order of first occurrence; `groups[i]` is the group of example i.

        A unit is in the group of its first example.
        """
        from scipy import sparse

        if len(groups) != len(self):
            raise PersonalignError(f"{len(self)} replies but {len(groups)} dialogues; give one per reply")
        if self.units is not None:
            rows, firsts = self._units()
            return Sums(rows, self.value).grouped([groups[index] for index in firsts])
        number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
        places = np.array([number[group] for group in groups], dtype=np.int64)
        membership = sparse.csr_array(
            (np.ones(len(groups)), (places, np.arange(len(groups)))), shape=(len(number), len(groups))
        )
        return Sums(membership @ self.rows, self.value, self.columns)

    def weighted(self, weights: Floats) -> Floats:
        """[S], the figure when row i counts `weights[s, i]` times."""
        return np.concatenate(
            [self.value(_dense(weights[start:end] @ self.rows)) for start, end in self._chunks(len(weights))]
        )

    def without_each(self) -> Floats:
        """[N], the figure of all rows but each one in turn."""
        if isinstance(self.value, Pooled):
            return self.value.without_each(self.rows)
        total = _dense(self.rows.sum(axis=0)).reshape(1, -1)
        return np.concatenate(
            [self.value(total - _dense(self.rows[start:end])) for start, end in self._chunks(len(self))]
        )

    def _units(self) -> tuple[Floats, list[int]]:
        """One row per unit, and the number of its first example."""
        assert self.units is not None
        first: dict[Hashable, int] = {}
        for index, unit in enumerate(self.units):
            first.setdefault(unit, index)
        number = {unit: place for place, unit in enumerate(first)}
        rows = np.full((len(first), self.rows.shape[1]), -np.inf)
        np.maximum.at(rows, [number[unit] for unit in self.units], self.rows)
        return rows, list(first.values())

    def _chunks(self, count: int) -> list[tuple[int, int]]:
        size = max(1, _HELD // max(1, self.rows.shape[1]))
        return [(start, min(count, start + size)) for start in range(0, count, size)]


def aligned(first: Sums, second: Sums) -> tuple[Sums, Sums]:
    """Two systems' sums over the same columns, so that their rows can be exchanged."""
    if first.columns is None or second.columns is None:
        return first, second
    union = dict(first.columns)
    for column in second.columns:
        union.setdefault(column, len(union))
    return _widened(first, union), _widened(second, union)


def _widened(sums: Sums, columns: Mapping[Hashable, int]) -> Sums:
    from scipy import sparse

    assert sums.columns is not None
    place = np.array([columns[column] for column in sums.columns], dtype=np.int64)
    old = sums.rows.tocoo()
    rows = sparse.csr_array(
        (old.data, (old.row, place[old.col])), shape=(sums.rows.shape[0], len(columns)), dtype=np.float64
    )
    return Sums(rows, sums.value, columns)


def mean_of(values: npt.ArrayLike, counted: npt.ArrayLike | None = None) -> Sums:
    """The mean of `values` [N] over the examples that are `counted` [N] (all of them); NaN where none is."""
    numbers = np.asarray(values, dtype=np.float64)
    weights = np.ones_like(numbers) if counted is None else np.asarray(counted, dtype=np.float64)
    return Sums(np.stack([np.where(weights > 0, numbers, 0.0) * weights, weights], axis=1), quotient)


def quotient(totals: Floats) -> Floats:
    """The first column per the second; NaN where that is 0."""
    counts = totals[..., 1]
    return np.where(counts > 0, totals[..., 0] / np.where(counts > 0, counts, 1.0), np.nan)


def _dense(rows: Any) -> Floats:
    array: Floats = np.asarray(rows if isinstance(rows, np.ndarray) else rows.toarray(), dtype=np.float64)
    return array
