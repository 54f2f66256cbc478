"""One measurement, in a process of its own where peak memory and caches are to be its own too."""

import os
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from _data import read_workload
from _models import WorkCounter, build_model, measure_peak
from _work import Job, Measurement
from personalign._files import write_json
from personalign.models.precision import cpu_multiplies_bf16
from personalign.training.examples import Example

SEARCH_EXAMPLES = {"10M": 8, "30M": 8, "124M": 4}
MICRO_BATCHES = (1, 2, 4, 8, 16)
GPU_SEARCH_EXAMPLES = 64
GPU_MICRO_BATCHES = (8, 16, 32, 64)
WARM_UP_STEPS = 3


def answer(job: Job) -> dict[str, Any]:
    torch.set_num_threads(job.threads)
    match job.task:
        case "ours" | "peer":
            return asdict(measure(job))
        case "peer-batch":
            return fastest_micro_batch(job)
        case "agreement":
            return agreement(job)
        case "peak":
            return asdict(measure_peak(job.device, with_bf16=job.device == "cuda" or cpu_multiplies_bf16()))


def measure(job: Job) -> Measurement:
    examples = read_workload(job.workload, stage=job.stage, history=job.history, dialogues=job.dialogues)
    ours = job.task == "ours"
    if ours and job.device == "cuda":
        warm_up(job, examples)
    model = _model(job, ours=ours)
    counter = WorkCounter(model, ours=ours)
    if job.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    if ours:
        import _ours

        seconds, reference_seconds, loss = _ours.train(model, examples, job=job)
    else:
        import _peer

        with tempfile.TemporaryDirectory() as folder:
            seconds, reference_seconds, loss = _peer.train(model, examples, job=job, folder=folder)
    counter.close()
    return Measurement(
        examples=len(examples),
        seconds=seconds,
        reference_seconds=reference_seconds,
        tokens=counter.tokens,
        operations=counter.operations,
        memory_bytes=(
            torch.cuda.max_memory_allocated()
            if job.device == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        ),
        loss=loss,
    )


def _model(job: Job, *, ours: bool) -> Any:
    flex = ours and job.device == "cuda"
    return build_model(job.size, device=job.device, attention="flex_attention" if flex else "sdpa")


def warm_up(job: Job, examples: Sequence[Example]) -> None:
    """Have the kernels compiled, for the lengths that come: a cost of some seconds once, whatever the data's size."""
    import _ours

    _ours.train(_model(job, ours=True), examples[: WARM_UP_STEPS * job.batch_examples], job=job)


def fastest_micro_batch(job: Job) -> dict[str, Any]:
    """Train the peer on the same few examples with each batch size; answer with the fastest and its rate."""
    import _peer

    examples = read_workload(job.workload, stage=job.stage, history=job.history, dialogues=job.dialogues)
    # A stride takes early and late turns alike, as the whole workload has them.
    gpu = job.device == "cuda"
    count = GPU_SEARCH_EXAMPLES if gpu else SEARCH_EXAMPLES[job.size]
    few = examples[:: max(1, len(examples) // count)][:count]
    rows = len(few) * (2 if job.stage == "stage1" else 1)
    sizes = [size for size in (GPU_MICRO_BATCHES if gpu else MICRO_BATCHES) if size <= rows]
    rates = {}
    for size in (sizes[0], *sizes):
        model = _model(job, ours=False)
        candidate = replace(job, micro_batch=size)
        with tempfile.TemporaryDirectory() as folder:
            try:
                seconds, _, _ = _peer.train(model, few, job=candidate, folder=folder)
            except torch.OutOfMemoryError:
                break
            # The first round warms the process up, and its time is written over.
            rates[size] = len(few) / seconds
    best = max(rates, key=lambda size: rates[size])
    return {"micro_batch": best, "rate": rates[best], "rates": rates, "examples": len(examples)}


def agreement(job: Job) -> dict[str, Any]:
    """Both sides at equal weights on the same examples: differences of log-probabilities and gradient norms."""
    import _ours
    import _peer

    examples = read_workload(job.workload, stage=job.stage, history=job.history, dialogues=job.dialogues)
    model = _model(job, ours=True)
    ours, our_norm = _ours.log_probs_and_gradient(model, examples, job=job)
    if job.device == "cuda":
        model.set_attn_implementation("sdpa")
    with tempfile.TemporaryDirectory() as folder:
        peers, peer_norm = _peer.log_probs_and_gradient(model, examples, job=job, folder=folder)
    return {
        "branches": len(ours),
        "ours_mean": float(ours.mean()),
        "peer_mean": float(peers.mean()),
        "log_prob_difference": float((ours - peers).abs().max()),
        "ours_norm": our_norm,
        "peer_norm": peer_norm,
    }


def answer_in_file(job: Job, result: Path, log: Path) -> None:
    """What a process of its own does: everything printed goes to `log`, the answer to `result`."""
    with open(log, "wb") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
        write_json(result, answer(job))
