"""Runs of one recipe that differ in their seed, as one Markdown table: the mean, and the worst in brackets.

python benchmarks/over_seeds.py runs/seed-1 runs/seed-2 runs/seed-3
"""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from personalign.errors import PersonalignError
from personalign.methods.tables import read_results

Result = dict[str, Any]


def _stated(result: Result) -> float | None:
    # A shuffled persona answers next to no question of the dialogue.
    return None if result["part"] == "shuffled" else _first_judge(result).get("recall", {}).get("mean")


def _first_judge(result: Result) -> dict[str, Any]:
    judge: dict[str, Any] = next(value for name, value in result.items() if name.startswith("judge:"))
    return judge


# Heading, where the figure stands, and which of several is the worst.
COLUMNS: tuple[tuple[str, Callable[[Result], float | None], Callable[[Sequence[float]], float]], ...] = (
    ("states", _stated, min),
    ("contra.", lambda result: _first_judge(result)["contradict_rate/all"]["mean"], max),
    ("selects", lambda result: result.get("selection/accuracy"), min),
    ("none", lambda result: result.get("share_none"), max),
    ("BLEU-1", lambda result: result["bleu-1/coco"], min),
    ("ppl", lambda result: result.get("ppl/token"), max),
)


def main() -> int:
    folders = [Path(name) for name in sys.argv[1:]]
    if len(folders) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        runs = [read_results(folder) for folder in folders]
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("| system | " + " | ".join(heading for heading, _, _ in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for system in runs[0]:
        cells = [_cell([read(run[system]) for run in runs], worst) for _, read, worst in COLUMNS]
        print(f"| {runs[0][system]['title']} | " + " | ".join(cells) + " |")
    for folder in folders:
        print(f"{folder.name}: {_pairs(folder)}", file=sys.stderr)
    return 0


def _cell(values: Sequence[float | None], worst: Callable[[Sequence[float]], float]) -> str:
    given = [value for value in values if value is not None]
    return f"{statistics.mean(given):.2f} ({worst(given):.2f})" if given else "-"


def _pairs(folder: Path) -> str:
    """What stage 2 began and ended with on held-out pairs."""
    record = json.loads((folder / "steps" / "stage2.json").read_text(encoding="utf-8"))["record"]
    return f"stage 2 began at {record['start']}, ended at {record['end']}"


if __name__ == "__main__":
    sys.exit(main())
