"""Which metrics agree with people: Spearman's correlation with USR's ratings of PersonaChat replies.

`usr_personachat_human_ratings.jsonl.gz` (Mehri and Eskenazi 2020) in the folder PERSONALIGN_DATA: 60 contexts, replies of
four systems and the original one, each rated by three people. The original reply is the reference and is left out of the
correlation. Figures are per reply; intervals are bootstraps by context. No comparison with a peer: it prints a table.

    python benchmarks/metrics_against_people.py [--judge FOLDER]
"""

import argparse
import gzip
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from personalign.cli._output import emit_json, quieten
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.metrics import METRICS, missing
from personalign.methods.judges import open_judge
from personalign.methods.parts import DATA_FOLDER

FILE = "usr_personachat_human_ratings.jsonl.gz"
ORIGINAL = "Original Ground Truth"
RATINGS = ("overall", "engaging", "natural", "uses_knowledge")
# A corpus figure of one reply says nothing of it.
LEFT_OUT = (
    "repeated_replies",
    "entropy-1/corpus",
    "entropy-2/corpus",
    "entropy-3/corpus",
    "entropy-4/corpus",
)
SAMPLES = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", help="folder or name of a judge of consistency")
    options = parser.parse_args()
    quieten()
    try:
        answers, ratings, contexts = _read(options.judge)
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    for metric in METRICS.values():
        if missing(answers, metric) or metric.name in LEFT_OUT:
            continue
        values = metric.measure(answers).per_example()
        if np.isnan(values).any() or len(set(values.tolist())) < 2:
            continue
        row: dict[str, Any] = {"metric": metric.name}
        for rating in RATINGS:
            row[rating] = correlation(values, ratings[rating], contexts)
        rows.append(row)
    rows.sort(key=lambda row: -abs(row["overall"][0]))
    print(f"| metric | {' | '.join(RATINGS)} |")
    print("|---|" + "---|" * len(RATINGS))
    for row in rows:
        cells = [f"{row[name][0]:.2f} [{row[name][1]:.2f}, {row[name][2]:.2f}]" for name in RATINGS]
        print(f"| {row['metric']} | {' | '.join(cells)} |")
    emit_json({"replies": len(answers), "rows": rows})
    return 0


def correlation(values: np.ndarray, rated: np.ndarray, contexts: Sequence[int]) -> tuple[float, float, float]:
    """Spearman's rho and its 95 % interval, contexts drawn with replacement."""
    generator = np.random.default_rng(0)
    members = [np.flatnonzero(np.asarray(contexts) == context) for context in dict.fromkeys(contexts)]
    drawn = []
    for _ in range(SAMPLES):
        kept = np.concatenate(
            [members[index] for index in generator.integers(len(members), size=len(members))]
        )
        if len(set(values[kept].tolist())) > 1:
            drawn.append(float(spearmanr(values[kept], rated[kept]).statistic))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(spearmanr(values, rated).statistic), float(low), float(high)


def _read(judge: str | None) -> tuple[Answers, dict[str, np.ndarray], list[int]]:
    folder = os.environ.get(DATA_FOLDER)
    if not folder or not (Path(folder) / FILE).is_file():
        raise PersonalignError(f"set {DATA_FOLDER} to the folder that holds {FILE}")
    with gzip.open(Path(folder) / FILE, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    gold = {row["dialog_history"]: row["response"].strip() for row in rows if row["model"] == ORIGINAL}
    numbers = {history: number for number, history in enumerate(gold)}
    rated = [row for row in rows if row["model"] != ORIGINAL]
    questions, replies = [], []
    for row in rated:
        history = row["dialog_history"].strip().split("\n")
        persona = [line.removeprefix("your persona: ").strip() for line in row["fact"].strip().split("\n")]
        own = tuple(history[-2::-2][::-1])
        questions.append(
            Question(
                str(numbers[row["dialog_history"]]),
                len(history),
                tuple(persona),
                gold=gold[row["dialog_history"]],
                own=own,
                partner=tuple(history[-1::-2][::-1]),
                past=own,
            )
        )
        replies.append(Reply(row["response"].strip()))
    opened = None if judge is None else open_judge(judge, language="en", dtype="auto")
    ratings = {name: np.array([float(np.mean(row[name])) for row in rated]) for name in RATINGS}
    return (
        Answers(questions, replies, judge=opened),
        ratings,
        [numbers[row["dialog_history"]] for row in rated],
    )


if __name__ == "__main__":
    sys.exit(main())
