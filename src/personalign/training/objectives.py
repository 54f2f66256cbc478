"""Objectives as pure functions over log-probabilities."""

from dataclasses import dataclass

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


def pair_accuracy(terms: DpoTerms) -> Tensor:
    """Share of pairs whose chosen reply has the greater implicit reward, a scalar."""
    return (terms.chosen_reward > terms.rejected_reward).to(torch.float32).mean()
