"""Published replies to PERSONA-CHAT's validation turns as files of predictions, and their authors' scores beside ours.

Reads `model_outputs_convai2_valid.jsonl.gz` and `convai2_valid.jsonl.gz` in the folder PERSONALIGN_DATA and writes one
file per system into FOLDER, for `personalign evaluate` and `personalign report`. Where the file carries the authors'
scores it prints them beside what their code computes.

    python benchmarks/published_systems.py FOLDER
"""

import argparse
import gzip
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from nltk.stem import PorterStemmer
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from personalign._files import write_jsonl
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.metrics import METRICS
from personalign.evaluation.overlap import f1_words, longest_common_subsequence
from personalign.evaluation.predictions import questions_of
from personalign.methods.parts import DATA_FOLDER

OUTPUTS, DIALOGUES = "model_outputs_convai2_valid.jsonl.gz", "convai2_valid.jsonl.gz"


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
    """Few-Shot Bot's scores are none of the usual variants but one; what its code computes, written out.

    - BLEU: corpus BLEU-4 without smoothing, `bleu-4/coco` here.
    - F1: the mean of mean precision, mean recall and mean F1 of ConvAI2's words.
    - B4: mean of nltk's sentence BLEU-4 with smoothing method 1 (epsilon 1e-12), the gold reply scored against the reply.
    - RL: the longest common subsequence per word of the *reply*: py-rouge's recall with gold and reply exchanged. It
      stems with WordNet's exceptions, which we do not have: by Porter's rules alone it comes within 0.02.
    """
    golds = [question.gold or "" for question in questions]
    answers = Answers(questions, [Reply(reply) for reply in replies])
    pairs = [(f1_words(gold), f1_words(reply)) for gold, reply in zip(golds, replies, strict=True)]
    stem = cache(PorterStemmer().stem)
    smoothing = SmoothingFunction(epsilon=1e-12).method1
    ours = {
        "BLEU": METRICS["bleu-4/coco"].measure(answers).figure(),
        "F1": 100 * float(np.mean([_overlap(gold, reply) for gold, reply in pairs])),
        "B4": 100 * float(np.mean([_bleu(gold, reply, smoothing) for gold, reply in pairs])),
        "RL": 100 * float(np.mean([_subsequence([*map(stem, g)], [*map(stem, r)]) for g, r in pairs])),
    }
    for score, value in ours.items():
        print(f"    {score}: published {published[score]:.4f}, computed {value:.4f}")


def _bleu(gold: Sequence[str], reply: Sequence[str], smoothing: Any) -> float:
    return float(sentence_bleu([reply or [""]], gold or [""], smoothing_function=smoothing))


def _overlap(gold: Sequence[str], reply: Sequence[str]) -> tuple[float, float, float]:
    hits = (Counter(gold) & Counter(reply)).total()
    return (
        (hits / len(reply), hits / len(gold), 2 * hits / (len(gold) + len(reply)))
        if hits
        else (0.0, 0.0, 0.0)
    )


def _subsequence(gold: Sequence[str], reply: Sequence[str]) -> float:
    return longest_common_subsequence(gold, reply) / len(reply) if reply else 0.0


if __name__ == "__main__":
    sys.exit(main())
