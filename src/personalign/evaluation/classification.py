"""Accuracy, macro-F1 and confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from personalign.errors import PersonalignError


@dataclass(frozen=True, slots=True)
class ClassificationScores:
    """`confusion`: counts [classes, classes], rows the true class, columns the predicted one."""

    accuracy: float
    macro_f1: float
    confusion: npt.NDArray[np.int64]

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Plain values for JSON, the confusion matrix as {true: {predicted: count}}."""
        rows = [dict(zip(labels, row, strict=True)) for row in self.confusion.tolist()]
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "confusion": dict(zip(labels, rows, strict=True)),
        }


def classification_scores(
    given: npt.ArrayLike, predicted: npt.ArrayLike, *, class_count: int
) -> ClassificationScores:
    """Compare classes `given` [N] with `predicted` [N], both in 0 .. class_count - 1.

    Macro-F1 is the mean of F1 over the classes that occur in either; a class that is never hit has F1 0.
    """
    truth, guess = np.asarray(given, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if truth.shape != guess.shape or truth.size == 0:
        raise PersonalignError(
            f"{truth.size} labels were given and {guess.size} predicted; compare equal numbers"
        )
    confusion = np.bincount(truth * class_count + guess, minlength=class_count**2)
    confusion = confusion.reshape(class_count, class_count)
    hits = confusion.diagonal()
    occurrences = confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = 2 * hits[occurrences > 0] / occurrences[occurrences > 0]
    return ClassificationScores(float(hits.sum() / truth.size), float(f1.mean()), confusion)
