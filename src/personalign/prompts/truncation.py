"""The one truncation: over-long input loses its oldest turns, and nothing else."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Which messages a prompt shows: those from `first` up to the turn.

    `dropped_by_history` older ones were not asked for, `trimmed` further ones did not fit. If `fits` is false
    even persona and last turn are too long: the caller drops the example and counts it.
    """

    first: int
    dropped_by_history: int
    trimmed: int
    fits: bool


def choose_window(turn: int, *, history: int | None, budget: int, length: Callable[[int], int]) -> Window:
    """The longest window before message `turn` whose prompts have at most `budget` tokens.

    `length(first)` is the length in tokens of the longest prompt that shows the messages `first` to
    `turn - 1`. It must not grow with `first`. The last turn is always kept.
    """
    oldest = max(0, turn - history) if history is not None else 0
    newest = max(oldest, turn - 1)
    candidates = range(oldest, newest)
    if length(oldest) <= budget:
        return Window(oldest, oldest, 0, True)
    first = oldest + bisect_left(candidates, True, key=lambda start: length(start) <= budget)
    return Window(first, oldest, first - oldest, length(first) <= budget)
