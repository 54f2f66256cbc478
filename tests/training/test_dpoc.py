"""DPOC over trees of three branches."""

from dataclasses import replace

import pytest
import torch
from tests.training.made_examples import gradients, path_log_probs, tiny_model, triples
from tests.training.test_trainer import SETTINGS, whole_step, with_reference

from personalign.training.examples import Example, grow


@pytest.mark.parametrize(("penalty_in", "penalty"), [("outside", 2.0), ("inside", 0.5), ("outside", 0.0)])
def test_dpoc_on_trees_is_the_formula_on_three_sequences(penalty_in: str, penalty: float) -> None:
    """Loss and gradients; without a penalty they are those of DPO, whatever the criterion."""
    settings = replace(SETTINGS, objective="dpoc", beta=0.3, penalty=penalty, penalty_in=penalty_in)
    trees = with_reference(grow(triples(), budget=10_000))
    loss, gradient, measured = whole_step(trees, settings, budget=10_000)
    policy, reference = tiny_model(), tiny_model(seed=17)
    losses, violated = [], []
    for example in triples():
        with torch.no_grad():
            before = [path_log_probs(reference, path).sum() for path in example.paths]
        chosen, criterion, rejected = (
            path_log_probs(policy, path).sum() - value
            for path, value in zip(example.paths, before, strict=True)
        )
        lacking = torch.relu(criterion - chosen) + torch.relu(rejected - criterion)
        if penalty_in == "outside":
            losses.append(torch.log1p(torch.exp(-0.3 * (chosen - rejected))) + penalty * lacking)
        else:
            losses.append(torch.log1p(torch.exp(-0.3 * (chosen - rejected - penalty * lacking))))
        violated.append(float(lacking.detach()) > 0)
    expected = torch.stack(losses).mean()
    expected.backward()  # type: ignore[no-untyped-call]
    assert 0 < sum(violated) < len(violated)
    assert loss == pytest.approx(float(expected.detach()), abs=1e-5)
    for name, value in gradients(policy).items():
        torch.testing.assert_close(gradient[name], value, atol=1e-5, rtol=1e-4, msg=name)
    assert measured["violated"] == pytest.approx(sum(violated) / len(violated), abs=1e-6)
    if not penalty:
        pairs_alone = [
            Example(item.dialogue, item.turn, (item.paths[0], item.paths[2])) for item in triples()
        ]
        plain = replace(settings, objective="dpo")
        alone = whole_step(with_reference(grow(pairs_alone, budget=10_000)), plain, budget=10_000)
        assert loss == pytest.approx(alone[0], abs=1e-5)
        for name, value in alone[1].items():
            torch.testing.assert_close(gradient[name], value, atol=1e-5, rtol=1e-4, msg=name)
