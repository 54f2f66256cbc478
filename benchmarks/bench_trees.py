"""Training on dialogue trees against TRL 1.16, side by side on the same token ids. See README.md beside this file."""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from _data import STAGES, load_dialogues, write_workload
from _models import GPU_SIZES, SIZES
from _report import Row, agreement_rows, print_row, speed_row
from _work import Job, Measurement
from _worker import answer as in_this_process
from _worker import answer_in_file
from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError

HISTORIES = {"full": None, "window": 3}
# A model gets as many at least, whatever the time: with fewer a small one does little but start. 10 are all for 124M.
FEWEST_DIALOGUES = {"10M": 36, "30M": 16, "124M": 10, "llama-124M": 36, "llama-1.2B": 36}
MOST_DIALOGUES = {"124M": 10}
QUICK_DIALOGUES = 4
AGREEMENT_DIALOGUES = {"124M": 1}
# Imported once, before processes are forked from there; TRL too, so that both sides' memory holds the same modules.
PRELOADED = [
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.models.gpt2.modeling_gpt2",
    "_ours",
    "_peer",
]


@dataclass(frozen=True, slots=True)
class Options:
    dialogues: int
    sizes: tuple[str, ...]
    quick: bool
    minutes: float
    threads: int
    device: str
    histories: tuple[str, ...]
    only: str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One row to measure. `seconds` is what the peer would need for all `dialogues`, both sides included."""

    job: Job
    seconds: float
    rates: dict[str, float]


def main() -> int:
    options = _options()
    # Read once by what is imported below, in every process.
    os.environ |= {
        "OMP_NUM_THREADS": str(options.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    start = time.perf_counter()
    try:
        dialogues = load_dialogues()[: options.dialogues]
        with tempfile.TemporaryDirectory(prefix="bench-trees-") as folder:
            report = run(options, dialogues, Path(folder))
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    report["seconds"] = round(time.perf_counter() - start, 1)
    print(json.dumps(report))
    return 0 if all(row["ok"] for row in report["rows"]) else 1


def _options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=int, default=200, help="dialogues at most (default: 200)")
    parser.add_argument(
        "--sizes", help=f"of {','.join(SIZES)}; on a GPU {','.join(GPU_SIZES)} (default: all)"
    )
    parser.add_argument("--minutes", type=float, default=60, help="rows get fewer dialogues beyond this (60)")
    parser.add_argument("--threads", type=int, default=2, help="threads of either side (default: 2)")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run: 4 dialogues, 10M; speed not judged"
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda: flex_attention, bf16, batches of 128 turns",
    )
    parser.add_argument("--histories", default=",".join(HISTORIES), help="of full,window (default: both)")
    parser.add_argument(
        "--only", choices=("agreement", "speed"), help="leave the other kind of rows out (default: both)"
    )
    given = parser.parse_args()
    histories = tuple(given.histories.split(","))
    if set(histories) - set(HISTORIES):
        parser.error(f"--histories takes {','.join(HISTORIES)}")
    every = SIZES if given.device == "cpu" else GPU_SIZES
    sizes = tuple(given.sizes.split(",")) if given.sizes else every[:1] if given.quick else every
    if set(sizes) - set(every) or given.dialogues < QUICK_DIALOGUES:
        parser.error(f"--sizes takes {','.join(every)}; --dialogues at least {QUICK_DIALOGUES}")
    dialogues = QUICK_DIALOGUES if given.quick else given.dialogues
    return Options(
        dialogues, sizes, given.quick, given.minutes, given.threads, given.device, histories, given.only
    )


def run(options: Options, dialogues: Sequence[Dialogue], folder: Path) -> dict[str, Any]:
    deadline = time.perf_counter() + 60 * options.minutes
    write_workload(folder, dialogues, histories=HISTORIES)
    base = Job(task="peak", workload=folder, threads=options.threads, device=options.device)
    on_gpu = options.device == "cuda"
    peak = ask(base)
    print(_machine_line(options, peak), flush=True)
    if peak["bf16"] is None:
        print("bf16 rows: skipped, this CPU has no instructions for bf16", flush=True)
    precisions = (False,) if peak["bf16"] is None else (False, True)
    rows: list[Row] = []
    jobs = [
        replace(base, size=size, bf16=bf16, history=history, stage=stage)
        for size, bf16, history, stage in product(options.sizes, precisions, options.histories, STAGES)
    ]
    for job in jobs if options.only != "speed" else []:
        answer = ask(replace(job, task="agreement", dialogues=AGREEMENT_DIALOGUES.get(job.size, 2)))
        rows += _shown(agreement_rows(job, answer))
    if options.only == "agreement":
        jobs = []
    if on_gpu:
        # Nobody trains there in fp32; it is compared for the differences that bf16 would hide.
        jobs = [job for job in jobs if job.bf16]
    cells = [
        _cell(replace(job, dialogues=min(len(dialogues), MOST_DIALOGUES.get(job.size, len(dialogues)))))
        for job in jobs
    ]
    shares = shared_out(cells, available=deadline - time.perf_counter())
    for cell, share in zip(cells, shares, strict=True):
        fitting = max(FEWEST_DIALOGUES[cell.job.size], int(cell.job.dialogues * share / cell.seconds))
        job = replace(cell.job, dialogues=min(cell.job.dialogues, fitting))
        before, peer, after = (
            Measurement(**ask(replace(job, task=side))) for side in ("ours", "peer", "ours")
        )
        ours = before.averaged_with(after)
        row = speed_row(job, ours, peer, peak=peak["bf16" if job.bf16 else "fp32"], peer_rates=cell.rates)
        rows += _shown([replace(row, target=None, ok=True) if options.quick or on_gpu else row])
    missed = [row.name for row in rows if not row.ok]
    print(f"missed: {', '.join(missed)}" if missed else "every row met its target", flush=True)
    return {
        "rows": [asdict(row) for row in rows],
        "machine": {"processor": _processor(options), "threads": options.threads, "peak": peak},
        "dialogues": len(dialogues),
        "bf16": "measured" if len(precisions) == 2 else "skipped: this CPU has no instructions for bf16",
    }


def _cell(job: Job) -> Cell:
    """Find the peer's best batch size, and with its rate how long the row takes."""
    found = ask(replace(job, task="peer-batch"))
    # Ours takes a fraction of the peer's time, twice, and all build a model.
    seconds = 1.4 * found["examples"] / found["rate"] + 10
    return Cell(replace(job, micro_batch=found["micro_batch"]), seconds, found["rates"])


def shared_out(cells: Sequence[Cell], *, available: float) -> list[float]:
    """Seconds for each: what its fewest dialogues take, and of the rest what it wants or an equal share."""
    fewest = [cell.seconds * min(1.0, FEWEST_DIALOGUES[cell.job.size] / cell.job.dialogues) for cell in cells]
    available -= sum(fewest)
    shares = list(fewest)
    order = sorted(range(len(cells)), key=lambda index: cells[index].seconds - fewest[index])
    for count, index in enumerate(order):
        more = min(cells[index].seconds - fewest[index], max(0.0, available) / (len(order) - count))
        shares[index] += more
        available -= more
    return shares


def ask(job: Job) -> dict[str, Any]:
    """Have the job done in a process of its own; on a GPU in this one, whose kernels are compiled already."""
    if job.device == "cuda":
        done_here = in_this_process(job)
        torch.cuda.empty_cache()
        return done_here
    with tempfile.TemporaryDirectory(prefix="bench-trees-job-") as folder:
        result, log = (Path(folder) / name for name in ("answer.json", "log"))
        process = multiprocessing.get_context("forkserver").Process(
            target=answer_in_file, args=(job, result, log)
        )
        process.start()
        process.join()
        if process.exitcode:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise PersonalignError(f"the measurement {job} failed:\n{tail}")
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return answer


def _shown(rows: list[Row]) -> list[Row]:
    for row in rows:
        print_row(row)
    return rows


def _processor(options: Options) -> str:
    if options.device == "cpu":
        return platform.processor()
    return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"


def _machine_line(options: Options, peak: dict[str, float | None]) -> str:
    measured = [f"{name} {rate / 1e9:.0f}" for name, rate in peak.items() if rate is not None]
    return (
        f"{_processor(options)}, {options.threads} threads, matrix product at best: {', '.join(measured)} GFLOP/s; "
        f"{options.dialogues} dialogues at most"
    )


if __name__ == "__main__":
    sys.exit(main())
