import numpy as np
import pytest

from personalign.errors import PersonalignError
from personalign.evaluation.calibration import calibration_error, fit_temperature


def drawn(temperature: float, *, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(count, 3)) * 3
    scaled = np.exp(logits / temperature)
    shares = np.cumsum(scaled / scaled.sum(1, keepdims=True), axis=1)
    return logits, (generator.random((count, 1)) > shares).sum(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_scaling_by_it_calibrates() -> None:
    logits, labels = drawn(2.5)

    def softmax(values: np.ndarray) -> np.ndarray:
        return np.exp(values) / np.exp(values).sum(1, keepdims=True)

    assert calibration_error(softmax(logits), labels) > 0.1
    assert calibration_error(softmax(logits / 2.5), labels) < 0.02


def test_calibration_error_by_hand() -> None:
    # Sure and right, sure and wrong: confidence 1, accuracy 1/2. Then .6 and right: off by .4.
    probabilities = [[1, 0, 0], [1, 0, 0], [0.6, 0.4, 0]]
    assert calibration_error(probabilities, [0, 1, 0]) == pytest.approx((2 * 0.5 + 0.4) / 3)


def test_nothing_to_fit_to_is_refused() -> None:
    with pytest.raises(PersonalignError, match="at least one"):
        fit_temperature(np.zeros((0, 3)), [])
