"""The whole suite of metrics on 7,801 replies, and the judge against sentence-transformers' CrossEncoder.

Metrics: every metric that needs no model, with its interval, on replies to PERSONA-CHAT's validation dialogues (each
turn gets another dialogue's reply), in 10 seconds at most. Judge: all (line, reply) pairs of those dialogues against
`CrossEncoder.predict`, same weights, batch size and dtype, by turns, the probabilities compared; bfloat16 against float32
in labels where the CPU has AMX or AVX512-BF16; and a second run from the cache.

The last line is a JSON object with a row per measurement; the exit code is 1 where a row misses its target, 2 where it
could not run. Needs convai2_valid and, to train a judge for some minutes where --judge names none, dnli_part in the
folder that PERSONALIGN_DATA names.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from _data import load_dialogues
from _report import Row
from personalign.cli._output import emit_json, quieten
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Reply
from personalign.evaluation.evaluate import evaluate
from personalign.evaluation.judge import Pair
from personalign.evaluation.judge_cache import CachedJudge
from personalign.evaluation.judge_training import JudgeTraining, train_judge
from personalign.evaluation.metrics import METRICS
from personalign.evaluation.nli_judge import NliJudge, load_judge
from personalign.evaluation.predictions import questions_of
from personalign.methods.parts import DATA_FOLDER
from personalign.models.precision import cpu_multiplies_bf16

SECONDS_FOR_THE_SUITE = 10.0
JUDGE_TARGET, CACHE_TARGET, LABELS_TARGET = 1.0, 50.0, 0.999
ROUNDS = 2
LARGEST_DIFFERENCE = 1e-4


def main() -> int:
    options = _options()
    quieten()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-metrics-") as folder:
            rows = [suite_row(), *judge_rows(options, Path(folder))]
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        print(
            f"{row.name}: ours {row.ours:.3f}, peer {row.peer:.3f}, ratio {row.ratio:.3f} (target {row.target})"
        )
    emit_json({"rows": [asdict(row) for row in rows]})
    return 0 if all(row.ok for row in rows) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", type=Path, help="folder of a trained judge (default: one is trained)")
    parser.add_argument("--batch-size", type=int, default=64)
    return parser.parse_args()


def suite_row() -> Row:
    """Seconds of all metrics without a model, intervals included; the peer's figure is the limit."""
    questions = questions_of(load_dialogues())
    golds = [question.gold or "" for question in questions]
    shift = len(golds) // 3
    answers = Answers(questions, [Reply(text) for text in (*golds[shift:], *golds[:shift])])
    start = time.perf_counter()
    found = evaluate({"other replies": [answers]}, metrics=[m for m in METRICS.values() if m.by_default])
    seconds = time.perf_counter() - start
    details = {"unit": "seconds", "replies": len(golds), "metrics": len(found.scores["other replies"])}
    ratio = SECONDS_FOR_THE_SUITE / seconds
    return Row("all metrics", seconds, SECONDS_FOR_THE_SUITE, ratio, 1.0, ratio >= 1.0, details)


def judge_rows(options: argparse.Namespace, folder: Path) -> list[Row]:
    judge_folder = options.judge or _trained(folder / "judge")
    pairs = list(
        dict.fromkeys((line, q.gold or "") for q in questions_of(load_dialogues()) for line in q.persona)
    )
    ours = load_judge(judge_folder, batch_size=options.batch_size)
    seconds, probabilities = _by_turns(ours, judge_folder, pairs, batch_size=options.batch_size)
    gap = float(np.abs(probabilities["ours"] - probabilities["peer"]).max())
    ratio = seconds["peer"] / seconds["ours"]
    details = {"unit": "seconds", "pairs": len(pairs), "largest_difference": gap, "dtype": "float32"}
    rows = [
        Row(
            "judge fp32",
            seconds["ours"],
            seconds["peer"],
            ratio,
            JUDGE_TARGET,
            ratio >= JUDGE_TARGET and gap <= LARGEST_DIFFERENCE,
            details,
        )
    ]
    if cpu_multiplies_bf16():
        rows += _bf16_rows(judge_folder, pairs, probabilities["ours"], batch_size=options.batch_size)
    else:
        print("bf16 rows: skipped, this CPU has no instructions for bf16", flush=True)
    cached = CachedJudge(ours, ours.key, folder / "verdicts.sqlite")
    first, stored = _timed(lambda: cached.judge(pairs).probabilities)
    second, again = _timed(lambda: cached.judge(pairs).probabilities)
    # The cache asks for a part at a time, whose batches are others than those of all pairs.
    apart = float(np.abs(stored - probabilities["ours"]).max())
    same = bool(np.array_equal(again, stored)) and apart <= LARGEST_DIFFERENCE
    rows.append(
        Row(
            "judge from cache",
            second,
            first,
            first / second,
            CACHE_TARGET,
            same and first / second >= CACHE_TARGET,
            {"unit": "seconds", "pairs": len(pairs), "equal": same, "largest_difference": apart},
        )
    )
    return rows


def _bf16_rows(folder: Path, pairs: Sequence[Pair], exact: np.ndarray, *, batch_size: int) -> list[Row]:
    ours = load_judge(folder, batch_size=batch_size, dtype="bfloat16")
    seconds, probabilities = _by_turns(ours, folder, pairs, batch_size=batch_size, bf16=True)
    equal = float((probabilities["ours"].argmax(1) == exact.argmax(1)).mean())
    ratio = seconds["peer"] / seconds["ours"]
    details = {"unit": "seconds", "pairs": len(pairs), "dtype": "bfloat16"}
    return [
        Row(
            "judge bf16",
            seconds["ours"],
            seconds["peer"],
            ratio,
            JUDGE_TARGET,
            ratio >= JUDGE_TARGET,
            details,
        ),
        Row("judge bf16, labels equal to fp32", equal, 1.0, equal, LABELS_TARGET, equal >= LABELS_TARGET, {}),
    ]


def _by_turns(
    ours: NliJudge, folder: Path, pairs: Sequence[Pair], *, batch_size: int, bf16: bool = False
) -> tuple[dict[str, float], dict[str, Any]]:
    """The fastest of some rounds of each side, which take turns; and what they computed."""
    import torch
    from sentence_transformers import CrossEncoder

    peer = CrossEncoder(str(folder), device="cpu", max_length=ours.max_length)
    scale = ours.temperature

    def predicted() -> np.ndarray:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = peer.predict(
                list(pairs), batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
            )
        weights = np.exp((logits - logits.max(1, keepdims=True)) / scale)
        values: np.ndarray = (weights / weights.sum(1, keepdims=True))[:, list(ours.columns)]
        return values

    sides: dict[str, Callable[[], Any]] = {"ours": lambda: ours.judge(pairs).probabilities, "peer": predicted}
    seconds = dict.fromkeys(sides, float("inf"))
    found: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            took, found[name] = _timed(side)
            seconds[name] = min(seconds[name], took)
            print(f"{'bf16' if bf16 else 'fp32'} {name}: {took:.1f} s", flush=True)
    return seconds, found


def _trained(folder: Path) -> Path:
    import os

    data = os.environ.get(DATA_FOLDER)
    if not data or not (Path(data) / "dnli_part.jsonl.gz").is_file():
        raise PersonalignError(
            f"name a judge with --judge, or set {DATA_FOLDER} to a folder with dnli_part.jsonl.gz"
        )
    print("training a judge for the measurement", flush=True)
    train_judge(
        JudgeTraining(data=Path(data) / "dnli_part.jsonl.gz", out=folder, epochs=1, dtype="auto", babble=500)
    )
    return folder


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


if __name__ == "__main__":
    sys.exit(main())
