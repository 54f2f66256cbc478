"""Perplexities of the gold replies, from summed negative log-likelihoods. All depend on the tokenizer but one."""

from collections.abc import Sequence

import numpy as np

from personalign.errors import PersonalignError
from personalign.evaluation.sums import Floats, Sums, mean_of, quotient


def perplexity(nll: Sequence[float], counts: Sequence[int]) -> Sums:
    """exp(total negative log-likelihood / total count): `ppl/token` or `ppl/word`.

    `nll[i]`: nats summed over the target tokens of reply i, end token included; `counts[i]`: these tokens, or the
    words of the reply, its end being one. Per token, only systems with the same tokenizer can be compared; per word, any.
    """
    _check(nll, counts)
    return Sums(np.array([nll, counts], dtype=np.float64).T, _exponential_mean)


def perplexity_of_means(nll: Sequence[float], counts: Sequence[int]) -> Sums:
    """`ppl/reply_mean`: exp(mean over replies of their own nll per token), as PAL and ORIG compute it.

    Short replies weigh as much as long ones, so it differs from `ppl/token`.
    """
    _check(nll, counts)
    means = mean_of(np.array(nll) / np.maximum(counts, 1))
    return Sums(means.rows, _exponential_mean)


def _exponential_mean(totals: Floats) -> Floats:
    return np.asarray(np.exp(quotient(totals)))


def _check(nll: Sequence[float], counts: Sequence[int]) -> None:
    if len(nll) != len(counts) or sum(counts) <= 0:
        raise PersonalignError(
            f"{len(nll)} sums over {len(counts)} replies with {sum(counts)} tokens have no "
            "perplexity; give one sum and one token count per reply"
        )
