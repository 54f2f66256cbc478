"""Our side: dialogues grown into trees, trained by the library's own stage."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _models import wait_for
from _work import BETA, LEARNING_RATE, MAX_GRAD_NORM, Job
from personalign.training.examples import Example, GrownTree, grow
from personalign.training.step import StageSettings, step_loss
from personalign.training.trainer import train_stage
from personalign.trees import ScoringPlan, score


def token_budget(job: Job) -> int:
    return 16384 if job.device == "cuda" else 4096


def plan(job: Job) -> ScoringPlan:
    return ScoringPlan(attention="flex_attention" if job.device == "cuda" else "sdpa")


def stage_settings(job: Job) -> StageSettings:
    return StageSettings(
        objective="nll" if job.stage == "stage1" else "dpo",
        learning_rate=LEARNING_RATE,
        epochs=1.0,
        batch_examples=job.batch_examples,
        token_budget=token_budget(job),
        warmup_steps=0,
        max_grad_norm=MAX_GRAD_NORM,
        beta=BETA,
        bf16=job.bf16,
        use_cpu=job.device == "cpu",
    )


def train(model: Any, examples: Sequence[Example], *, job: Job) -> tuple[float, float, float]:
    """Seconds in all, of them for the reference pass, and the last logged loss."""
    settings = stage_settings(job)
    start = time.perf_counter()
    trees = grow(examples, budget=settings.token_budget)
    reference_seconds = 0.0
    if job.stage == "dpo":
        trees = with_reference(model, trees, job=job)
        wait_for(job.device)
        reference_seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        result = train_stage(
            model, trees, settings=settings, folder=Path(folder), stage=job.stage, plan=plan(job)
        )
    wait_for(job.device)
    seconds = time.perf_counter() - start
    last = result.history[-1]
    return seconds, reference_seconds, last["dpo_loss" if job.stage == "dpo" else "loss_reply"]


def with_reference(model: Any, trees: Sequence[GrownTree], *, job: Job) -> list[GrownTree]:
    with torch.autocast(job.device, dtype=torch.bfloat16, enabled=job.bf16):
        scored = score(model, [tree.tree for tree in trees], plan=plan(job), budget=token_budget(job))
    return [
        tree.with_reference(torch.stack([branch.sum() for branch in branches]))
        for tree, branches in zip(trees, scored, strict=True)
    ]


def log_probs_and_gradient(model: Any, examples: Sequence[Example], *, job: Job) -> tuple[Tensor, float]:
    """Summed log-probability of each path, in the examples' order, and the norm of one step's gradient."""
    trees = grow(examples, budget=token_budget(job))
    trees = with_reference(model, trees, job=job)
    found: dict[tuple[str, int], list[Tensor]] = {}
    for tree in trees:
        assert tree.reference is not None
        sums = iter(tree.reference)
        for example in tree.examples:
            found[example.key] = [next(sums) for _ in example.paths]
    model.zero_grad()
    stage1 = job.stage == "stage1"
    total = sum(tree.supervised_weight() if stage1 else len(tree.examples) for tree in trees)
    for tree in trees:
        with torch.autocast(job.device, dtype=torch.bfloat16, enabled=job.bf16):
            loss, _ = step_loss(model, [tree], settings=stage_settings(job), plan=plan(job), total=total)
        torch.autograd.backward(loss)
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
    model.zero_grad()
    return torch.stack([value for example in examples for value in found[example.key]]), norm
