"""What a judge is: it says whether a reply entails, contradicts or leaves open a persona line."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from personalign._ranks import Ranks
from personalign.errors import PersonalignError

LABELS = ("entailment", "neutral", "contradiction")
ENTAILMENT, NEUTRAL, CONTRADICTION = range(3)

# The names under which models, data sets and oracles print the three classes.
_CLASS_OF_STEM = {
    "entail": ENTAILMENT,
    "positive": ENTAILMENT,
    "neutral": NEUTRAL,
    "contradict": CONTRADICTION,
    "negative": CONTRADICTION,
}

Pair = tuple[str, str]
Progress = Callable[[int, int], None]
"""Called with (done, total) as work goes on."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """`probabilities`: float32 [N, 3], the columns in the order of `LABELS`."""

    probabilities: npt.NDArray[np.float32]

    def classes(self) -> npt.NDArray[np.int64]:
        """[N], the most probable class of each pair as an index into `LABELS`."""
        classes: npt.NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return classes


class Judge(Protocol):
    """A pair is (persona line, reply): premise first, hypothesis second."""

    @property
    def name(self) -> str: ...

    def judge(self, pairs: Sequence[Pair]) -> Verdicts: ...


class Oracle(Protocol):
    """Something that knows the truth and names it in words ("entailed", "neutral", "contradicted" ...)."""

    def judge(self, pairs: Sequence[Pair]) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class OracleJudge:
    """Make an oracle a judge like any other; all its probability is on the class that it names."""

    oracle: Oracle
    name: str = "oracle"

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        classes = [class_of(label) for label in self.oracle.judge(pairs)]
        return Verdicts(np.eye(3, dtype=np.float32)[np.array(classes, dtype=np.int64)])


@dataclass(frozen=True, slots=True)
class SharedJudge:
    """A judge that several processes share: each judges its part of the different pairs, and all get the verdicts."""

    inner: Judge
    ranks: Ranks

    @property
    def name(self) -> str:
        return self.inner.name

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        # By the first one's, so that a process that asks for something else fails rather than takes another's verdict.
        distinct = self.ranks.agreed(sorted(set(pairs)))
        mine = self.inner.judge(self.ranks.share(distinct))
        rows = self.ranks.merged(list(mine.probabilities))
        found = dict(zip(distinct, rows, strict=True))
        probabilities = [found[pair] for pair in pairs]
        return Verdicts(np.array(probabilities, dtype=np.float32).reshape(len(pairs), 3))


def class_of(name: str) -> int:
    """The index into `LABELS` that a label's name stands for, whatever its case and ending.

    Raises PersonalignError for any other name.
    """
    for stem, index in _CLASS_OF_STEM.items():
        if name.strip().lower().startswith(stem):
            return index
    raise PersonalignError(
        f"'{name}' is no NLI label; write entailment, neutral or contradiction "
        "(or positive, neutral, negative)"
    )
