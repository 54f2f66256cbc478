"""Did the system choose the persona line that the gold reply expresses? "None" is a choice like any other.

A choice is right if it is among the labelled lines; a turn with several labelled lines counts as the chosen one if that
is right, else as its first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt

from personalign.errors import PersonalignError
from personalign.evaluation.sums import Floats, Sums, mean_of

NONE = 0
"""The class of "none"; line k is class k + 1, as PAL's candidates are numbered."""


@dataclass(frozen=True, slots=True)
class Selections:
    """Classes [N] of the labels and of the choices, all below `classes`. Build it with `compare_selections`."""

    truth: npt.NDArray[np.int64]
    guess: npt.NDArray[np.int64]
    classes: int

    def accuracy(self) -> Sums:
        """`selection/accuracy`, PAL."""
        return mean_of(self.truth == self.guess)

    def always_none(self) -> Sums:
        """`selection/accuracy_always_none`: what never choosing a line would score, the share labelled none."""
        return mean_of(self.truth == NONE)

    def accuracy_needed(self) -> Sums:
        """`selection/accuracy_needed`: accuracy on the turns that are labelled with a line."""
        return mean_of(self.truth == self.guess, self.truth != NONE)

    def macro_f1(self) -> Sums:
        """`selection/macro_f1`: mean of F1 over "none" and the line numbers that occur."""
        from scipy import sparse

        turns = np.arange(len(self.truth))
        right = self.truth == self.guess
        # All that F1 takes of a confusion: per class how often it was right, then how often it was label or choice.
        columns = np.concatenate([self.truth[right], self.classes + self.truth, self.classes + self.guess])
        places = np.concatenate([turns[right], turns, turns])
        rows = sparse.csr_array(
            (np.ones(len(columns)), (places, columns)), shape=(len(turns), 2 * self.classes)
        )
        return Sums(rows, _macro_f1)

    def share_none(self) -> Sums:
        """`share_none`: share of turns on which no line was chosen."""
        return mean_of(self.guess == NONE)

    def none_precision(self) -> Sums:
        """`selection/none_precision`: share of the turns without a choice that are labelled none."""
        return mean_of(self.truth == NONE, self.guess == NONE)

    def none_recall(self) -> Sums:
        """`selection/none_recall`: share of the turns labelled none without a choice."""
        return mean_of(self.guess == NONE, self.truth == NONE)


def compare_selections(
    relevant: Sequence[Sequence[int]], selected: Sequence[int | None], *, lines: int
) -> Selections:
    """Set the choice of each turn beside its labelled lines, `()` and None meaning "none".

    `lines`: how many the longest persona has; systems that are compared need the same.

    Raises PersonalignError if the lengths differ or there are no turns.
    """
    if len(relevant) != len(selected) or not selected:
        raise PersonalignError(
            f"{len(relevant)} labelled turns stand against {len(selected)} choices; "
            "give equal numbers, at least one"
        )
    return Selections(
        np.array([_class(lines, choice) for lines, choice in zip(relevant, selected, strict=True)]),
        np.array([NONE if choice is None else choice + 1 for choice in selected]),
        lines + 1,
    )


def recall_at(relevant: Sequence[Sequence[int]], probabilities: Sequence[Sequence[float]], *, k: int) -> Sums:
    """`selection/recall@K`: share of the turns labelled with a line that have one among the K most probable lines.

    `probabilities[i]`: of every line, then of none, which is no line and takes no place. Of equally probable lines any
    order is as likely, and the share is what it is on average over these orders: k of n for a system that guesses.
    """
    hits = [
        _chance_of_a_hit(lines, shares[:-1], k=k)
        for lines, shares in zip(relevant, probabilities, strict=True)
    ]
    return mean_of(hits, [len(lines) > 0 for lines in relevant])


def _chance_of_a_hit(lines: Sequence[int], shares: Sequence[float], *, k: int) -> float:
    """That one of `lines` is among the first k, equal shares being in random order."""
    if not lines:
        return 0.0
    best = max(shares[line] for line in lines)
    above = sum(share > best for share in shares)
    tied = sum(share == best for share in shares)
    right = sum(shares[line] == best for line in lines)
    places = min(k - above, tied)
    if places <= 0:
        return 0.0
    # None of the right ones in `places` draws without replacement.
    return 1.0 - comb(tied - right, places) / comb(tied, places)


def _macro_f1(totals: Floats) -> Floats:
    hits, occurrences = np.split(totals, 2, axis=-1)
    f1 = np.where(occurrences > 0, 2 * hits / np.maximum(occurrences, 1), 0)
    return np.asarray(f1.sum(axis=-1) / np.maximum((occurrences > 0).sum(axis=-1), 1))


def _class(lines: Sequence[int], choice: int | None) -> int:
    if not lines:
        return NONE
    return choice + 1 if choice in lines and choice is not None else lines[0] + 1
