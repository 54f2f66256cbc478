"""Which persona line matters now: scores per line and for none, and the choice that they lead to.

Every selector gives a score to each persona line and to "none"; the choice is the best after a bias was added to
"none". The bias is set on validation dialogues so that the share of turns without a line meets the labelled one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError
from personalign.prompts import Prompter

Strategy = Literal["predicted", "random", "unselected", "oracle"]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Choice:
    """A selected line (None: no line matters) and the probability of every line, then of none."""

    line: int | None
    probabilities: tuple[float, ...]


def choose(scores: Scores, *, none_bias: float = 0.0) -> Choice:
    """The best of [lines..., none], shape [lines + 1], after adding `none_bias` to none; none wins a tie.

    Probabilities are the softmax of the biased scores.
    """
    line = int(scores[:-1].argmax()) if _margin(scores) > none_bias else None
    biased = scores.astype(np.float64)
    biased[-1] += none_bias
    weights = np.exp(biased - biased.max())
    return Choice(line, tuple((weights / weights.sum()).tolist()))


def calibrate_none(scores: Sequence[Scores], *, share_of_none: float) -> float:
    """The bias at which the share of turns that choose none comes closest to `share_of_none`.

    A turn chooses none when the bias reaches its margin, best line minus none; so the bias lies in a gap between two
    margins. Turns without persona lines always choose none, and turns of equal margin choose alike.
    Raises PersonalignError where there is no turn.
    """
    margins = np.sort([_margin(item) for item in scores])
    if not len(margins):
        raise PersonalignError(
            "the share of none cannot be calibrated without turns; check the validation data"
        )
    finite = np.unique(margins[np.isfinite(margins)])
    if not len(finite):
        return 0.0
    below = [float(finite[0]) - 1.0, *map(_within, finite[:-1], finite[1:]), float(finite[-1]) + 1.0]
    shares = np.searchsorted(margins, below, side="right") / len(margins)
    return below[int(np.abs(shares - share_of_none).argmin())]


def _within(low: float, high: float) -> float:
    """A number that is at least `low` and below `high`: the middle, unless rounding makes it `high`."""
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)


def _margin(scores: Scores) -> float:
    return float(scores[:-1].max() - scores[-1]) if len(scores) > 1 else -np.inf


def random_choice(lines: int, *, share_of_none: float, generator: np.random.Generator) -> Choice:
    """None at the given rate, else any line alike: PAL's Random strategy (Figure 3) at an equal share of none."""
    none = generator.random() < share_of_none or lines == 0
    line = None if none else int(generator.integers(lines))
    share = (1 - share_of_none) / lines if lines else 0.0
    return Choice(line, (*([share] * lines), share_of_none if lines else 1.0))


def oracle_choice(dialogue: Dialogue, turn: int) -> Choice:
    """The label of the gold reply: never a fair comparison, and named oracle in every table."""
    line = labelled_line(dialogue, turn)
    probabilities = [0.0] * (len(dialogue.persona) + 1)
    probabilities[-1 if line is None else line] = 1.0
    return Choice(line, tuple(probabilities))


def labelled_line(dialogue: Dialogue, turn: int) -> int | None:
    """The first labelled line of the reply at message index `turn`, None for the label none (PAL uses the first).

    Raises PersonalignError where the dialogue is not labelled.
    """
    if dialogue.relevant is None:
        raise PersonalignError(
            f"dialogue '{dialogue.id}' has no relevance labels; add the field 'relevant' (personalign data label "
            "writes it), or do without the strategy oracle"
        )
    labels = dialogue.relevant[dialogue.reply_indices().index(turn)]
    return labels[0] if labels else None


def selection_targets(prompter: Prompter, dialogue: Dialogue) -> list[list[int]]:
    """Token ids of every choice: the persona lines in order, then none; each with its terminator."""
    lines: list[int | None] = [*range(len(dialogue.persona)), None]
    return [list(prompter.select_target(dialogue, line)) for line in lines]
