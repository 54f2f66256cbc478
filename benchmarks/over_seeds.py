"""Runs of one recipe that differ in their seed, as one Markdown table: the mean, and the worst in brackets.

python benchmarks/over_seeds.py runs/seed-1 runs/seed-2 runs/seed-3
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from personalign.methods.tables import HEADLINES, Headline, read_results


def main() -> int:
    folders = [Path(name) for name in sys.argv[1:]]
    if len(folders) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        runs = [read_results(folder) for folder in folders]
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; name folders of finished runs", file=sys.stderr)
        return 2
    print("| system | " + " | ".join(column.name for column in HEADLINES) + " |")
    print("|---" * (len(HEADLINES) + 1) + "|")
    for system in runs[0]:
        cells = [_cell([column.read(run[system]) for run in runs], column) for column in HEADLINES]
        print(f"| {runs[0][system]['title']} | " + " | ".join(cells) + " |")
    for folder in folders:
        print(f"{folder.name}: {_pairs(folder)}", file=sys.stderr)
    return 0


def _cell(values: Sequence[float | None], column: Headline) -> str:
    given = [value for value in values if value is not None]
    worst = min if column.higher_is_better else max
    return f"{statistics.mean(given):.2f} ({worst(given):.2f})" if given else "-"


def _pairs(folder: Path) -> str:
    """What stage 2 began and ended with on held-out pairs."""
    record = json.loads((folder / "steps" / "stage2.json").read_text(encoding="utf-8"))["record"]
    return f"stage 2 began at {record['start']}, ended at {record['end']}"


if __name__ == "__main__":
    sys.exit(main())
