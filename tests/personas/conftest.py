"""The small encoder that the judges' tests have."""

from tests.evaluation.conftest import tiny_encoder

__all__ = ["tiny_encoder"]
