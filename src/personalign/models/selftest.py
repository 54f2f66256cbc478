"""Before a model scores trees: does it score a random one packed as it does path by path?

Models differ in what they do with a mask of ours. Sliding-window layers would see too much, ALiBi counts by
index, state-space layers cannot branch, some results depend on the other rows of the batch. Nothing of this
is believed from a name: the model is tried, and gets the quickest way of scoring that gives the true numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from personalign.errors import PersonalignError
from personalign.models.limits import layer_types, longest_path, sliding_window, window_sizes
from personalign.models.precision import Precision, autocast
from personalign.trees import DialogueTree, ScoringPlan, score, separate
from personalign.trees.plan import Attention

TOLERANCE = 1e-4
# An error must be small beside what the context does to a log-probability, or the test would see nothing.
SHARE_OF_INFLUENCE = 0.05
NOISE = 1e-6
SHORTEST, USUAL = 16, 96


@dataclass(frozen=True, slots=True)
class Trial:
    """A way of scoring and its largest error in log-probability, or why it could not run."""

    plan: ScoringPlan
    error: float
    failure: str = ""


def plan_for(
    model: nn.Module, *, attention: Attention, precision: Precision | None = None, seed: int = 0
) -> ScoringPlan:
    """How this model scores trees exactly: packed, one path per row, or one path per forward pass.

    The truth is each path run alone, without padding or mask, in fp32. Under bf16 autocast (`precision`) the
    error there is measured too and named in the plan's reason. Costs a few forward passes over a tree
    somewhat longer than the model's largest attention window.

    Raises PersonalignError where no way is exact: the model is no causal LM, or its result depends on what it
    scored before.
    """
    config: Any = model.config
    longest = longest_path(config)
    tree, changed = _random_trees(_path_length(config, longest), vocabulary=_vocabulary(model), seed=seed)
    alone = ScoringPlan(mode="single", attention=attention, longest=longest)
    truth = _score(model, tree, alone)
    influence = _largest_difference(_score(model, changed, alone), truth)
    tolerance = min(TOLERANCE, SHARE_OF_INFLUENCE * influence)
    _check_truth(model, tree, alone, truth=truth, tolerance=max(tolerance, NOISE))
    if tolerance < NOISE:
        return replace(
            alone,
            mode="separate",
            reason="branches run one per row: the model hardly heeds its context, so no test could tell",
        )
    packed = [_try(model, tree, plan, truth=truth) for plan in _packed_plans(config, alone)]
    best = min(trial.error for trial in packed)
    # At noise level a window that is declared is believed.
    good = [trial for trial in packed if trial.error <= min(tolerance, 10 * max(best, NOISE / 10))]
    if good:
        reason = f"a random tree of {len(tree)} tokens scored the same packed and path by path"
        if good[0].plan.window is not None:
            reason = f"with masks of their own for windows of {good[0].plan.window} positions, {reason}"
        return _explained(model, tree, good[0], reason, truth=truth, precision=precision)
    apart = _try(model, tree, replace(alone, mode="separate"), truth=truth)
    if apart.error <= tolerance:
        reason = f"branches run one per row, since in one row {_complaint(packed)}"
        return _explained(model, tree, apart, reason, truth=truth, precision=precision)
    reason = f"every branch runs by itself: in one row {_complaint(packed)}; in a batch {_complaint([apart])}"
    return _explained(model, tree, Trial(alone, 0.0), reason, truth=truth, precision=precision)


def _explained(
    model: nn.Module,
    tree: DialogueTree,
    trial: Trial,
    reason: str,
    *,
    truth: Tensor,
    precision: Precision | None,
) -> ScoringPlan:
    bounds = f"largest difference {trial.error:.1e} in float32"
    if precision is not None and precision.autocast:
        with autocast(precision):
            bounds += f", {_largest_difference(_score(model, tree, trial.plan), truth):.1e} in bfloat16"
    return replace(trial.plan, reason=f"{reason} ({bounds})")


def _packed_plans(config: Any, alone: ScoringPlan) -> list[ScoringPlan]:
    packed = replace(alone, mode="packed")
    window, kinds = sliding_window(config), layer_types(config)
    if window is None or (kinds and "sliding_attention" not in kinds):
        return [packed]
    return [replace(packed, window=window, layer_types=kinds), replace(packed, window=window), packed]


def _try(model: nn.Module, tree: DialogueTree, plan: ScoringPlan, *, truth: Tensor) -> Trial:
    # Modelling code that was not made for masks of ours fails in any way it likes; that is an answer, too.
    try:
        error = _largest_difference(_score(model, tree, plan), truth)
    except PersonalignError:
        raise
    except Exception as failure:
        first_line = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        return Trial(plan, float("inf"), first_line[:160])
    return Trial(plan, error)


def _check_truth(
    model: nn.Module, tree: DialogueTree, alone: ScoringPlan, *, truth: Tensor, tolerance: float
) -> None:
    """The truth must not depend on what comes after a token, nor on what was scored before."""
    paths = separate([tree])
    again = torch.cat([_score(model, path, alone) for path in reversed(paths)])
    backwards = torch.cat(list(reversed(torch.split(truth, [len(branch) for branch in tree.branches]))))
    drift = _largest_difference(again, backwards)
    if drift > tolerance:
        raise PersonalignError(
            f"{_name(model)} cannot be used: its log-probabilities depend on what it scored before (by "
            f"{drift:.1e}), so no number could be trusted; use a model without dropout in evaluation mode, "
            "length-dependent RoPE scaling or other state"
        )
    whole = paths[0].tokens().tolist()
    cut = len(whole) - len(whole) // 4
    shorter, longer = DialogueTree(), DialogueTree()
    shorter.attach(whole[:cut])
    shorter.score_tokens(list(range(1, cut)))
    longer.attach(whole)
    longer.score_tokens(list(range(1, len(whole))))
    leak = _largest_difference(_score(model, longer, alone)[: cut - 1], _score(model, shorter, alone))
    if leak > tolerance:
        raise PersonalignError(
            f"{_name(model)} is not a causal language model: what follows a token changes its "
            f"log-probability (by {leak:.1e}); choose a decoder-only model"
        )


def _random_trees(length: int, *, vocabulary: int, seed: int) -> tuple[DialogueTree, DialogueTree]:
    """A tree whose longest path has `length` tokens at most, and the same with the path's beginning changed.

    Children hang in mid-parent, down to depth 3, and one hangs off nothing. All but the trunk's first tokens
    are scored.
    """
    random = np.random.default_rng(seed)
    size = max(3, min(12, length // 8))
    trunk = length - 2 * size
    tokens = random.integers(0, vocabulary, (2, trunk + 6 * size))
    # Every branch but the one without a trunk sees the change, and none is predicted directly from it.
    shared = trunk // 2 - 2
    tokens[1, shared:] = tokens[0, shared:]
    first, second = (_grow(row.tolist(), trunk=trunk, size=size) for row in tokens)
    return first, second


def _grow(tokens: Sequence[int], *, trunk: int, size: int) -> DialogueTree:
    pieces = iter([tokens[trunk + index * size : trunk + (index + 1) * size] for index in range(6)])
    tree = DialogueTree()
    tree.attach(tokens[:trunk])
    near = tree.attach(next(pieces), at=trunk - 1)
    below = tree.attach(next(pieces), parent=near, at=size // 2)
    tree.attach(next(pieces), parent=below, at=size // 2)
    early = tree.attach(next(pieces), at=trunk // 2)
    tree.attach(next(pieces), parent=early, at=size - 1)
    apart = tree.attach(next(pieces), at=0)
    for index, node in enumerate(tree.nodes):
        skipped = {0: trunk - size, apart: 1}.get(index, 0)
        tree.score_tokens(list(range(node.start + skipped, node.start + node.length)))
    return tree


def _path_length(config: Any, longest: int | None) -> int:
    """Longer than the largest window, by enough to see it; never longer than the model can take."""
    window = max(window_sizes(config), default=0)
    wanted = max(USUAL, window + max(32, window // 4))
    length = wanted if longest is None else min(wanted, longest)
    if length < SHORTEST:
        raise PersonalignError(
            f"the model takes {longest} tokens at most, too few for a dialogue; choose one that takes more"
        )
    return length


def _vocabulary(model: nn.Module) -> int:
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    return int(embeddings.weight.shape[0])


def _score(model: nn.Module, tree: DialogueTree, plan: ScoringPlan) -> Tensor:
    [branches] = score(model, [tree], plan=plan, budget=4 * len(tree))
    return torch.cat(branches)


def _largest_difference(found: Tensor, expected: Tensor) -> float:
    difference = float((found - expected).abs().max())
    return difference if difference == difference else float("inf")


def _complaint(trials: Sequence[Trial]) -> str:
    closest = min(trials, key=lambda trial: trial.error)
    if closest.failure:
        return f"the model fails ({closest.failure})"
    return f"scores differ by {closest.error:.1e}"


def _name(model: nn.Module) -> str:
    return f"'{model.name_or_path or type(model).__name__}'"
