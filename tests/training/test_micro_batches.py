"""What one forward pass takes: within the budget under every plan, and with the same result as path by path."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.methods.made_runs import tiny_model as loaded_model
from tests.training.made_examples import gradients, pairs, tiny_model
from tests.training.test_trainer import SETTINGS, with_reference

from personalign.methods import pal
from personalign.training.examples import GrownTree, grow, micro_batches
from personalign.training.step import step_loss
from personalign.trees import PACKED, ScoringPlan, score

SEPARATE = ScoringPlan(mode="separate", reason="to compare with")
SINGLE = ScoringPlan(mode="single", reason="to compare with")
BUDGET = 60


def made() -> list[GrownTree]:
    return with_reference(grow(pairs(dialogues=5), budget=10_000))


@contextmanager
def shapes_of(model: Any) -> Iterator[list[torch.Size]]:
    seen: list[torch.Size] = []
    handle = model.register_forward_pre_hook(
        lambda _, arguments, named: seen.append(named["input_ids"].shape), with_kwargs=True
    )
    yield seen
    handle.remove()


@pytest.mark.parametrize("plan", [SEPARATE, SINGLE], ids=["separate", "single"])
def test_paths_on_rows_of_their_own_keep_to_the_budget(plan: ScoringPlan) -> None:
    trees, loaded = made(), replace(loaded_model(), model=tiny_model(), plan=plan)
    assert any(len(tree.examples) > 1 for tree in trees)
    with shapes_of(loaded.model) as seen:
        found = pal.branch_scores(loaded, trees, budget=BUDGET)
    largest = max(
        len(example.paths) * max(map(len, example.paths)) for tree in trees for example in tree.examples
    )
    assert all(shape.numel() <= max(BUDGET, largest) for shape in seen)
    if plan is SINGLE:
        assert {shape[0] for shape in seen} == {1}
    else:
        assert any(shape[0] > 2 for shape in seen)
    expected = score(loaded.model, [tree.tree for tree in trees], plan=plan)
    for (sums, lengths), branches in zip(found, expected, strict=True):
        torch.testing.assert_close(sums, torch.stack([item.sum() for item in branches]), atol=1e-5, rtol=0)
        assert lengths.tolist() == [len(item) for item in branches]


@pytest.mark.parametrize("plan", [SEPARATE, SINGLE], ids=["separate", "single"])
def test_a_step_of_pairs_is_the_same_under_every_plan(plan: ScoringPlan) -> None:
    trees, settings = made(), replace(SETTINGS, objective="dpo")
    total = float(sum(len(tree.examples) for tree in trees))
    found = []
    for way in (PACKED, plan):
        model: Any = tiny_model()
        passes = micro_batches(trees, plan=way, budget=BUDGET if way is plan else 10_000)
        assert (len(passes) > 1) == (way is plan)
        loss = sum(step_loss(model, held, settings=settings, plan=way, total=total)[0] for held in passes)
        loss.backward()  # type: ignore[union-attr]
        found.append((float(loss.detach()), gradients(model)))  # type: ignore[union-attr]
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-4)
