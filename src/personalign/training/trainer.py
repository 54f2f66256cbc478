"""The one Trainer: transformers' loop, with dialogue trees as batches and our objectives as loss."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from personalign._files import atomic_path, write_json
from personalign.errors import PersonalignError
from personalign.training.examples import ExampleBatches, GrownTree
from personalign.training.objectives import dpo, nll, pair_accuracy
from personalign.trees import PACKED, PackedBatch, ScoringPlan, batch_of, batches_under, token_log_probs

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class StageSettings:
    """One stage of training. `batch_examples` counts turns, `token_budget` what one forward pass may hold.

    Either `epochs` or `max_steps` ends the stage, whichever comes first; `max_steps` None means no limit.
    """

    objective: Literal["nll", "dpo"] = "nll"
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
    seed: int = 0
    bf16: bool = False
    log_every: int = 10
    save_every: int | None = None
    evaluate_every: int | None = None
    patience: int | None = None
    use_cpu: bool = True


@dataclass(slots=True)
class StageResult:
    """What a stage did. `interrupted` tells that it stopped early by Ctrl-C and can be resumed."""

    steps: int
    seconds: float
    interrupted: bool = False
    best_step: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class _Totals:
    """Sums over the steps since the last log line."""

    values: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.values[name] = self.values.get(name, 0.0) + value
        self.steps += 1

    def drain(self) -> dict[str, float]:
        means = {name: value / max(1, self.steps) for name, value in self.values.items()}
        self.values, self.steps = {}, 0
        return means


class TreeTrainer(Trainer):  # type: ignore[misc]
    """transformers' Trainer over trees: one dataloader batch is one optimizer step, cut into micro-batches here.

    The step's loss is normalised by the step's own count of supervised tokens (nll) or pairs (dpo), so that the
    gradient does not depend on how the step is cut.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        trees: Sequence[GrownTree],
        settings: StageSettings,
        plan: ScoringPlan,
        optimizer: torch.optim.Optimizer | None,
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=list(trees), callbacks=callbacks)
        self._settings = settings
        self._plan = plan
        self._own_optimizer = optimizer
        self.totals = _Totals()

    def get_train_dataloader(self) -> Any:
        sampler = ExampleBatches(
            self.train_dataset, examples=self._settings.batch_examples, seed=self._settings.seed
        )
        loader: Any = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=_as_inputs)
        # A plain DataLoader would not hand the epoch on to the sampler, and every epoch would be the same.
        prepared: Any = self.accelerator.prepare(loader)
        return prepared

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self._own_optimizer is not None:
            self.optimizer = self._own_optimizer
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        model.train()
        trees: list[GrownTree] = inputs["trees"]
        total = self._global_count(trees)
        loss = torch.zeros((), device=self.args.device)
        measured: dict[str, float] = {}
        for indices in batches_under(trees, length=len, budget=self._settings.token_budget):
            held = [trees[index] for index in indices]
            with self.compute_loss_context_manager():
                part, values = step_loss(model, held, settings=self._settings, plan=self._plan, total=total)
            self.accelerator.backward(part)
            loss += part.detach()
            for name, value in values.items():
                measured[name] = measured.get(name, 0.0) + value
        self.totals.add(measured)
        return loss

    def _global_count(self, trees: Sequence[GrownTree]) -> float:
        """Supervised tokens or pairs of this step over all ranks, per rank: DDP averages gradients over ranks."""
        if self._settings.objective == "nll":
            count = float(sum(tree.supervised_weight() for tree in trees))
        else:
            count = float(sum(len(tree.examples) for tree in trees))
        if self.args.world_size == 1:
            return count
        gathered: Tensor = self.accelerator.gather(torch.tensor(count, device=self.args.device))
        ranks: int = self.args.world_size
        return float(gathered.sum()) / ranks


def _as_inputs(trees: list[GrownTree]) -> dict[str, list[GrownTree]]:
    return {"trees": trees}


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
    chosen = torch.tensor([i for i, kind in enumerate(kinds) if kind == "chosen"], device=device)
    rejected = torch.tensor([i for i, kind in enumerate(kinds) if kind == "rejected"], device=device)
    reference = torch.cat([_reference(tree) for tree in trees]).to(device)
    terms = dpo(
        sums[chosen],
        sums[rejected],
        reference_chosen=reference[chosen],
        reference_rejected=reference[rejected],
        beta=settings.beta,
    )
    loss = terms.loss.sum() / total
    values = {
        "dpo_loss": float(terms.loss.detach().sum()) / total,
        "reward_chosen": float(terms.chosen_reward.sum()) / total,
        "reward_rejected": float(terms.rejected_reward.sum()) / total,
        "pair_accuracy": float(pair_accuracy(terms)) * len(chosen) / total,
        "chosen_log_ratio": float(terms.chosen_reward.sum()) / settings.beta / total,
    }
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
    batch = batch_of(model, [tree.tree for tree in trees], plan=plan)
    return batch, token_log_probs(model, batch, plan=plan)


def _reference(tree: GrownTree) -> Tensor:
    if tree.reference is None:
        raise PersonalignError(
            "DPO needs the reference policy's log-probabilities; score the trees before training"
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


def _logged(values: dict[str, float]) -> dict[str, float]:
    """Turn sums and counts by kind into mean losses."""
    result = {name: value for name, value in values.items() if "/" not in name}
    for name, value in values.items():
        if name.startswith("sum/"):
            kind = name.removeprefix("sum/")
            result[f"loss_{kind}"] = value / max(1e-9, values[f"count/{kind}"])
    return result


class _Journal(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, tells the progress, stops on Ctrl-C between steps, and evaluates."""

    def __init__(
        self,
        *,
        settings: StageSettings,
        journal: Path | None,
        stage: str,
        progress: Progress | None,
        validate: Callable[[nn.Module], float] | None,
        best: Path | None,
        history: list[dict[str, float]],
    ) -> None:
        self.trainer: TreeTrainer | None = None
        self.interrupted = False
        self.best_step: int | None = None
        self._best_value = -math.inf
        self._worse = 0
        self._settings = settings
        self._journal = journal
        self._stage = stage
        self._progress = progress
        self._validate = validate
        self._best = best
        self._history = history
        self._evaluations: list[tuple[int, float]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._best is not None and state.global_step:
            for step, value in _read_evaluations(self._best):
                if step <= state.global_step:
                    self._judge(step, value)
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        assert self.trainer is not None
        model: nn.Module = kwargs["model"]
        latest = {
            name: value / max(1, self.trainer.totals.steps)
            for name, value in self.trainer.totals.values.items()
        }
        if self._progress is not None:
            self._progress(state.global_step, state.max_steps, _logged(latest))
        if state.global_step % self._settings.log_every == 0 or state.global_step == state.max_steps:
            self._write({"step": state.global_step, **_logged(self.trainer.totals.drain())})
        every = self._settings.evaluate_every
        if self._validate is not None and every and state.global_step % every == 0:
            self._evaluate(model, state, control)
        if self.interrupted:
            control.should_training_stop = True
            control.should_save = True
        return control

    def _evaluate(self, model: nn.Module, state: TrainerState, control: TrainerControl) -> None:
        assert self._validate is not None
        model.eval()
        value = self._validate(model)
        model.train()
        self._write({"step": state.global_step, "validation": value})
        better = self._judge(state.global_step, value)
        if self._best is not None:
            if better:
                save_weights(model, self._best)
            write_json(_evaluations_beside(self._best), self._evaluations)
        if self._settings.patience is not None and self._worse >= self._settings.patience:
            control.should_training_stop = True

    def _judge(self, step: int, value: float) -> bool:
        """Whether the evaluation is the best so far; the only place that changes the state of early stopping."""
        self._evaluations.append((step, value))
        better = value > self._best_value
        if better:
            self._best_value, self._worse, self.best_step = value, 0, step
        else:
            self._worse += 1
        return better

    def _write(self, row: dict[str, float]) -> None:
        self._history.append(row)
        if self._journal is not None:
            with open(self._journal, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"stage": self._stage, **row}) + "\n")


def _evaluations_beside(best: Path) -> Path:
    return best.with_suffix(".json")


def _read_evaluations(best: Path) -> list[tuple[int, float]]:
    """What a stage that is resumed measured before: pairs of step and value."""
    path = _evaluations_beside(best)
    if not path.is_file():
        return []
    return [(step, value) for step, value in json.loads(path.read_text(encoding="utf-8"))]


def save_weights(model: nn.Module, path: Path) -> None:
    """The trainable weights, written whole or not at all."""
    from safetensors.torch import save_file

    weights = {name: value.detach().contiguous().clone() for name, value in trainable(model).items()}
    with atomic_path(path) as temporary:
        save_file(weights, str(temporary))


def load_weights(model: nn.Module, path: Path) -> None:
    """Put back what `save_weights` wrote."""
    from safetensors.torch import load_file

    stored = load_file(str(path))
    parameters = trainable(model)
    if stored.keys() != parameters.keys():
        raise PersonalignError(
            f"{path} holds other weights than the model trains; remove it and run the stage again"
        )
    with torch.no_grad():
        for name, value in stored.items():
            parameters[name].copy_(value)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def total_steps(trees: Sequence[GrownTree], settings: StageSettings) -> int:
    """How many optimizer steps a stage takes, if nothing stops it early."""
    if settings.max_steps is not None:
        return settings.max_steps
    batches = ExampleBatches(trees, examples=settings.batch_examples, seed=settings.seed)
    return math.ceil(settings.epochs * len(batches))


def train_stage(
    model: nn.Module,
    trees: Sequence[GrownTree],
    *,
    settings: StageSettings,
    folder: Path,
    stage: str,
    plan: ScoringPlan = PACKED,
    optimizer: torch.optim.Optimizer | None = None,
    journal: Path | None = None,
    progress: Progress | None = None,
    validate: Callable[[nn.Module], float] | None = None,
    resume: bool = False,
) -> StageResult:
    """Train `model` in place on grown trees; checkpoints go under `folder`.

    `validate`, a higher-is-better score of the model, is called every `evaluate_every` steps; the best weights are
    put back at the end, and `patience` evaluations without a better one end the stage. Ctrl-C ends it after the
    step in hand, with a checkpoint from which `resume=True` goes on to the same result.
    """
    if not trees:
        raise PersonalignError(f"stage {stage} has no training examples; check the data files of the recipe")
    history: list[dict[str, float]] = []
    best = folder / "best.safetensors" if validate is not None and settings.evaluate_every else None
    callback = _Journal(
        settings=settings,
        journal=journal,
        stage=stage,
        progress=progress,
        validate=validate,
        best=best,
        history=history,
    )
    trainer = TreeTrainer(
        model=model,
        args=_arguments(settings, folder),
        trees=trees,
        settings=settings,
        plan=plan,
        optimizer=optimizer,
        callbacks=[callback],
    )
    callback.trainer = trainer
    trainer.remove_callback(_printer())
    trainer.remove_callback(_progress_bar())
    checkpoint = _last_checkpoint(folder) if resume else None
    start = time.monotonic()
    with _between_steps(callback):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if best is not None and best.exists() and not callback.interrupted:
        load_weights(model, best)
    return StageResult(
        steps=trainer.state.global_step,
        seconds=time.monotonic() - start,
        interrupted=callback.interrupted,
        best_step=callback.best_step,
        history=history,
    )


def _arguments(settings: StageSettings, folder: Path) -> TrainingArguments:
    schedules = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps if settings.max_steps is not None else -1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=schedules[settings.schedule],
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.adam_beta2,
        max_grad_norm=settings.max_grad_norm,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=settings.bf16,
        use_cpu=settings.use_cpu,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 500,
        save_total_limit=2,
        eval_strategy="no",
        dataloader_pin_memory=False,
    )


def _printer() -> Any:
    from transformers import PrinterCallback

    return PrinterCallback


def _progress_bar() -> Any:
    from transformers.trainer_callback import ProgressCallback

    return ProgressCallback


def _last_checkpoint(folder: Path) -> Path | None:
    from transformers.trainer_utils import get_last_checkpoint

    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return Path(found) if found else None


class _between_steps:  # noqa: N801  (reads as a phrase: `with _between_steps(callback)`)
    """Turn Ctrl-C into a request to stop after the step in hand; a second Ctrl-C stops at once."""

    def __init__(self, callback: _Journal) -> None:
        self._callback = callback
        self._previous: Any = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._request)

    def _request(self, number: int, frame: Any) -> None:
        if self._callback.interrupted:
            raise KeyboardInterrupt
        self._callback.interrupted = True

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
