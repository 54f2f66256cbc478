"""How well labels agree with given ones, and the threshold at which they agree best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from personalign.errors import PersonalignError
from personalign.evaluation.selection import compare_selections
from personalign.labels.labeller import LineScores

DialogueLabels = Sequence[Sequence[int]]
"""Of one dialogue: per assistant turn, the relevant lines."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """`accuracy` beside what labelling everything "none" would score; shares are of turns."""

    turns: int
    accuracy: float
    accuracy_always_none: float
    accuracy_needed: float
    macro_f1: float
    share_none: float
    share_none_given: float


@dataclass(frozen=True, slots=True)
class TunedThreshold:
    """`accuracy`: on the labels that it was tuned on, so optimistic."""

    threshold: float
    accuracy: float


def compare(given: Sequence[DialogueLabels], predicted: Sequence[DialogueLabels]) -> Agreement:
    """A turn is right if its first predicted line is among the given ones, or both say none.

    Raises PersonalignError if the two do not label the same turns.
    """
    sizes = [[len(turns) for turns in labels] for labels in (given, predicted)]
    if sizes[0] != sizes[1]:
        raise PersonalignError(
            "the given and the predicted labels are not for the same turns; label the same file"
        )
    relevant = [lines for dialogue in given for lines in dialogue]
    chosen = [lines[0] if lines else None for dialogue in predicted for lines in dialogue]
    highest = max((line for lines in (*relevant, chosen) for line in lines if line is not None), default=0)
    scores = compare_selections(relevant, chosen, lines=highest + 1)
    return Agreement(
        turns=sum(sizes[0]),
        accuracy=scores.accuracy().figure(),
        accuracy_always_none=scores.always_none().figure(),
        accuracy_needed=scores.accuracy_needed().figure(),
        macro_f1=scores.macro_f1().figure(),
        share_none=scores.share_none().figure(),
        share_none_given=scores.always_none().figure(),
    )


def tune_threshold(scores: LineScores, gold: Sequence[DialogueLabels]) -> TunedThreshold:
    """The threshold with the highest accuracy, in the sense of `compare` with the best line first.

    Every cut between two neighbouring best scores is tried; the threshold is the midpoint.
    Raises PersonalignError if scores and labels are not for the same turns.
    """
    turns = [turn for dialogue in scores for turn in dialogue]
    labels = [lines for dialogue in gold for lines in dialogue]
    if len(turns) != len(labels) or not turns:
        raise PersonalignError(f"{len(turns)} scored turns stand against {len(labels)} labelled ones")
    best = np.array([turn.max(initial=0.0) for turn in turns])
    hit = np.array(
        [turn.size > 0 and int(turn.argmax()) in lines for turn, lines in zip(turns, labels, strict=True)]
    )
    none = np.array([not lines for lines in labels])
    order = np.argsort(-best, kind="stable")
    gains = hit[order].astype(int) - none[order].astype(int)
    right = none.sum() + np.concatenate([[0], np.cumsum(gains)])
    # right[k]: correct turns when the k highest-scoring turns get a line; equal scores cannot be parted.
    edges = np.concatenate([[best.max() + 1.0], best[order], [0.0]])
    cuts = [k for k in range(len(best) + 1) if edges[k] > edges[k + 1] and edges[k] > 0]
    chosen = max(cuts, key=lambda k: right[k])
    return TunedThreshold(
        threshold=float((edges[chosen] + edges[chosen + 1]) / 2), accuracy=float(right[chosen] / len(best))
    )
