from collections.abc import Sequence

import numpy as np
import pytest

from personalign.errors import PersonalignError
from personalign.evaluation.consistency import Consistency, judge_consistency
from personalign.evaluation.judge import Pair, Verdicts


class NumberJudge:
    """The reply names the class of the line: "+a -b" entails a and contradicts b."""

    name = "numbers"

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        classes = [0 if f"+{line}" in reply else 2 if f"-{line}" in reply else 1 for line, reply in pairs]
        return Verdicts(np.eye(3, dtype=np.float32)[classes])


def test_scores_by_hand() -> None:
    consistency = Consistency(((1, -1, -1), (0, 0), (-1,), ()))
    assert consistency.c_score_max().tolist() == [1, 0, -1, 0]
    assert consistency.c_score_sum().tolist() == [-1, 0, -1, 0]
    assert consistency.entailed().tolist() == [1, 0, 0, 0]
    assert consistency.contradicted().tolist() == [1, 0, 1, 0]
    assert consistency.metrics() == {
        "c_score/max": 0.0,
        "c_score/sum": -0.5,
        "entail_rate": 0.25,
        "contradict_rate": 0.5,
    }


def test_every_reply_meets_every_line_of_its_own_persona() -> None:
    consistency = judge_consistency(NumberJudge(), ["+a -b", "-a", "hm"], [["a", "b", "c"], [], ["a", "b"]])
    assert consistency.signs == ((1, -1, 0), (), (0, 0))


def test_personas_that_are_all_empty_need_no_judge() -> None:
    assert judge_consistency(NumberJudge(), ["x"], [[]]).signs == ((),)


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(PersonalignError, match="one per response"):
        judge_consistency(NumberJudge(), ["x"], [])


def test_no_replies_have_no_metrics() -> None:
    with pytest.raises(PersonalignError, match="no replies"):
        Consistency(()).metrics()
