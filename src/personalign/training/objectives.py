"""Objectives as pure functions over log-probabilities."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def nll(token_log_probs: Tensor, weights: Tensor, *, total: float) -> Tensor:
    """Weighted negative log-likelihood of scored tokens over a whole optimizer step.

    `token_log_probs` and `weights` have shape [tokens]; `total` is the sum of the weights over every micro-batch
    and rank of the step, so that the sum of the micro-batches' losses is the step's token mean, however it was
    cut. (PAL, section 2.1.2: next-token prediction over the targets of both tasks.)
    """
    return -(token_log_probs * weights).sum() / total


@dataclass(frozen=True, slots=True)
class DpoTerms:
    """Per pair, shape [pairs]: the loss and the implicit rewards of both replies."""

    loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor


def dpo(
    chosen: Tensor, rejected: Tensor, *, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> DpoTerms:
    """Direct preference optimisation (Rafailov et al. 2023, Eq. 7; PAL, section 2.2.2).

    All four are summed log-probabilities of replies, shape [pairs]:

        loss = -log sigmoid(beta * [(chosen - reference_chosen) - (rejected - reference_rejected)])

    The policy is pushed to raise the chosen reply above the rejected one by more than the reference does;
    `beta` says how far it may move for that. At the start both log-ratios are 0 and the loss is ln 2.
    """
    chosen_reward = beta * (chosen - reference_chosen)
    rejected_reward = beta * (rejected - reference_rejected)
    loss = -functional.logsigmoid(chosen_reward - rejected_reward)
    return DpoTerms(loss, chosen_reward.detach(), rejected_reward.detach())


@dataclass(frozen=True, slots=True)
class DpocTerms:
    """Per triple, shape [triples]: the loss, the implicit rewards, and whether an order is violated."""

    loss: Tensor
    chosen_reward: Tensor
    criterion_reward: Tensor
    rejected_reward: Tensor
    violated: Tensor


Penalty = Literal["outside", "inside"]


def dpoc(
    chosen: Tensor,
    criterion: Tensor,
    rejected: Tensor,
    *,
    reference_chosen: Tensor,
    reference_criterion: Tensor,
    reference_rejected: Tensor,
    beta: float,
    penalty: float,
    penalty_in: Penalty = "outside",
) -> DpocTerms:
    """Direct preference optimisation with a criterion (IDL, Eq. 5-6 and 11).

    The criterion is a third reply, worse than the chosen one and better than the rejected one. DPO may raise the chosen
    reply above the rejected one while it makes both less likely; a chosen reply that falls below the criterion, or a
    rejected one that rises above it, costs extra. All are summed log-probabilities of replies, shape [triples]. With
    D(x) = x - reference_x and violation = -min(0, D(chosen) - D(criterion)) - min(0, D(criterion) - D(rejected)):

        outside (the paper, penalty 2):          -log sigmoid(beta * (D(chosen) - D(rejected))) + penalty * violation
        inside (the authors' release, penalty .5): -log sigmoid(beta * (D(chosen) - D(rejected) - penalty * violation))

    Eq. 11 as printed has the penalty's sign the wrong way round, which would reward violations; Eq. 6 has it right. The
    minimum is a clamp, whose gradient where both are equal is that of a violation: at the start, where all D are 0, the
    penalty already pushes the three apart.
    """
    changes = chosen - reference_chosen, criterion - reference_criterion, rejected - reference_rejected
    above, below = changes[0] - changes[1], changes[1] - changes[2]
    violation = -above.clamp(max=0) - below.clamp(max=0)
    difference = changes[0] - changes[2]
    if penalty_in == "outside":
        loss = -functional.logsigmoid(beta * difference) + penalty * violation
    else:
        loss = -functional.logsigmoid(beta * (difference - penalty * violation))
    of_chosen, of_criterion, of_rejected = (beta * change.detach() for change in changes)
    return DpocTerms(loss, of_chosen, of_criterion, of_rejected, ((above < 0) | (below < 0)).detach())


def pair_accuracy(terms: DpoTerms | DpocTerms) -> Tensor:
    """Share of pairs whose chosen reply has the greater implicit reward, a scalar."""
    return (terms.chosen_reward > terms.rejected_reward).to(torch.float32).mean()
