"""Perplexity from summed negative log-likelihoods."""

import math
from collections.abc import Sequence

from personalign.errors import PersonalignError


def perplexity_per_token(nll: Sequence[float], token_counts: Sequence[int]) -> float:
    """`ppl/token`: exp(total negative log-likelihood / total target tokens, end tokens included).

    `nll[i]`: nats summed over the `token_counts[i]` target tokens of reply i. Not the mean of the replies'
    own perplexities. Depends on the tokenizer: only systems with the same one can be compared.
    """
    if len(nll) != len(token_counts) or sum(token_counts) <= 0:
        raise PersonalignError(
            f"{len(nll)} sums over {len(token_counts)} replies with {sum(token_counts)} tokens have no "
            "perplexity; give one sum and one token count per reply"
        )
    return math.exp(math.fsum(nll) / sum(token_counts))
