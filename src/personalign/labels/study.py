"""Fix the threshold of every labeller on one set, then compare them once on another.

    python -m personalign.labels.study --train TRAIN --pairs PAIRS --test TEST [--origin NAME] [--judge FOLDER]

The labels of TRAIN (of its dialogues whose key `origin` says NAME, where one is given) are made by joining it
with PAIRS, rows {persona, response} that an NLI model judged entailed: noisy, and never those of TEST.
"""

import argparse
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from personalign.data.dialogue import Dialogue
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError
from personalign.evaluation.nli_rows import normalise, read_entailed_pairs
from personalign.labels.agreement import Agreement, compare, tune_threshold
from personalign.labels.labeller import (
    CosineIdfLabeller,
    CosineLabeller,
    IdfOverlapLabeller,
    Labeller,
    Labels,
    NliLabeller,
    TextEncoder,
    labels_above,
)

WEIGHTS = (0.1, 0.25, 0.5, 1.0)
PUBLISHED_NLI_THRESHOLD = 0.99


@dataclass(frozen=True, slots=True)
class Row:
    """`threshold` is None where there is none, `train_accuracy` where it was not tuned."""

    method: str
    threshold: float | None
    train_accuracy: float | None
    test: Agreement


@dataclass(frozen=True, slots=True)
class _RememberingEncoder:
    """Encodes every text once, however many labellers ask for it."""

    encoder: TextEncoder
    known: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known.update(zip(new, self.encoder.encode(new), strict=True))
        return np.stack([self.known[text] for text in texts])


def joined_labels(dialogues: Sequence[Dialogue], pairs: Collection[tuple[str, str]]) -> Labels:
    """Label a line as relevant to a reply where `pairs`, normalised, holds the two."""
    return [
        tuple(
            tuple(
                index
                for index, line in enumerate(dialogue.persona)
                if (normalise(line), normalise(dialogue.messages[turn].content)) in pairs
            )
            for turn in dialogue.reply_indices()
        )
        for dialogue in dialogues
    ]


def study(
    labellers: Sequence[Labeller], *, train: Sequence[Dialogue], gold: Labels, test: Sequence[Dialogue]
) -> list[Row]:
    """Tune each labeller on (`train`, `gold`); of those with one name keep the best; then label `test`, and
    once with nothing but "none".

    Raises PersonalignError if a test dialogue has no `relevant`.
    """
    chosen: dict[str, tuple[float, Labeller]] = {}
    for labeller in labellers:
        tuned = tune_threshold(labeller.scores(train), gold)
        if labeller.name not in chosen or tuned.accuracy > chosen[labeller.name][0]:
            chosen[labeller.name] = tuned.accuracy, _with_threshold(labeller, tuned.threshold)
    given = [_relevant(dialogue) for dialogue in test]
    rows = []
    for accuracy, labeller in chosen.values():
        scores = labeller.scores(test)
        if isinstance(labeller, NliLabeller):
            published = labels_above(scores, PUBLISHED_NLI_THRESHOLD, best_first=False)
            rows.append(Row("nli, as published", PUBLISHED_NLI_THRESHOLD, None, compare(given, published)))
        labels = labels_above(scores, labeller.threshold)
        rows.append(Row(_describe(labeller), labeller.threshold, accuracy, compare(given, labels)))
    nothing: Labels = [((),) * len(turns) for turns in given]
    rows.append(Row("always none", None, None, compare(given, nothing)))
    return rows


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [
        "| labels by | threshold | accuracy (tuning) | accuracy | on turns with a line | macro-F1 "
        "| share of none |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        threshold = "-" if row.threshold is None else f"{row.threshold:.2f}"
        tuned = "-" if row.train_accuracy is None else f"{row.train_accuracy:.3f}"
        agreement = row.test
        lines.append(
            f"| {row.method} | {threshold} | {tuned} | {agreement.accuracy:.3f} | "
            f"{agreement.accuracy_needed:.3f} | {agreement.macro_f1:.3f} | {agreement.share_none:.3f} |"
        )
    lines.append(f"\nShare of none among the given labels: {rows[0].test.share_none_given:.3f}.")
    return "\n".join(lines)


def _with_threshold(labeller: Labeller, threshold: float) -> Labeller:
    changed: Labeller = replace(labeller, threshold=threshold)  # type: ignore[type-var]
    return changed


def _relevant(dialogue: Dialogue) -> tuple[tuple[int, ...], ...]:
    if dialogue.relevant is None:
        raise PersonalignError(f"dialogue '{dialogue.id}' has no 'relevant'; compare on labelled dialogues")
    return dialogue.relevant


def _describe(labeller: Labeller) -> str:
    if isinstance(labeller, CosineIdfLabeller):
        return f"{labeller.name}, weight {labeller.weight:g}"
    return labeller.name


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True, help="dialogues to fix the thresholds on")
    parser.add_argument("--origin", help="use only training dialogues with this `origin`")
    parser.add_argument(
        "--pairs", type=Path, required=True, help="rows {persona, response} known to be entailed"
    )
    parser.add_argument("--test", type=Path, required=True, help="dialogues with `relevant`")
    parser.add_argument("--judge", help="folder or hub id of an NLI judge; without it NLI is left out")
    arguments = parser.parse_args()
    try:
        _print_study(arguments)
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def _print_study(arguments: argparse.Namespace) -> None:
    from personalign.models.encoder import load_encoder

    train = [
        dialogue
        for dialogue in read_dialogues(arguments.train)
        if arguments.origin is None or dialogue.extra.get("origin") == arguments.origin
    ]
    pairs = {
        (normalise(row.premise), normalise(row.hypothesis)) for row in read_entailed_pairs(arguments.pairs)
    }
    test = read_dialogues(arguments.test)

    encoder = _RememberingEncoder(load_encoder())
    labellers: list[Labeller] = [
        IdfOverlapLabeller(),
        CosineLabeller(encoder),
        *(CosineIdfLabeller(encoder, weight=weight) for weight in WEIGHTS),
    ]
    if arguments.judge is not None:
        from personalign.evaluation.nli_judge import load_judge

        labellers.append(NliLabeller(load_judge(arguments.judge)))
    gold = joined_labels(train, pairs)
    turns = [lines for dialogue in gold for lines in dialogue]
    print(f"tuned on {len(turns):,} turns, {sum(map(bool, turns)):,} of them with a line\n")
    rows = study(labellers, train=train, gold=gold, test=test)
    print(table(rows))
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    main()
