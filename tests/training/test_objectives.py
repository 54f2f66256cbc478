"""The objectives against formulae written out anew, in double precision."""

import math

import pytest
import torch
from torch.nn import functional

from personalign.training.objectives import DpocTerms, Penalty, dpo, dpoc, nll, pair_accuracy


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


def at(
    chosen: float, criterion: float, rejected: float, *, penalty_in: Penalty = "outside", penalty: float = 2.0
) -> tuple[DpocTerms, list[torch.Tensor]]:
    """DPOC where the three log-ratios are these, each a leaf."""
    ratios = [torch.tensor([value], dtype=torch.float64) for value in (chosen, criterion, rejected)]
    references = [doubles(1, seed=seed) for seed in range(3)]
    policy = [
        (ratio + reference).requires_grad_() for ratio, reference in zip(ratios, references, strict=True)
    ]
    terms = dpoc(
        *policy,
        reference_chosen=references[0],
        reference_criterion=references[1],
        reference_rejected=references[2],
        beta=0.1,
        penalty=penalty,
        penalty_in=penalty_in,
    )
    terms.loss.sum().backward()
    return terms, [item.grad for item in policy if item.grad is not None]


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


@pytest.mark.parametrize(
    ("ratios", "violation"),
    [
        ((3.0, 2.0, 1.0), 0.0),
        ((3.0, 1.0, 1.5), 0.5),
        ((3.0, 4.0, 1.0), 1.0),
        # Both at once, the rejected reply on top.
        ((1.0, 2.0, 5.0), 4.0),
        # As DPO likes it, but the chosen reply became less likely than the criterion.
        ((-4.0, 0.5, -9.0), 4.5),
    ],
)
def test_dpoc_costs_what_is_violated(ratios: tuple[float, float, float], violation: float) -> None:
    outside, _ = at(*ratios)
    difference = ratios[0] - ratios[2]
    assert float(outside.loss.detach()) == pytest.approx(softplus(-0.1 * difference) + 2 * violation)
    inside, _ = at(*ratios, penalty_in="inside", penalty=0.5)
    assert float(inside.loss.detach()) == pytest.approx(softplus(-0.1 * (difference - 0.5 * violation)))
    plain = softplus(-0.1 * difference)
    for terms in (outside, inside):
        assert bool(terms.violated) == (violation > 0)
        assert (float(terms.loss.detach()) > plain + 1e-9) == (violation > 0)
        rewards = (terms.chosen_reward, terms.criterion_reward, terms.rejected_reward)
        assert [float(reward) for reward in rewards] == pytest.approx([0.1 * ratio for ratio in ratios])
        assert not any(reward.requires_grad for reward in rewards)


def test_dpoc_with_the_criterion_ignored_is_dpo() -> None:
    chosen, rejected, reference_chosen, reference_rejected = four()
    pair = dpo(
        chosen, rejected, reference_chosen=reference_chosen, reference_rejected=reference_rejected, beta=0.1
    )
    for penalty_in in ("outside", "inside"):
        terms = dpoc(
            chosen,
            doubles(12, seed=7),
            rejected,
            reference_chosen=reference_chosen,
            reference_criterion=doubles(12, seed=8),
            reference_rejected=reference_rejected,
            beta=0.1,
            penalty=0.0,
            penalty_in=penalty_in,
        )
        torch.testing.assert_close(terms.loss, pair.loss)
        assert float(pair_accuracy(terms)) == float(pair_accuracy(pair))


@pytest.mark.parametrize(("penalty_in", "factor"), [("outside", 1.0), ("inside", 0.05)])
def test_at_the_start_dpoc_already_pushes_the_three_apart(penalty_in: Penalty, factor: float) -> None:
    """All log-ratios are 0: the loss is ln 2, nothing counts as violated, and the clamps pass their gradients."""
    terms, gradient = at(0.0, 0.0, 0.0, penalty_in=penalty_in, penalty=2.0)
    assert float(terms.loss.detach()) == pytest.approx(math.log(2))
    assert not bool(terms.violated)
    # Of the pair: beta / 2. Of the penalty: 2 for the chosen and the rejected reply; the criterion's two pulls cancel.
    assert [float(value) for value in gradient] == pytest.approx([-0.05 - 2 * factor, 0.0, 0.05 + 2 * factor])


def test_a_violated_order_is_pushed_back() -> None:
    _, gradient = at(1.0, 4.0, -2.0)
    weight = 0.1 / (1 + math.exp(0.3))
    assert [float(value) for value in gradient] == pytest.approx([-weight - 2, 2.0, weight])
