import math

import pytest

from personalign.errors import PersonalignError
from personalign.evaluation.perplexity import perplexity_per_token


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    assert perplexity_per_token([3 * math.log(50), math.log(50)], [3, 1]) == pytest.approx(50)


def test_tokens_weigh_the_same_whatever_their_reply() -> None:
    assert perplexity_per_token([0.0, 6.0], [3, 1]) == pytest.approx(math.exp(1.5))


@pytest.mark.parametrize(("nll", "counts"), [([], []), ([1.0], []), ([1.0], [0])])
def test_nothing_to_average_is_refused(nll: list[float], counts: list[int]) -> None:
    with pytest.raises(PersonalignError, match="no perplexity"):
        perplexity_per_token(nll, counts)
