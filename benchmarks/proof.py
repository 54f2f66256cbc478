"""Every run behind `pal-personachat-small` in docs/results.md: three seeds, PAL's ablations, and variants of one seed.

    python benchmarks/proof.py FOLDER [--jobs 2] [--only NAME ...] [--list]

Runs the recipe into FOLDER/NAME, one run after the other or, with `--jobs`, several at a time. What is done is not
done again, so it may be interrupted and started once more. All but the GPT-2 shape start from the backbone of seed 1; an
ablation or a variant begins as a copy of the run of its seed and repeats the steps that differ. The output of each run
is in FOLDER/NAME.log.
Then `python benchmarks/proof_tables.py FOLDER` has the tables, `personalign report FOLDER/seed-1 FOLDER/seed-2
FOLDER/seed-3` the tests over the seeds.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

RECIPE = "pal-personachat-small"
SEEDS = (1, 2, 3)
# Table 5, and DPO as the paper has it, without the term that keeps the gold reply's likelihood.
ABLATIONS = {
    "without_mix": "ablation=without_mix",
    "without_alignment": "ablation=without_alignment",
    "only_selection": "ablation=only_selection",
    "only_generation": "ablation=only_generation",
    "without_pairs": "ablation=without_pairs",
    "without_sft": "stages.stage2.sft_weight=0",
}
ONE_SYSTEM = ("evaluation.strategies=[predicted]", "evaluation.revised=false")
RESULTS = "results.json"
# What would be taken for the copy's own as long as it is not finished.
OF_THE_BASE_ALONE = (".lock", "report", RESULTS, "table.md", "README.md", "model")


@dataclass(frozen=True, slots=True)
class Arm:
    """One run: its name, the run it begins as a copy of, what it changes, and whether it takes seed 1's backbone."""

    name: str
    seed: int
    base: str | None = None
    changes: tuple[str, ...] = ()
    given_backbone: bool = False

    def assignments(self, folder: Path) -> list[str]:
        shared = [
            f"backbone.name={folder / 'seed-1' / 'models' / 'backbone'}",
            "backbone.scratch=null",
            "stages.copying=null",
            "stages.pretrain=null",
        ]
        return [f"seed={self.seed}", *(shared if self.given_backbone else []), *self.changes]


def arms() -> list[list[Arm]]:
    """In phases: each needs those before it."""
    ablated = [
        Arm(f"seed-{seed}-{name}", seed, f"seed-{seed}", (change, *ONE_SYSTEM), seed != 1)
        for seed in SEEDS
        for name, change in ABLATIONS.items()
    ]

    def variant(name: str, *changes: str, base: str | None = "seed-1", given_backbone: bool = False) -> Arm:
        return Arm(name, 1, base, (*changes, *ONE_SYSTEM), given_backbone)

    variants = [
        # Pairs of the turns labelled none too.
        variant("all-turns", "stages.stage2.only_labelled=false"),
        # To its end, for the course of C.score and BLEU (PAL, Figure 4).
        variant("whole-alignment", "stages.stage2.patience=null"),
        variant("selector-lm", "selector.kind=lm"),
        variant("selector-encoder", "selector.kind=encoder"),
        variant("selector-encoder-untold", "selector.kind=encoder-untold"),
        # These two train on one sequence per example, some six times as many tokens; fine-tuning is left as it is.
        variant("shuffled", "stages.stage1.batches=shuffled"),
        variant(
            "paper-template",
            "prompts.template=paper",
            "stages.finetuning=null",
            base=None,
            given_backbone=True,
        ),
        # This one has a backbone of its own.
        variant("gpt2-shape", "backbone.scratch.shape=gpt2", base=None),
    ]
    return [
        [Arm("seed-1", 1)],
        [Arm(f"seed-{seed}", seed, given_backbone=True) for seed in SEEDS[1:]],
        ablated,
        variants,
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at a time; give each OMP_NUM_THREADS of its own"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these runs alone")
    parser.add_argument("--list", action="store_true", help="print the names and what each changes")
    options = parser.parse_args()
    known = [arm for phase in arms() for arm in phase]
    if unknown := set(options.only or ()) - {arm.name for arm in known}:
        print(
            f"error: there is no run {', '.join(sorted(unknown))}; --list prints those there are",
            file=sys.stderr,
        )
        return 2
    folder = options.folder.resolve()
    if options.list:
        for arm in known:
            print(f"{arm.name:28} {' '.join(arm.assignments(folder))}")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    for phase in arms():
        chosen = [arm for arm in phase if not options.only or arm.name in options.only]
        with ThreadPoolExecutor(max_workers=options.jobs) as pool:
            codes = pool.map(lambda arm: _run(arm, folder), chosen)
            failed += [arm.name for arm, code in zip(chosen, codes, strict=True) if code]
        if failed:
            print(f"error: {', '.join(failed)} did not finish; see the logs in {folder}", file=sys.stderr)
            return 1
    return 0


def _run(arm: Arm, folder: Path) -> int:
    """Run or go on with it; the exit status."""
    place = folder / arm.name
    if arm.base is not None and not place.exists():
        base = folder / arm.base
        if not (base / "steps" / RESULTS).is_file():
            print(
                f"{arm.name}: needs the run {arm.base}, which is not finished in {folder}",
                file=sys.stderr,
                flush=True,
            )
            return 1
        # Whole or not at all: a copy that was cut short would be gone on with.
        part = place.with_name(f"{arm.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(base, part, ignore=shutil.ignore_patterns(*OF_THE_BASE_ALONE))
        part.rename(place)
    command = [sys.executable, "-m", "personalign", "run", RECIPE, "--out", str(place), "--resume"]
    command += [word for assignment in arm.assignments(folder) for word in ("--set", assignment)]
    start = time.monotonic()
    code = _logged(command, folder / f"{arm.name}.log")
    print(f"{arm.name}: {'done' if code == 0 else f'exit status {code}'}, {(time.monotonic() - start) / 60:.0f} minutes",
          flush=True)  # fmt: skip
    return code


def _logged(command: Sequence[str], log: Path) -> int:
    with log.open("a", encoding="utf-8") as out:
        return subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
