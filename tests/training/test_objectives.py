"""The objectives against formulae written out anew, in double precision."""

import math

import pytest
import torch
from torch.nn import functional

from personalign.training.objectives import dpo, nll, pair_accuracy


def doubles(count: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -10 * torch.rand(count, generator=generator, dtype=torch.float64)


def four(count: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    chosen, rejected, reference_chosen, reference_rejected = (doubles(count, seed=s) for s in range(4))
    return chosen.requires_grad_(), rejected.requires_grad_(), reference_chosen, reference_rejected


def test_nll_is_cross_entropy_with_weights() -> None:
    logits = torch.randn(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(9) % 7
    weights = torch.tensor([1.0, 1.0, 0.2, 0.2, 0.2, 1.0, 0.5, 0.5, 0.5], dtype=torch.float64)
    log_probs = logits.log_softmax(-1)[torch.arange(9), targets]
    per_token = functional.cross_entropy(logits, targets, reduction="none")
    expected = (per_token * weights).sum() / weights.sum()
    torch.testing.assert_close(nll(log_probs, weights, total=float(weights.sum())), expected)


def test_nll_of_the_parts_adds_up_to_that_of_the_whole() -> None:
    log_probs, weights = doubles(10, seed=2), torch.rand(10, dtype=torch.float64)
    total = float(weights.sum())
    parts = [nll(log_probs[part], weights[part], total=total) for part in (slice(0, 3), slice(3, 10))]
    torch.testing.assert_close(sum(parts), nll(log_probs, weights, total=total))


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0])
def test_dpo_is_the_papers_formula_and_trls(beta: float) -> None:
    chosen, rejected, reference_chosen, reference_rejected = four()
    terms = dpo(
        chosen, rejected, reference_chosen=reference_chosen, reference_rejected=reference_rejected, beta=beta
    )
    # Rafailov et al. 2023, Eq. 7, written out.
    ratio = chosen - reference_chosen - rejected + reference_rejected
    torch.testing.assert_close(terms.loss, -torch.log(1 / (1 + torch.exp(-beta * ratio))))
    # As TRL's DPOTrainer computes its loss_type "sigmoid".
    delta_score = (chosen - reference_chosen) - (rejected - reference_rejected)
    torch.testing.assert_close(terms.loss, -functional.logsigmoid(beta * delta_score))
    torch.testing.assert_close(terms.chosen_reward, beta * (chosen - reference_chosen).detach())
    torch.testing.assert_close(terms.rejected_reward, beta * (rejected - reference_rejected).detach())
    assert not terms.chosen_reward.requires_grad


def test_dpo_gradient() -> None:
    beta = 0.3
    chosen, rejected, reference_chosen, reference_rejected = four()
    terms = dpo(
        chosen, rejected, reference_chosen=reference_chosen, reference_rejected=reference_rejected, beta=beta
    )
    terms.loss.sum().backward()
    # Its gradient in closed form (section 4): beta times how wrong the implicit rewards are.
    weight = beta * torch.sigmoid(terms.rejected_reward - terms.chosen_reward)
    torch.testing.assert_close(chosen.grad, -weight)
    torch.testing.assert_close(rejected.grad, weight)


def test_dpo_starts_at_ln_2_and_a_violated_order_costs() -> None:
    reference_chosen, reference_rejected = doubles(5, seed=8), doubles(5, seed=9)

    def loss(gain: float) -> float:
        terms = dpo(
            reference_chosen + gain,
            reference_rejected,
            reference_chosen=reference_chosen,
            reference_rejected=reference_rejected,
            beta=0.1,
        )
        return float(terms.loss.mean())

    assert loss(0.0) == pytest.approx(math.log(2), abs=1e-12)
    assert loss(-3.0) > math.log(2) > loss(3.0)


def test_dpo_is_finite_where_the_sigmoid_is_not() -> None:
    values = torch.tensor([-4000.0, -1.0]), torch.tensor([-1.0, -4000.0])
    terms = dpo(*values, reference_chosen=torch.zeros(2), reference_rejected=torch.zeros(2), beta=1.0)
    torch.testing.assert_close(terms.loss, torch.tensor([3999.0, 0.0]))


def test_pair_accuracy_counts_greater_implicit_rewards() -> None:
    terms = dpo(
        torch.tensor([-1.0, -2.0, -3.0, -4.0]),
        torch.tensor([-2.0, -2.0, -2.0, -2.0]),
        reference_chosen=torch.tensor([-1.0, -3.0, -3.0, -3.0]),
        reference_rejected=torch.tensor([-3.0, -2.0, -2.0, -2.0]),
        beta=0.1,
    )
    # Log-ratios chosen / rejected: 0 / 1, 1 / 0, 0 / 0 (a tie is no success), -1 / 0.
    assert float(pair_accuracy(terms)) == 0.25
