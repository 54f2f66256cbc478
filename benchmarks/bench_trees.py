"""Training on dialogue trees against TRL 1.16, side by side on the same token ids. See README.md beside this file."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from _data import STAGES, load_dialogues, write_workload
from _report import Row, agreement_rows, print_row, speed_row
from _work import Job, Measurement
from personalign._files import write_json
from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError

SIZES = ("10M", "30M", "124M")
HISTORIES = {"full": None, "window": 3}
# The largest model is slow enough for both sides to be measured well on few dialogues, which it always gets.
ITS_DIALOGUES = {"124M": 10}
FEWEST_DIALOGUES = 4
AGREEMENT_DIALOGUES = 2


@dataclass(frozen=True, slots=True)
class Options:
    dialogues: int
    sizes: tuple[str, ...]
    quick: bool
    minutes: float
    threads: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One row to measure. `seconds` is what the peer would need for all `dialogues`, both sides included."""

    job: Job
    seconds: float
    rates: dict[str, float]


def main() -> int:
    options = _options()
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
    parser.add_argument("--sizes", default=",".join(SIZES), help="of 10M,30M,124M (default: all)")
    parser.add_argument("--minutes", type=float, default=60, help="rows get fewer dialogues beyond this (60)")
    parser.add_argument("--threads", type=int, default=2, help="threads of either side (default: 2)")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run: 4 dialogues, 10M; speed not judged"
    )
    given = parser.parse_args()
    sizes = ("10M",) if given.quick else tuple(given.sizes.split(","))
    unknown = set(sizes) - set(SIZES)
    if unknown or given.dialogues < FEWEST_DIALOGUES:
        parser.error(f"--sizes takes {','.join(SIZES)}; --dialogues at least {FEWEST_DIALOGUES}")
    dialogues = FEWEST_DIALOGUES if given.quick else given.dialogues
    return Options(dialogues, sizes, given.quick, given.minutes, given.threads)


def run(options: Options, dialogues: Sequence[Dialogue], folder: Path) -> dict[str, Any]:
    deadline = time.perf_counter() + 60 * options.minutes
    write_workload(folder, dialogues, histories=HISTORIES)
    base = Job(task="peak", workload=folder, threads=options.threads)
    peak = ask(base)
    print(_machine_line(options, peak), flush=True)
    if peak["bf16"] is None:
        print("bf16 rows: skipped, this CPU has no AMX", flush=True)
    precisions = (False,) if peak["bf16"] is None else (False, True)
    rows: list[Row] = []
    jobs = [
        replace(base, size=size, bf16=bf16, history=history, stage=stage)
        for size, bf16, history, stage in product(options.sizes, precisions, HISTORIES, STAGES)
    ]
    for job in jobs:
        answer = ask(replace(job, task="agreement", dialogues=AGREEMENT_DIALOGUES))
        rows += _shown(agreement_rows(job, answer))
    cells = [
        _cell(replace(job, dialogues=min(len(dialogues), ITS_DIALOGUES.get(job.size, len(dialogues)))))
        for job in jobs
    ]
    shares = shared_out(cells, available=deadline - time.perf_counter())
    for cell, share in zip(cells, shares, strict=True):
        fitting = max(FEWEST_DIALOGUES, int(cell.job.dialogues * share / cell.seconds))
        job = replace(cell.job, dialogues=min(cell.job.dialogues, fitting))
        before, peer, after = (
            Measurement(**ask(replace(job, task=side))) for side in ("ours", "peer", "ours")
        )
        ours = before.averaged_with(after)
        row = speed_row(job, ours, peer, peak=peak["bf16" if job.bf16 else "fp32"], peer_rates=cell.rates)
        rows += _shown([replace(row, target=None, ok=True) if options.quick else row])
    missed = [row.name for row in rows if not row.ok]
    print(f"missed: {', '.join(missed)}" if missed else "every row met its target", flush=True)
    return {
        "rows": [asdict(row) for row in rows],
        "machine": {"processor": platform.processor(), "threads": options.threads, "peak": peak},
        "dialogues": len(dialogues),
        "bf16": "measured" if len(precisions) == 2 else "skipped: this CPU has no AMX",
    }


def _cell(job: Job) -> Cell:
    """Find the peer's best batch size, and with its rate how long the row takes."""
    found = ask(replace(job, task="peer-batch"))
    # Ours takes a fraction of the peer's time, twice, and all start a process and build a model.
    seconds = 1.4 * found["examples"] / found["rate"] + 30
    return Cell(replace(job, micro_batch=found["micro_batch"]), seconds, found["rates"])


def shared_out(cells: Sequence[Cell], *, available: float) -> list[float]:
    """Seconds for each: all that it wants where its dialogues are few, else that or an equal share of the rest."""
    shares = [cell.seconds if cell.job.size in ITS_DIALOGUES else 0.0 for cell in cells]
    available -= sum(shares)
    order = sorted(
        (index for index, share in enumerate(shares) if not share), key=lambda index: cells[index].seconds
    )
    for count, index in enumerate(order):
        shares[index] = min(cells[index].seconds, max(0.0, available) / (len(order) - count))
        available -= shares[index]
    return shares


def ask(job: Job) -> dict[str, Any]:
    """Have the job done in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-trees-job-") as folder:
        question, answer, log = (Path(folder) / name for name in ("job.json", "answer.json", "log"))
        write_json(question, {**asdict(job), "workload": str(job.workload)})
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(job.threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TQDM_DISABLE": "1",
        }
        worker = Path(__file__).with_name("_worker.py")
        with open(log, "wb") as stream:
            done = subprocess.run(
                [sys.executable, str(worker), str(question), str(answer)],
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise PersonalignError(f"the measurement {job} failed:\n{tail}")
        result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return result


def _shown(rows: list[Row]) -> list[Row]:
    for row in rows:
        print_row(row)
    return rows


def _machine_line(options: Options, peak: dict[str, float | None]) -> str:
    measured = [f"{name} {rate / 1e9:.0f}" for name, rate in peak.items() if rate is not None]
    return (
        f"{options.threads} threads, matrix product at best: {', '.join(measured)} GFLOP/s; "
        f"{options.dialogues} dialogues at most"
    )


if __name__ == "__main__":
    sys.exit(main())
