"""Does a reply agree with the persona? Four figures over the same verdicts.

PAL's C.score takes the best line of each reply, so one entailed line hides a contradicted one; hence the sum
(Madotto et al. 2019) and the two rates beside it. All can be gamed by stating the persona whatever was said:
compare systems at the same share of "none", beside copy rate, contradict rate and perplexity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from personalign.errors import PersonalignError
from personalign.evaluation.judge import Judge

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Consistency:
    """Per reply, its NLI signs against each persona line: +1 entailed, 0 neutral, -1 contradicted.

    Each method returns one value per reply, [N]: its mean is the metric, and the values can be resampled.
    A reply without persona lines counts 0 everywhere.
    """

    signs: tuple[tuple[int, ...], ...]

    def c_score_max(self) -> Floats:
        """`c_score/max`, PAL: the best sign over the lines, in {-1, 0, 1}."""
        return self._per_reply(max)

    def c_score_sum(self) -> Floats:
        """`c_score/sum`, Madotto et al. 2019: the sum of the signs over the lines."""
        return self._per_reply(sum)

    def entailed(self) -> Floats:
        """`entail_rate`: 1 where at least one line is entailed."""
        return self._per_reply(lambda signs: int(1 in signs))

    def contradicted(self) -> Floats:
        """`contradict_rate`: 1 where at least one line is contradicted."""
        return self._per_reply(lambda signs: int(-1 in signs))

    def metrics(self) -> dict[str, float]:
        """The means, under the names of `personalign.evaluation.metrics.METRICS`."""
        if not self.signs:
            raise PersonalignError("there are no replies to score; give at least one")
        return {
            "c_score/max": float(self.c_score_max().mean()),
            "c_score/sum": float(self.c_score_sum().mean()),
            "entail_rate": float(self.entailed().mean()),
            "contradict_rate": float(self.contradicted().mean()),
        }

    def _per_reply(self, score: Callable[[Sequence[int]], int]) -> Floats:
        return np.array([score(signs) if signs else 0 for signs in self.signs], dtype=np.float64)


def judge_consistency(
    judge: Judge, responses: Sequence[str], personas: Sequence[Sequence[str]]
) -> Consistency:
    """Judge every reply against every line of its persona. `personas[i]` belongs to `responses[i]`."""
    if len(responses) != len(personas):
        raise PersonalignError(
            f"{len(responses)} responses but {len(personas)} personas; give one per response"
        )
    pairs = [(line, reply) for reply, persona in zip(responses, personas, strict=True) for line in persona]
    signs = judge.judge(pairs).signs().tolist() if pairs else []
    ends = np.cumsum([0, *map(len, personas)]).tolist()
    return Consistency(tuple(tuple(signs[a:b]) for a, b in pairwise(ends)))
