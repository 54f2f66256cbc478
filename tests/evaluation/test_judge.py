from collections.abc import Sequence

import numpy as np
import pytest

from personalign.errors import PersonalignError
from personalign.evaluation.consistency import judge_consistency
from personalign.evaluation.judge import OracleJudge, Verdicts, class_of


class Oracle:
    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        return [
            "Entailed" if line == reply else "contradicted" if reply else "neutral" for line, reply in pairs
        ]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("ENTAILMENT", 0),
        ("entailed", 0),
        ("positive", 0),
        ("Neutral", 1),
        ("contradiction", 2),
        ("negative", 2),
    ],
)
def test_label_names_are_understood_in_any_case(name: str, index: int) -> None:
    assert class_of(name) == index


def test_other_names_are_refused_with_the_right_ones() -> None:
    with pytest.raises(PersonalignError, match=r"'LABEL_0' is no NLI label; write entailment, neutral"):
        class_of("LABEL_0")


def test_the_class_is_the_most_probable_one() -> None:
    verdicts = Verdicts(np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], dtype=np.float32))
    assert verdicts.classes().tolist() == [0, 1, 2]


def test_an_oracle_is_a_judge_like_any_other() -> None:
    judge = OracleJudge(Oracle())
    verdicts = judge.judge([("a", "a"), ("a", "b"), ("a", "")])
    assert verdicts.probabilities.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert verdicts.probabilities.dtype == np.float32
    assert judge.judge([]).probabilities.shape == (0, 3)
    assert judge_consistency(judge, ["a"], [["a", "b"]]).signs() == [[1, -1]]
