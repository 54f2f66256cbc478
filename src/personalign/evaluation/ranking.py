"""Where a system ranks the gold reply among candidates."""

from collections.abc import Sequence

from personalign.evaluation.sums import Sums, mean_of


def hits_at_1(ranks: Sequence[int]) -> Sums:
    """`hits@1`: share of turns whose gold reply comes first; ranks count from 1. Zhang et al. 2018, of 20 candidates."""
    return mean_of([float(rank == 1) for rank in ranks])


def mean_reciprocal_rank(ranks: Sequence[int]) -> Sums:
    """`mrr`: mean of 1 / rank."""
    return mean_of([1 / rank for rank in ranks])
