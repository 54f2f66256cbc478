"""One measurement in a process of its own, so that peak memory and caches are its own too.

Called as `_worker.py JOB RESULT`: reads a Job as JSON, writes the answer as JSON.
"""

import json
import resource
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from _data import read_workload
from _models import WorkCounter, build_model, measure_peak
from _work import Job, Measurement
from personalign._files import write_json
from personalign.models.precision import cpu_has_amx

SEARCH_EXAMPLES = 8
MICRO_BATCHES = (1, 2, 4, 8, 16)


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
            return asdict(measure_peak(with_bf16=cpu_has_amx()))


def measure(job: Job) -> Measurement:
    examples = read_workload(job.workload, stage=job.stage, history=job.history, dialogues=job.dialogues)
    model = build_model(job.size)
    counter = WorkCounter(model, ours=job.task == "ours")
    if job.task == "ours":
        import _ours

        seconds, reference_seconds, loss = _ours.train(model, examples, job=job)
    else:
        import _peer

        with tempfile.TemporaryDirectory() as folder:
            seconds, reference_seconds, loss = _peer.train(model, examples, job=job, folder=folder)
    return Measurement(
        examples=len(examples),
        seconds=seconds,
        reference_seconds=reference_seconds,
        tokens=counter.tokens,
        operations=counter.operations,
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        loss=loss,
    )


def fastest_micro_batch(job: Job) -> dict[str, Any]:
    """Train the peer on the same few examples with each batch size; answer with the fastest and its rate."""
    import _peer

    examples = read_workload(job.workload, stage=job.stage, history=job.history, dialogues=job.dialogues)
    # A stride takes early and late turns alike, as the whole workload has them.
    few = examples[:: max(1, len(examples) // SEARCH_EXAMPLES)][:SEARCH_EXAMPLES]
    rows = len(few) * (2 if job.stage == "stage1" else 1)
    rates = {}
    for size in (1, *(size for size in MICRO_BATCHES if size <= rows)):
        model = build_model(job.size)
        candidate = replace(job, micro_batch=size)
        with tempfile.TemporaryDirectory() as folder:
            seconds, _, _ = _peer.train(model, few, job=candidate, folder=folder)
            # The first round warms the process up, and its time is written over.
            rates[size] = len(few) / seconds
    best = max(rates, key=lambda size: rates[size])
    return {"micro_batch": best, "rate": rates[best], "rates": rates, "examples": len(examples)}


def agreement(job: Job) -> dict[str, Any]:
    """Both sides at equal weights on the same examples: differences of log-probabilities and gradient norms."""
    import _ours
    import _peer

    examples = read_workload(job.workload, stage=job.stage, history=job.history, dialogues=job.dialogues)
    model = build_model(job.size)
    ours, our_norm = _ours.log_probs_and_gradient(model, examples, job=job)
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


def main() -> None:
    job_file, result_file = map(Path, sys.argv[1:])
    fields = json.loads(job_file.read_text(encoding="utf-8"))
    job = Job(**{**fields, "workload": Path(fields["workload"])})
    write_json(result_file, answer(job))


if __name__ == "__main__":
    main()
