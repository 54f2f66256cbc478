"""One step of a stage: what it learns from, the loss over packed trees, and what is measured on the way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from personalign.errors import PersonalignError
from personalign.training.examples import GrownTree
from personalign.training.objectives import DpocTerms, DpoTerms, Penalty, dpo, dpoc, nll, pair_accuracy
from personalign.trees import PACKED, PackedBatch, ScoringPlan, batch_of, separate, token_log_probs

Objective = Literal["nll", "dpo", "dpoc"]


@dataclass(frozen=True, slots=True)
class StageSettings:
    """One stage of training. `batch_examples` counts turns, `token_budget` what one forward pass may hold.

    `max_steps`, if given, replaces `epochs`.
    """

    objective: Objective = "nll"
    learning_rate: float = 2e-5
    epochs: float = 1.0
    max_steps: int | None = None
    batch_examples: int = 128
    token_budget: int = 8192
    warmup_steps: int = 100
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: float = 10.0
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    beta: float = 0.1
    sft_weight: float = 0.0
    penalty: float = 2.0
    penalty_in: Penalty = "outside"
    seed: int = 0
    bf16: bool = False
    log_every: int = 10
    save_every: int | None = None
    evaluate_every: int | None = None
    patience: int | None = None
    use_cpu: bool = True


def step_loss(
    model: nn.Module, trees: Sequence[GrownTree], *, settings: StageSettings, plan: ScoringPlan, total: float
) -> tuple[Tensor, dict[str, float]]:
    """The share of a step's loss that `trees` contribute, and measurements that add up over micro-batches."""
    device = next(model.parameters()).device
    batch, log_probs = forward_trees(model, trees, plan=plan)
    kinds = [kind for tree in trees for kind in tree.kinds()]
    if settings.objective == "nll":
        weights = torch.tensor([weight for tree in trees for weight in tree.path_weights()], device=device)
        token_weights = weights[batch.branch]
        loss = nll(log_probs, token_weights, total=total)
        return loss, _loss_by_kind(batch, log_probs.detach(), kinds)
    sums = batch.branch_sums(log_probs)
    reference = torch.cat([_reference(tree) for tree in trees]).to(device)

    def of(kind: str) -> Tensor:
        return torch.tensor([at for at, item in enumerate(kinds) if item == kind], device=device)

    chosen, rejected = of("chosen"), of("rejected")
    if settings.objective == "dpo":
        terms: DpoTerms | DpocTerms = dpo(
            sums[chosen],
            sums[rejected],
            reference_chosen=reference[chosen],
            reference_rejected=reference[rejected],
            beta=settings.beta,
        )
    else:
        criterion = of("criterion")
        terms = dpoc(
            sums[chosen],
            sums[criterion],
            sums[rejected],
            reference_chosen=reference[chosen],
            reference_criterion=reference[criterion],
            reference_rejected=reference[rejected],
            beta=settings.beta,
            penalty=settings.penalty,
            penalty_in=settings.penalty_in,
        )
    loss = terms.loss.sum() / total
    values = {
        f"{settings.objective}_loss": float(terms.loss.detach().sum()) / total,
        "reward_chosen": float(terms.chosen_reward.sum()) / total,
        "reward_rejected": float(terms.rejected_reward.sum()) / total,
        "pair_accuracy": float(pair_accuracy(terms)) * len(chosen) / total,
        "chosen_log_ratio": float(terms.chosen_reward.sum()) / settings.beta / total,
    }
    if isinstance(terms, DpocTerms):
        values["reward_criterion"] = float(terms.criterion_reward.sum()) / total
        values["violated"] = float(terms.violated.sum()) / total
    if settings.sft_weight:
        lengths = batch.branch_lengths()[chosen]
        # Per-reply token means, averaged over pairs: the same scale as the token mean of stage 1.
        sft = -(sums[chosen] / lengths).sum() / total
        loss = loss + settings.sft_weight * sft
        values["sft_loss"] = float(sft.detach())
    return loss, values


def forward_trees(
    model: nn.Module, trees: Sequence[GrownTree], *, plan: ScoringPlan = PACKED
) -> tuple[PackedBatch, Tensor]:
    """Pack and score: the batch and the log-probabilities of its scored tokens, branches in the trees' order."""
    rows = [tree.tree for tree in trees]
    batch = batch_of(model, rows, plan=plan)
    if plan.mode == "single":
        # What a row gets depends on the others.
        alone = [batch_of(model, [row], plan=plan) for row in separate(rows)]
        return batch, torch.cat([token_log_probs(model, row, plan=plan) for row in alone])
    return batch, token_log_probs(model, batch, plan=plan)


def _reference(tree: GrownTree) -> Tensor:
    if tree.reference is None:
        raise PersonalignError(
            "aligning needs the reference policy's log-probabilities; score the trees before training"
        )
    return tree.reference


def _loss_by_kind(batch: PackedBatch, log_probs: Tensor, kinds: Sequence[str]) -> dict[str, float]:
    names = sorted(set(kinds))
    index = torch.tensor([names.index(kind) for kind in kinds], device=log_probs.device)[batch.branch]
    sums = torch.zeros(len(names), device=log_probs.device).index_add(0, index, -log_probs)
    counts = torch.bincount(index, minlength=len(names))
    values: dict[str, float] = {}
    for name, total, count in zip(names, sums.tolist(), counts.tolist(), strict=True):
        values[f"sum/{name}"] = total
        values[f"count/{name}"] = count
    return values


def mean_losses(values: dict[str, float]) -> dict[str, float]:
    """Turn sums and counts by kind into mean losses."""
    result = {name: value for name, value in values.items() if "/" not in name}
    for name, value in values.items():
        if name.startswith("sum/"):
            kind = name.removeprefix("sum/")
            result[f"loss_{kind}"] = value / max(1e-9, values[f"count/{kind}"])
    return result
