"""Did the system choose the persona line that the gold reply expresses? "None" is a choice like any other."""

from collections.abc import Sequence

import numpy as np

from personalign.errors import PersonalignError
from personalign.evaluation.classification import classification_scores

NONE = 0


def selection_metrics(relevant: Sequence[Sequence[int]], selected: Sequence[int | None]) -> dict[str, float]:
    """Compare the choice of each turn with its labelled lines, `()` and None meaning "none".

    A choice is right if it is among the labelled lines; a turn with several labelled lines counts as the
    chosen one if that is right, else as its first. Returns

    - `selection/accuracy`, and `selection/accuracy_always_none`, which never choosing a line would score;
    - `selection/macro_f1`: mean of F1 over "none" and the line numbers, as PAL's candidates are numbered;
    - `selection/accuracy_needed`: accuracy on the turns that need a line (0 where there are none);
    - `share_none` and `share_none_labelled`: turns on which no line was chosen, and on which none is
      labelled.

    Raises PersonalignError if the lengths differ or there are no turns.
    """
    if len(relevant) != len(selected) or not selected:
        raise PersonalignError(
            f"{len(relevant)} labelled turns stand against {len(selected)} choices; "
            "give equal numbers, at least one"
        )
    guess = np.array([NONE if choice is None else choice + 1 for choice in selected])
    truth = np.array(
        [_class(lines, choice) for lines, choice in zip(relevant, selected, strict=True)], dtype=np.int64
    )
    scores = classification_scores(truth, guess, class_count=int(max(truth.max(), guess.max())) + 1)
    needed = truth != NONE
    return {
        "selection/accuracy": scores.accuracy,
        "selection/accuracy_always_none": float((~needed).mean()),
        "selection/accuracy_needed": float((truth == guess)[needed].mean()) if needed.any() else 0.0,
        "selection/macro_f1": scores.macro_f1,
        "share_none": float((guess == NONE).mean()),
        "share_none_labelled": float((~needed).mean()),
    }


def _class(lines: Sequence[int], choice: int | None) -> int:
    if not lines:
        return NONE
    return choice + 1 if choice in lines and choice is not None else lines[0] + 1
