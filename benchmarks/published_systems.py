"""Published replies to PERSONA-CHAT's validation turns as files of predictions, and their authors' scores beside ours.

Reads `model_outputs_convai2_valid.jsonl.gz` and `convai2_valid.jsonl.gz` in the folder PERSONALIGN_DATA and writes one
file per system into FOLDER, for `personalign evaluate` and `personalign report`. Where the file carries the authors'
scores it prints every metric that comes within rounding of one of them.

    python benchmarks/published_systems.py FOLDER
"""

import argparse
import gzip
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from personalign._files import write_jsonl
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.metrics import METRICS, missing
from personalign.evaluation.predictions import questions_of
from personalign.methods.parts import DATA_FOLDER

OUTPUTS, DIALOGUES = "model_outputs_convai2_valid.jsonl.gz", "convai2_valid.jsonl.gz"
# What Few-Shot Bot's repository calls its scores, and metrics that could be meant.
SUSPECTS = {
    "BLEU": ("bleu-",),
    "B4": ("bleu-4",),
    "F1": ("f1", "rouge-1"),
    "RL": ("rouge-l",),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        folder = os.environ.get(DATA_FOLDER)
        if not folder or not (Path(folder) / OUTPUTS).is_file():
            raise PersonalignError(f"set {DATA_FOLDER} to the folder that holds {OUTPUTS}")
        questions = questions_of(read_dialogues(Path(folder) / DIALOGUES))
        for system in _systems(Path(folder) / OUTPUTS):
            replies = _replies(system, questions)
            name = re.sub(r"\W+", "-", system["system"]).strip("-").lower()
            write_jsonl(
                options.folder / f"{name}.jsonl",
                [
                    {"dialogue": question.dialogue, "turn": question.turn, "response": reply}
                    for question, reply in zip(questions, replies, strict=True)
                ],
            )
            print(f"{options.folder / name}.jsonl: {system['system']}", flush=True)
            if system["published_scores"]:
                _compare(system["published_scores"], questions, replies)
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _systems(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _replies(system: dict[str, Any], questions: Sequence[Question]) -> list[str]:
    """In the order of the questions; a system in another order is put right by its own references.

    Turns with equal gold replies cannot be told apart then, and get theirs in the order in which they stand.
    """
    if system["responses"]:
        return [reply for replies in system["responses"] for reply in replies]
    left: defaultdict[str, list[str]] = defaultdict(list)
    for reference, reply in zip(system["flat_references"], system["flat_responses"], strict=True):
        left["".join(reference.split())].append(reply)
    replies = []
    for question in questions:
        waiting = left["".join((question.gold or "").split())]
        if not waiting:
            raise PersonalignError(f"{system['system']} has no reply to {question.key}")
        replies.append(waiting.pop(0))
    return replies


def _compare(published: dict[str, float], questions: Sequence[Question], replies: Sequence[str]) -> None:
    answers = Answers(questions, [Reply(reply) for reply in replies])
    for score, value in published.items():
        if score not in SUSPECTS:
            continue
        figures = {
            name: metric.measure(answers).figure()
            for name, metric in METRICS.items()
            if name.startswith(SUSPECTS[score]) and not missing(answers, metric)
        }
        nearest = sorted(figures, key=lambda name: abs(figures[name] - value))[:3]
        shown = ", ".join(f"{name} {figures[name]:.3f}" for name in nearest)
        equal = [name for name in nearest if abs(figures[name] - value) < 0.005 + 1e-9]
        print(
            f"    {score} {value:.3f}: {'equals ' + ', '.join(equal) if equal else 'none equals'}; nearest {shown}"
        )


if __name__ == "__main__":
    sys.exit(main())
