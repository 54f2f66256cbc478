"""Probabilities that mean what they say: one temperature (Guo et al. 2017), and how far off they are."""

import numpy as np
import numpy.typing as npt

from personalign.errors import PersonalignError

Floats = npt.NDArray[np.float64]
BINS = 15


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The T that makes softmax(logits / T) likeliest for `labels` [N], logits [N, classes]; between 0.05 and 20.

    It changes no argmax. Raises PersonalignError where there is nothing to fit to.
    """
    from scipy.optimize import minimize_scalar

    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if len(values) == 0 or len(values) != len(truth):
        raise PersonalignError(
            f"{len(values)} rows of logits and {len(truth)} labels; give equal numbers, at least one"
        )

    def loss(log_temperature: float) -> float:
        scaled = values / np.exp(log_temperature)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        log_probs = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return float(-log_probs[np.arange(len(truth)), truth].mean())

    bounds = (np.log(0.05), np.log(20.0))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = BINS) -> float:
    """Expected calibration error: |confidence - accuracy| over bins of equal width, weighted by how many fall in each."""
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    confidence = values.max(axis=1)
    right = values.argmax(axis=1) == truth
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(which, minlength=bins)
    gaps = np.bincount(which, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / counts.sum())
