"""The trainer's invariants: however a step is cut, and wherever a stage is interrupted, the result is the same."""

import copy
import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.made_examples import gradients, pairs, path_log_probs, supervised, tiny_model, triples
from torch import nn

from personalign.errors import PersonalignError
from personalign.training import trainer as trainer_module
from personalign.training.examples import Example, GrownTree, grow, one_per_example
from personalign.training.journal import Validated
from personalign.training.step import StageSettings, forward_trees, step_loss
from personalign.training.trainer import StageResult, train_stage
from personalign.training.weights import load_weights, save_weights
from personalign.trees import PACKED, ScoringPlan, batches_under

SETTINGS = StageSettings(
    learning_rate=3e-3,
    epochs=100,
    max_steps=8,
    batch_examples=4,
    token_budget=200,
    warmup_steps=2,
    log_every=1,
)
SEPARATE = ScoringPlan(mode="separate", reason="to compare with")


def with_reference(trees: list[GrownTree], *, shift: float = 0.0) -> list[GrownTree]:
    """References scored by another model, so that log-ratios are far from 0."""
    model = tiny_model(seed=17)
    scored = []
    with torch.no_grad():
        for tree in trees:
            batch, log_probs = forward_trees(model, [tree])
            scored.append(tree.with_reference(batch.branch_sums(log_probs) + shift))
    return scored


def whole_step(
    trees: list[GrownTree], settings: StageSettings, *, budget: int, plan: ScoringPlan = PACKED
) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
    """Loss, gradients and measurements of one step that is cut into micro-batches under `budget`."""
    model = tiny_model()
    if settings.objective == "nll":
        total = sum(tree.supervised_weight() for tree in trees)
    else:
        total = float(sum(len(tree.examples) for tree in trees))
    loss, measured = 0.0, dict[str, float]()
    for indices in batches_under(trees, length=len, budget=budget):
        held = [trees[index] for index in indices]
        part, values = step_loss(model, held, settings=settings, plan=plan, total=total)
        part.backward()  # type: ignore[no-untyped-call]
        loss += float(part.detach())
        for name, value in values.items():
            measured[name] = measured.get(name, 0.0) + value
    return loss, gradients(model), measured


@pytest.mark.parametrize("objective", ["nll", "dpo", "dpo+sft", "dpoc", "dpoc+sft"])
def test_a_step_is_the_same_however_it_is_cut(objective: str) -> None:
    name, _, sft = objective.partition("+")
    settings = replace(SETTINGS, objective=name, sft_weight=0.5 if sft else 0.0)
    examples = {"nll": supervised(trunk=True), "dpo": pairs(), "dpoc": triples()}[name]
    make = (lambda trees: trees) if objective == "nll" else with_reference
    trees = make(grow(examples, budget=10_000))
    expected = whole_step(trees, settings, budget=10_000)
    variants = {
        "micro-batches of one tree": whole_step(trees, settings, budget=1),
        "split trees": whole_step(make(grow(examples, budget=30)), settings, budget=60),
        "one example per tree": whole_step(make(one_per_example(examples)), settings, budget=100),
        "one branch per row": whole_step(trees, settings, budget=10_000, plan=SEPARATE),
    }
    for name, (loss, gradient, measured) in variants.items():
        assert loss == pytest.approx(expected[0], abs=1e-5), name
        assert gradient.keys() == expected[1].keys()
        for parameter, value in gradient.items():
            torch.testing.assert_close(
                value, expected[1][parameter], atol=1e-5, rtol=1e-4, msg=f"{name}: {parameter}"
            )
        assert measured == pytest.approx(expected[2], abs=1e-4), name


def test_nll_on_trees_is_the_loss_of_transformers() -> None:
    examples = [
        Example(item.dialogue, item.turn, tuple(replace(path, weight=1.0) for path in item.paths))
        for item in supervised()
    ]
    trees = grow(examples, budget=10_000)
    loss, gradient, _ = whole_step(trees, SETTINGS, budget=10_000)
    model = tiny_model()
    paths = [path for example in examples for path in example.paths]
    width = max(len(path) for path in paths)
    ids, labels, mask = (torch.full((len(paths), width), fill) for fill in (0, -100, 0))
    for row, path in enumerate(paths):
        ids[row, : len(path)] = torch.tensor([*path.prompt, *path.target])
        labels[row, len(path.prompt) : len(path)] = torch.tensor(path.target)
        mask[row, : len(path)] = 1
    theirs = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    theirs.backward()
    assert loss == pytest.approx(float(theirs.detach()), abs=1e-5)
    for name, value in gradients(model).items():
        torch.testing.assert_close(gradient[name], value, atol=1e-5, rtol=1e-4)


def test_weighted_nll_on_trees_is_the_weighted_mean_over_sequences() -> None:
    examples = supervised(trunk=True)
    paths = [path for example in examples for path in example.paths]
    assert {path.weight for path in paths} == {1.0, 0.5, 0.2}
    loss, _, measured = whole_step(grow(examples, budget=10_000), SETTINGS, budget=100)
    with torch.no_grad():
        summed = [-float(path_log_probs(tiny_model(), path).sum()) for path in paths]
    weighted = sum(path.weight * value for path, value in zip(paths, summed, strict=True))
    assert loss == pytest.approx(weighted / sum(path.weight * len(path.target) for path in paths), abs=1e-5)
    # What is logged per kind is not weighted.
    for kind in ("selection", "reply", "trunk"):
        expected = sum(value for path, value in zip(paths, summed, strict=True) if path.kind == kind)
        assert measured[f"sum/{kind}"] == pytest.approx(expected, abs=1e-3)


def test_dpo_on_trees_is_the_formula_on_sequences() -> None:
    settings = replace(SETTINGS, objective="dpo", beta=0.3, sft_weight=0.5)
    trees = with_reference(grow(pairs(), budget=10_000))
    loss, _, measured = whole_step(trees, settings, budget=10_000)
    policy, reference = tiny_model(), tiny_model(seed=17)
    losses, rewards = [], []
    with torch.no_grad():
        for example in pairs():
            chosen, rejected = example.paths
            ratio = [
                path_log_probs(policy, path).sum() - path_log_probs(reference, path).sum()
                for path in (chosen, rejected)
            ]
            losses.append(
                math.log1p(math.exp(-0.3 * float(ratio[0] - ratio[1])))
                - 0.5 * float(path_log_probs(policy, chosen).mean())
            )
            rewards.append([0.3 * float(value) for value in ratio])
    count = len(losses)
    assert loss == pytest.approx(sum(losses) / count, abs=1e-5)
    assert measured["reward_chosen"] == pytest.approx(sum(r[0] for r in rewards) / count, abs=1e-5)
    assert measured["reward_rejected"] == pytest.approx(sum(r[1] for r in rewards) / count, abs=1e-5)
    assert measured["pair_accuracy"] == pytest.approx(sum(r[0] > r[1] for r in rewards) / count, abs=1e-6)


@pytest.mark.parametrize(("objective", "make"), [("dpo", pairs), ("dpoc", triples)])
def test_aligning_without_reference_is_refused(objective: str, make: Callable[[], list[Example]]) -> None:
    with pytest.raises(PersonalignError, match="reference"):
        step_loss(
            tiny_model(),
            grow(make(), budget=100),
            settings=replace(SETTINGS, objective=objective),
            plan=PACKED,
            total=1,
        )


# Stages --------------------------------------------------------------------------------------------------


def train(
    folder: Path,
    *,
    settings: StageSettings = SETTINGS,
    resume: bool = False,
    validate: Callable[[nn.Module], float] | None = None,
    interrupt_after: int | None = None,
    trees: list[GrownTree] | None = None,
) -> tuple[StageResult, dict[str, torch.Tensor]]:
    model = tiny_model()

    def progress(step: int, total: int, values: dict[str, float]) -> None:
        if step == interrupt_after:
            os.kill(os.getpid(), signal.SIGINT)

    result = train_stage(
        model,
        grow(supervised(dialogues=9), budget=200) if trees is None else trees,
        settings=settings,
        folder=folder / "checkpoints",
        stage="made",
        journal=folder / "metrics.jsonl",
        progress=progress,
        validate=None if validate is None else lambda model: Validated(validate(model)),
        resume=resume,
    )
    return result, {name: value.detach().clone() for name, value in model.state_dict().items()}


def rows_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_identical(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_stage_learns_and_writes_its_journal(tmp_path: Path) -> None:
    result, weights = train(tmp_path, settings=replace(SETTINGS, max_steps=30))
    assert (result.steps, result.interrupted) == (30, False)
    assert result.history[-1]["loss_reply"] < result.history[0]["loss_reply"] - 0.1
    assert result.history[-1]["loss_selection"] < result.history[0]["loss_selection"] - 0.1
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert {row["stage"] for row in rows} == {"made"}
    assert not all(torch.equal(value, tiny_model().state_dict()[name]) for name, value in weights.items())


def test_the_journals_first_loss_is_that_of_the_untrained_model(tmp_path: Path) -> None:
    trees = grow(supervised(dialogues=9), budget=200)
    settings = replace(SETTINGS, max_steps=1, batch_examples=1000)
    result, _ = train(tmp_path, settings=settings, trees=trees)
    with torch.no_grad():
        scored = [
            path_log_probs(tiny_model(), p)
            for e in supervised(dialogues=9)
            for p in e.paths
            if p.kind == "reply"
        ]
    assert result.history[0]["loss_reply"] == pytest.approx(-float(torch.cat(scored).mean()), abs=1e-5)


def test_bf16_is_near_fp32_and_not_the_same(tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_steps=12)
    whole, _ = train(tmp_path / "fp32", settings=settings)
    half, others = train(tmp_path / "bf16", settings=replace(settings, bf16=True))
    for name in ("loss_reply", "loss_selection"):
        losses = [(a[name], b[name]) for a, b in zip(whole.history, half.history, strict=True)]
        assert all(a == pytest.approx(b, rel=0.05) for a, b in losses)
        assert any(a != b for a, b in losses)
    # Autocast: the weights stay in fp32, and steps below bf16's resolution count.
    assert all(value.dtype == torch.float32 for value in others.values())
    assert any(not torch.equal(value, value.bfloat16().float()) for value in others.values())


def test_one_step_moves_as_plain_adam_does(tmp_path: Path) -> None:
    trees = grow(supervised(dialogues=9), budget=10_000)
    settings = replace(SETTINGS, max_steps=1, batch_examples=1000, warmup_steps=0, max_grad_norm=0.05)
    _, weights = train(tmp_path, settings=settings, trees=trees)
    model = tiny_model()
    total = sum(tree.supervised_weight() for tree in trees)
    step_loss(model, trees, settings=settings, plan=PACKED, total=total)[0].backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05)
    assert float(norm) > 0.05
    torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0).step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(weights[name], value, atol=2e-5, rtol=1e-4)


def test_every_epoch_shows_every_tree_once_in_another_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = grow(supervised(dialogues=9), budget=10_000)
    met: list[str] = []

    def spy(model: nn.Module, held: list[GrownTree], **rest: Any) -> Any:
        met.extend(tree.examples[0].dialogue for tree in held)
        return step_loss(model, held, **rest)

    monkeypatch.setattr(trainer_module, "step_loss", spy)
    settings = replace(SETTINGS, max_steps=None, epochs=3, batch_examples=1)
    result, _ = train(tmp_path, settings=settings, trees=trees)
    assert result.steps == 3 * len(trees)
    epochs = [tuple(met[start : start + len(trees)]) for start in range(0, len(met), len(trees))]
    assert [len(set(epoch)) for epoch in epochs] == [len(trees)] * 3
    assert len(set(epochs)) == 3


def test_steps_count_batches_of_examples(tmp_path: Path) -> None:
    trees = one_per_example(supervised(dialogues=9))
    result, _ = train(
        tmp_path, settings=replace(SETTINGS, max_steps=None, epochs=2, batch_examples=5), trees=trees
    )
    assert result.steps == 2 * round(len(trees) / 5)


@pytest.mark.parametrize("after", [3, 5])
def test_an_interrupted_stage_ends_as_an_uninterrupted_one(tmp_path: Path, after: int) -> None:
    expected, weights = train(tmp_path / "whole")
    stopped, _ = train(tmp_path / "cut", interrupt_after=after)
    assert (stopped.steps, stopped.interrupted) == (after, True)
    resumed, others = train(tmp_path / "cut", resume=True)
    assert (resumed.steps, resumed.interrupted) == (8, False)
    assert_identical(weights, others)
    assert resumed.history == expected.history[after:]


def test_ctrl_c_works_as_before_once_the_stage_is_over(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    train(tmp_path, interrupt_after=2, settings=replace(SETTINGS, max_steps=3))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def validate(model: nn.Module) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, settings=replace(SETTINGS, evaluate_every=1), validate=validate)


def scripted(values: list[float]) -> Callable[[nn.Module], float]:
    """A validation that gives these values in turn."""
    left = iter(values)
    return lambda model: next(left)


def norm(model: nn.Module) -> float:
    return float(sum(value.detach().norm() for value in model.parameters()))


def test_the_best_weights_are_put_back(tmp_path: Path) -> None:
    settings = replace(SETTINGS, evaluate_every=2)
    result, weights = train(tmp_path / "a", settings=settings, validate=scripted([0.1, 0.4, 0.4, 0.3]))
    assert (result.steps, result.best_step) == (8, 4)
    _, until_four = train(tmp_path / "b", settings=replace(settings, max_steps=4))
    assert_identical(weights, until_four)


def test_the_last_step_is_evaluated_too(tmp_path: Path) -> None:
    settings = replace(SETTINGS, max_steps=6, evaluate_every=4)
    result, weights = train(tmp_path / "best", settings=settings, validate=scripted([0.1, 0.2]))
    assert result.best_step == 6
    assert_identical(weights, train(tmp_path / "six", settings=replace(SETTINGS, max_steps=6))[1])
    never = replace(SETTINGS, max_steps=3, evaluate_every=10)
    assert train(tmp_path / "never", settings=never, validate=scripted([0.1]))[0].best_step == 3


def test_patience_ends_a_stage(tmp_path: Path) -> None:
    settings = replace(SETTINGS, evaluate_every=1, patience=2)
    result, _ = train(tmp_path, settings=settings, validate=scripted([0.2, 0.1, 0.3, 0.3, 0.1, 9.0]))
    assert (result.steps, result.best_step) == (5, 3)
    assert [row["validation"] for row in result.history if "validation" in row] == [0.2, 0.1, 0.3, 0.3, 0.1]


def test_early_stopping_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    values = [0.2, 0.5, 0.4, 0.3, 0.45, 9.0]
    settings = replace(SETTINGS, evaluate_every=1, patience=3)
    expected, weights = train(tmp_path / "whole", settings=settings, validate=scripted(values))
    assert (expected.steps, expected.best_step) == (5, 2)
    train(tmp_path / "cut", settings=settings, validate=scripted(values), interrupt_after=3)
    resumed, others = train(tmp_path / "cut", settings=settings, validate=scripted(values[3:]), resume=True)
    assert (resumed.steps, resumed.best_step) == (5, 2)
    assert_identical(weights, others)


def test_evaluations_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    """A kill, unlike Ctrl-C, leaves evaluations of steps that are done again."""
    settings = replace(SETTINGS, evaluate_every=1, save_every=2, patience=3)

    def killed(model: nn.Module) -> float:
        raise MemoryError

    evaluations = iter([lambda model: 0.5, lambda model: 0.1, lambda model: 0.9, killed])
    with pytest.raises(MemoryError):
        train(tmp_path, settings=settings, validate=lambda model: next(evaluations)(model))
    assert [row["step"] for row in rows_of(tmp_path) if "validation" in row] == [1, 2, 3]
    resumed, weights = train(tmp_path, settings=settings, validate=scripted([0.2, 0.3, 0.4]), resume=True)
    assert (resumed.steps, resumed.best_step) == (4, 1)
    # The weights are those of the evaluation that counts, not of the forgotten one that was better.
    assert_identical(weights, train(tmp_path / "one", settings=replace(SETTINGS, max_steps=1))[1])
    assert [row["step"] for row in rows_of(tmp_path) if "validation" in row] == [1, 2, 3, 4]


def test_a_stage_that_ran_out_of_patience_does_not_go_on(tmp_path: Path) -> None:
    """Ctrl-C during the last evaluation comes before the result; going on then must not train on."""
    settings = replace(SETTINGS, evaluate_every=1, patience=2)
    values = iter([0.5, 0.4, 0.3])

    def validate(model: nn.Module) -> float:
        value = next(values)
        if value == 0.3:
            os.kill(os.getpid(), signal.SIGINT)
        return value

    first, _ = train(tmp_path / "cut", settings=settings, validate=validate)
    assert first.interrupted
    resumed, weights = train(tmp_path / "cut", settings=settings, validate=scripted([]), resume=True)
    assert (resumed.steps, resumed.best_step, resumed.interrupted) == (3, 1, False)
    assert_identical(weights, train(tmp_path / "one", settings=replace(SETTINGS, max_steps=1))[1])


def test_a_stage_that_was_cut_in_its_last_step_is_done(tmp_path: Path) -> None:
    _, whole = train(tmp_path / "whole", settings=replace(SETTINGS, max_steps=5))
    train(tmp_path / "cut", settings=replace(SETTINGS, max_steps=5), interrupt_after=5)
    resumed, weights = train(tmp_path / "cut", settings=replace(SETTINGS, max_steps=5), resume=True)
    assert (resumed.steps, resumed.interrupted) == (5, False)
    assert_identical(weights, whole)


def test_a_gradient_that_is_no_number_stops_before_it_spoils_the_weights(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=2)
    poisoned: list[nn.Module] = []

    class Poisoned(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
            return values.clone()

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return gradient * math.nan

    def poison(*arguments: Any, **named: Any) -> tuple[torch.Tensor, dict[str, float]]:
        poisoned.append(arguments[0])
        loss, values = step_loss(*arguments, **named)
        # The third step's, whatever micro-batches the first two had: checkpoints tell the step.
        bad = (tmp_path / "checkpoints" / "checkpoint-2").is_dir()
        return (Poisoned.apply(loss) if bad else loss), values  # type: ignore[no-untyped-call]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "step_loss", poison)
        with pytest.raises(
            PersonalignError, match=r"made: the gradient of step 3 is not a number.*learning_rate"
        ):
            train(tmp_path, settings=settings)
    assert all(bool(value.isfinite().all()) for value in poisoned[0].parameters())
    _, weights = train(tmp_path, settings=settings, resume=True)
    assert_identical(weights, train(tmp_path / "whole", settings=settings)[1])


def test_the_journal_of_an_interrupted_stage_is_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = replace(SETTINGS, log_every=3)
    train(tmp_path / "whole", settings=settings)
    first, _ = train(tmp_path, settings=settings, interrupt_after=4)
    resumed, _ = train(tmp_path, settings=settings, resume=True)
    assert [row["step"] for row in rows_of(tmp_path)] == [3, 6, 8]
    assert rows_of(tmp_path) == rows_of(tmp_path / "whole")
    assert resumed.seconds > first.seconds


def test_what_is_found_beside_the_score_is_in_the_journal_and_decides_nothing(tmp_path: Path) -> None:
    found = iter([Validated(0.2, {"bleu": 9.0}), Validated(0.3, {"bleu": 4.0})])
    result = train_stage(
        tiny_model(),
        grow(supervised(dialogues=9), budget=200),
        settings=replace(SETTINGS, evaluate_every=1, max_steps=2),
        folder=tmp_path / "checkpoints",
        stage="made",
        journal=tmp_path / "metrics.jsonl",
        validate=lambda model: next(found),
    )
    rows = [row for row in rows_of(tmp_path) if "validation" in row]
    assert [(row["step"], row["validation"], row["bleu"]) for row in rows] == [(1, 0.2, 9.0), (2, 0.3, 4.0)]
    assert result.best_step == 2


def test_validation_leaves_training_as_it_was(tmp_path: Path) -> None:
    """Evaluating draws no random number of the training and leaves the model in training mode."""
    _, plain = train(tmp_path / "plain")
    modes = []

    def validate(model: nn.Module) -> float:
        modes.append(model.training)
        return float(len(modes))

    _, evaluated = train(
        tmp_path / "evaluated", settings=replace(SETTINGS, evaluate_every=1), validate=validate
    )
    assert modes == [False] * 8
    assert_identical(plain, evaluated)


def test_without_resume_a_stage_begins_anew(tmp_path: Path) -> None:
    train(tmp_path, interrupt_after=3)
    result, weights = train(tmp_path)
    assert [row["step"] for row in result.history] == list(range(1, 9))
    assert_identical(weights, train(tmp_path / "other")[1])


def test_a_stage_without_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="stage made has no training examples"):
        train(tmp_path, trees=[])


def test_weights_on_file_are_whole_or_refused(tmp_path: Path) -> None:
    model, other = tiny_model(), tiny_model(seed=6)
    path = tmp_path / "best.safetensors"
    save_weights(model, path)
    load_weights(other, path)
    assert norm(other) == norm(model)
    frozen = copy.deepcopy(model)
    next(iter(frozen.parameters())).requires_grad_(False)
    with pytest.raises(PersonalignError, match="other weights"):
        load_weights(frozen, path)


@pytest.mark.parametrize(
    ("schedule", "after_warmup"),
    [
        ("constant", [1.0] * 4),
        ("linear", [0.75, 0.5, 0.25, 0.0]),
        ("cosine", [0.5 * (1 + math.cos(math.pi * step / 4)) for step in (1, 2, 3, 4)]),
    ],
)
def test_learning_rates_warm_up_and_follow_the_schedule(
    tmp_path: Path, schedule: str, after_warmup: list[float]
) -> None:
    rates = []
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def progress(step: int, total: int, values: dict[str, float]) -> None:
        rates.append(optimizer.param_groups[0]["lr"])

    train_stage(
        model,
        grow(supervised(), budget=200),
        settings=replace(SETTINGS, schedule=schedule, max_steps=6, learning_rate=1.0),
        folder=tmp_path,
        stage="made",
        optimizer=optimizer,
        progress=progress,
    )
    # Read after each step, when the next step's rate is set; two steps of warm-up.
    assert rates == pytest.approx([0.5, 1.0, *after_warmup], abs=1e-9)
