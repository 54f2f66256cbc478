"""The tables of the runs that proof.py made, in Markdown: each figure's mean over the seeds, and its range.

    python benchmarks/proof_tables.py FOLDER

Runs that are not finished are left out and named on standard error.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from personalign._files import read_whole_lines
from personalign.methods.steps import undone
from personalign.methods.tables import judged_names, markdown, read_results
from proof import ABLATIONS, SEEDS, arms

Result = Mapping[str, Any]
Runs = dict[str, dict[str, Any]]
_FINAL = "pal_predicted"
_JUDGED = (
    ("states", "recall"),
    ("C.max", "c_score/max/needs_line"),
    ("C.sum", "c_score/sum/needs_line"),
    ("contra., line", "contradict_rate/needs_line"),
    ("contra., all", "contradict_rate/all"),
)
_TEXT = (
    ("selects", "selection/accuracy", ".3f"),
    ("none", "share_none", ".3f"),
    ("BLEU-1", "bleu-1/coco", ".1f"),
    ("BLEU-2", "bleu-2/coco", ".1f"),
    ("ROUGE-L", "rouge-l/coco", ".1f"),
    ("distinct-2", "distinct-2/corpus", ".3f"),
    ("copy", "copy_rate", ".3f"),
    ("ppl", "ppl/token", ".2f"),
)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    runs: Runs = {}
    for arm in (arm for phase in arms() for arm in phase):
        if (folder / arm.name / "results.json").is_file() and not undone(folder / arm.name):
            runs[arm.name] = read_results(folder / arm.name)
        else:
            print(f"{arm.name} is not finished", file=sys.stderr)
    seeds = [runs[f"seed-{seed}"] for seed in SEEDS if f"seed-{seed}" in runs]
    if not seeds:
        print(f"error: {folder} has no finished run of any seed; make them with proof.py", file=sys.stderr)
        return 2
    systems = {
        str(system["title"]): [seed[name] for seed in seeds if name in seed]
        for name, system in seeds[0].items()
    }
    _print(f"Systems, {_seeds(seeds)} from one backbone", systems)
    ablated: dict[str, list[Result]] = {f"PAL, {_seeds(seeds)}": [seed[_FINAL] for seed in seeds]}
    for name in ABLATIONS:
        of_name = [runs[run][_FINAL] for seed in SEEDS if (run := f"seed-{seed}-{name}") in runs]
        if of_name:
            ablated[f"{name.replace('_', ' ')}, {_seeds(of_name)}"] = of_name
    _print("Ablations", ablated)
    variants: dict[str, list[Result]] = {"PAL": [seeds[0][_FINAL]]} if "seed-1" in runs else {}
    for arm in arms()[-1]:
        if arm.name in runs:
            variants[arm.name] = [runs[arm.name][_FINAL]]
            if "finetuning" in runs[arm.name] and arm.base is None:
                variants[f"{arm.name}, fine-tuning"] = [runs[arm.name]["finetuning"]]
    _print("Variants of seed 1", variants)
    # An ablation may lack the stage, and the journal that it began as a copy of has it.
    for name in (name for name in runs if not name.endswith(tuple(ABLATIONS))):
        _print_course(name, folder / name / "metrics.jsonl")
    return 0


def _seeds(runs: Sequence[object]) -> str:
    return "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"


def _print(title: str, systems: Mapping[str, Sequence[Result]]) -> None:
    print(f"## {title}\n")
    _table(systems, [(head, _plain(key), form) for head, key, form in _TEXT])
    for judge in judged_names({str(at): one for at, seeds in enumerate(systems.values()) for one in seeds}):
        print(f"{judge}:\n")
        _table(systems, [(head, _by(judge, key), ".3f") for head, key in _JUDGED])


def _table(
    systems: Mapping[str, Sequence[Result]],
    columns: Sequence[tuple[str, Callable[[Result], float | None], str]],
) -> None:
    rows = [
        [title, *(_cell([read(seed) for seed in seeds], form) for _, read, form in columns)]
        for title, seeds in systems.items()
    ]
    print("\n".join(markdown(["system", *(head for head, _, _ in columns)], rows)), end="\n\n")


def _cell(values: Sequence[float | None], form: str) -> str:
    given = [value for value in values if value is not None]
    if not given:
        return "-"
    mean, low, high = (format(value, form) for value in (statistics.mean(given), min(given), max(given)))
    return mean if low == high else f"{mean} ({low} to {high})"


def _plain(key: str) -> Callable[[Result], float | None]:
    return lambda system: system.get(key)


def _by(judge: str, key: str) -> Callable[[Result], float | None]:
    def read(system: Result) -> float | None:
        found = system.get(f"judge:{judge}", {}).get(key)
        return None if found is None else found["mean"]

    return read


def _print_course(name: str, journal: Path) -> None:
    """What the evaluations during alignment found, on the stopping part."""
    rows = [row for row in read_whole_lines(journal) if row["stage"] == "stage2" and "validation" in row]
    figures = list(dict.fromkeys(key for row in rows for key in row if key not in ("stage", "step")))
    if rows:
        print(f"## Alignment of {name}\n")
        table = [
            [str(row["step"]), *(f"{row[key]:.3f}" if key in row else "-" for key in figures)] for row in rows
        ]
        print("\n".join(markdown(["update", *figures], table)), end="\n\n")


if __name__ == "__main__":
    sys.exit(main())
