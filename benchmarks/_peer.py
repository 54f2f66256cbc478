"""The peer: TRL's SFTTrainer and DPOTrainer on the same token ids, one row per path or pair."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from _models import wait_for
from _work import BETA, LEARNING_RATE, MAX_GRAD_NORM, Job
from personalign.training.examples import Example


class _TokenisedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer over rows that are token ids already; keeps the time of its reference pass."""

    reference_seconds = 0.0

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, *arguments: Any) -> Dataset:
        start = time.perf_counter()
        dataset = super()._precompute_ref_logps(*arguments)
        self.reference_seconds = time.perf_counter() - start
        return dataset


def make_trainer(
    model: Any, examples: Sequence[Example], *, job: Job, folder: str, precompute: bool = True
) -> Any:
    """A trainer of the job's stage. With `precompute`, a DPO trainer scores the reference before this returns."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(job.workload / "tokenizer")
    rows_per_step = job.batch_examples * (2 if job.stage == "stage1" else 1)
    common: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": job.micro_batch,
        "gradient_accumulation_steps": max(1, rows_per_step // job.micro_batch),
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": MAX_GRAD_NORM,
        "gradient_checkpointing": False,
        "bf16": job.bf16,
        "use_cpu": job.device == "cpu",
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "max_length": None,
        "seed": 0,
    }
    if job.stage == "stage1":
        config = SFTConfig(completion_only_loss=True, **common)
        return SFTTrainer(model, config, train_dataset=_sft_rows(examples), processing_class=tokenizer)
    config = DPOConfig(precompute_ref_log_probs=precompute, beta=BETA, **common)
    return _TokenisedDPOTrainer(
        model, args=config, train_dataset=_dpo_rows(examples), processing_class=tokenizer
    )


def _sft_rows(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "input_ids": [*path.prompt, *path.target],
                "completion_mask": [0] * len(path.prompt) + [1] * len(path.target),
            }
            for example in examples
            for path in example.paths
        ]
    )


def _dpo_rows(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt_ids": list(chosen.prompt),
                "chosen_ids": list(chosen.target),
                "rejected_ids": list(rejected.target),
            }
            for chosen, rejected in (example.paths for example in examples)
        ]
    )


def train(model: Any, examples: Sequence[Example], *, job: Job, folder: str) -> tuple[float, float, float]:
    """Seconds in all, of them for the reference pass, and the mean loss. Preparing the rows is not counted."""
    trainer = make_trainer(model, examples, job=job, folder=folder)
    reference_seconds = trainer.reference_seconds if job.stage == "dpo" else 0.0
    start = time.perf_counter()
    result = trainer.train()
    wait_for(job.device)
    return time.perf_counter() - start + reference_seconds, reference_seconds, float(result.training_loss)


def log_probs_and_gradient(
    model: Any, examples: Sequence[Example], *, job: Job, folder: str
) -> tuple[Tensor, float]:
    """Summed log-probability of each path as TRL computes it, and the norm of one step's gradient."""
    trainer = make_trainer(model, examples, job=job, folder=folder)
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    batch = {name: value.to(model.device) for name, value in batch.items()}
    model.zero_grad()
    model.train()
    with trainer.compute_loss_context_manager():
        if job.stage == "stage1":
            with torch.no_grad():
                sums = model(**batch, use_cache=False, fused_lm_head=True).log_probs.sum(1)
            loss = trainer.compute_loss(model, batch, num_items_in_batch=(batch["labels"] != -100).sum())
        else:
            sums = torch.stack(
                [
                    torch.as_tensor(trainer.train_dataset[f"ref_{kind}_logps"][:])
                    for kind in ("chosen", "rejected")
                ],
                dim=1,
            ).flatten()
            loss = trainer.compute_loss(model, batch)
    loss.backward()
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
    model.zero_grad()
    return sums.float().cpu(), norm
