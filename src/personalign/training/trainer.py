"""The one Trainer: transformers' loop, with dialogue trees as batches and our objectives as loss."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from personalign._files import disk_errors, remove_folder
from personalign._ranks import find_ranks
from personalign.errors import PersonalignError
from personalign.training.examples import ExampleBatches, GrownTree, micro_batches
from personalign.training.journal import (
    Journal,
    Progress,
    Totals,
    Validate,
    between_steps,
    checkpoints_of,
    read_marker,
)
from personalign.training.step import StageSettings, step_loss
from personalign.training.weights import load_weights
from personalign.trees import PACKED, ScoringPlan


@dataclass(slots=True)
class StageResult:
    """What a stage did. `interrupted` tells that it stopped early by Ctrl-C and can be resumed."""

    steps: int
    seconds: float
    interrupted: bool = False
    best_step: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)


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
        totals: Totals,
        callbacks: list[TrainerCallback],
        stage: str,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=list(trees), callbacks=callbacks)
        self._stage = stage
        self._settings = settings
        self._plan = plan
        self._own_optimizer = optimizer
        self._totals = totals
        self._shortest = min(trees, key=len)

    def get_train_dataloader(self) -> Any:
        sampler = ExampleBatches(
            self.train_dataset,
            examples=self._settings.batch_examples,
            seed=self._settings.seed,
            rank=self.args.process_index,
            ranks=self.args.world_size,
        )
        loader: Any = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=_as_inputs)
        # A plain DataLoader would not hand the epoch on to the sampler, and every epoch would be the same. The sampler
        # shares out each batch itself: accelerate would give whole batches to the processes in turn.
        return prepare_data_loader(loader, num_processes=1, process_index=0)

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
        passes = micro_batches(trees, plan=self._plan, budget=self._settings.token_budget)
        # Every process takes part in every exchange, so all make as many passes, some of them over what does not count.
        idle = self._most(len(passes)) - len(passes)
        for number, held in enumerate([[self._shortest]] * idle + passes):
            last = number + 1 == idle + len(passes)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    part, values = step_loss(
                        model, held, settings=self._settings, plan=self._plan, total=total
                    )
                if number < idle:
                    part, values = part * 0.0, {}
                self.accelerator.backward(part)
            loss += part.detach()
            for name, value in values.items():
                measured[name] = measured.get(name, 0.0) + value
        self._totals.add(self._over_ranks(measured))
        return loss

    def _most(self, count: int) -> int:
        """The greatest of the counts of all ranks."""
        if self.args.world_size == 1:
            return count
        gathered: Tensor = self.accelerator.gather(torch.tensor([count], device=self.args.device))
        return int(gathered.max())

    def _over_ranks(self, measured: dict[str, float]) -> dict[str, float]:
        """Sums over all ranks of what one step measured; means are of `_global_count`, which is a rank's share."""
        if self.args.world_size == 1:
            return measured
        found: list[dict[str, float]] = gather_object([measured])
        summed: dict[str, float] = {}
        for values in found:
            for name, value in values.items():
                share = value if "/" in name else value / len(found)
                summed[name] = summed.get(name, 0.0) + share
        return summed

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """As the Trainer's; a gradient that is no number must not reach the weights, nor a checkpoint them."""
        norm = super()._clip_grad_norm(model)
        if not math.isfinite(float(norm)):
            raise PersonalignError(
                f"{self._stage}: the gradient of step {self.state.global_step + 1} is not a number (norm {float(norm)}), "
                f"so training stopped before it spoilt the weights; set a lower learning_rate or max_grad_norm for "
                "it in the recipe, or backbone.dtype float32"
            )
        return norm

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with disk_errors(self.args.output_dir):
            super()._save_checkpoint(model, trial)

    def _global_count(self, trees: Sequence[GrownTree]) -> float:
        """Supervised tokens or pairs of this step over all ranks, per rank: DDP averages gradients over ranks."""
        if self._settings.objective == "nll":
            count = float(sum(tree.supervised_weight() for tree in trees))
        else:
            count = float(sum(len(tree.examples) for tree in trees))
        if self.args.world_size == 1:
            return count
        gathered: Tensor = self.accelerator.gather(torch.tensor([count], device=self.args.device))
        ranks: int = self.args.world_size
        return float(gathered.sum()) / ranks


def _as_inputs(trees: list[GrownTree]) -> dict[str, list[GrownTree]]:
    return {"trees": trees}


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
    validate: Validate | None = None,
    resume: bool = False,
) -> StageResult:
    """Train `model` in place on grown trees; checkpoints go under `folder`.

    `validate`, which scores the model, is called every `evaluate_every` steps; the best weights are
    put back at the end, and `patience` evaluations without a better one end the stage. Ctrl-C ends it after the
    step in hand, with a checkpoint from which `resume=True` goes on to the same result.
    """
    if not trees:
        raise PersonalignError(f"stage {stage} has no training examples; check the data files of the recipe")
    ranks = find_ranks()
    totals = Totals()
    callback = Journal(
        settings=settings,
        totals=totals,
        folder=folder,
        journal=journal,
        stage=stage,
        progress=progress,
        validate=validate,
        ranks=ranks,
    )
    trainer = TreeTrainer(
        model=model,
        args=_arguments(settings, folder),
        trees=trees,
        settings=settings,
        plan=plan,
        optimizer=optimizer,
        totals=totals,
        callbacks=[callback],
        stage=stage,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    checkpoint, steps = ranks.from_main(partial(_last_checkpoint, folder)) if resume else (None, 0)
    callback.begin(checkpoint, step=steps)
    if checkpoint is not None and (steps >= total_steps(trees, settings) or callback.out_of_patience):
        # The last process ended between the stage's last step and its result; the Trainer would go on training.
        trainer._load_from_checkpoint(str(checkpoint))
    else:
        if progress is not None and steps:
            progress(steps, total_steps(trees, settings), {})
        with between_steps(callback):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        steps = trainer.state.global_step
    if callback.best_weights is not None and not callback.interrupted:
        load_weights(model, callback.best_weights)
    return StageResult(
        steps=steps,
        seconds=callback.seconds,
        interrupted=callback.interrupted,
        best_step=callback.best_step,
        history=callback.history,
    )


def _arguments(settings: StageSettings, folder: Path) -> TrainingArguments:
    schedules = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
    arguments = TrainingArguments(
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
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 500,
        # The journal removes the older ones, once a new one is whole.
        save_total_limit=None,
        eval_strategy="no",
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
    # A process trains on one device; the Trainer would spread rows over all GPUs that it sees, and trees are no rows.
    if arguments.device.type == "cuda":
        arguments._n_gpu = 1
    return arguments


def _last_checkpoint(folder: Path) -> tuple[Path | None, int]:
    """The newest whole checkpoint and its step. A process that dies while it writes one leaves it without its marker."""
    for number, path in checkpoints_of(folder):
        if read_marker(path) is not None:
            return path, number
        remove_folder(path)
    return None, 0
