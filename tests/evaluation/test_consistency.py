from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.consistency import (
    Consistency,
    copied_share,
    judge_consistency,
    judge_earlier_turns,
    self_contradicting_dialogues,
    self_contradiction,
)
from personalign.evaluation.judge import Pair, Verdicts


class NumberJudge:
    """The reply names the class of the line: "+a -b" entails a and contradicts b."""

    name = "numbers"

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        classes = [0 if f"+{line}" in reply else 2 if f"-{line}" in reply else 1 for line, reply in pairs]
        return Verdicts(np.eye(3, dtype=np.float32)[classes])


def with_signs(*replies: Sequence[int]) -> Consistency:
    return Consistency(tuple(np.eye(3)[[1 - sign for sign in signs]].reshape(-1, 3) for signs in replies))


def test_scores_by_hand() -> None:
    found = with_signs((1, -1, -1), (0, 0), (-1,), ())
    assert found.c_score_max().per_example().tolist() == [1, 0, -1, 0]
    assert found.c_score_sum().per_example().tolist() == [-1, 0, -1, 0]
    assert found.entail_rate().per_example().tolist() == [1, 0, 0, 0]
    assert found.contradict_rate().per_example().tolist() == [1, 0, 1, 0]
    # Of six pairs one is entailed and three are contradicted.
    assert found.entailed_pairs().figure() == pytest.approx(1 / 6)
    assert found.coherent_pairs().figure() == pytest.approx(3 / 6)


def test_recall_asks_the_first_labelled_line_of_the_turns_that_need_one() -> None:
    found = with_signs((1, 0), (0, 1), (1, 1))
    assert found.recall([(0, 1), (0,), ()]).figure() == 0.5


def test_apc_wants_labelled_lines_entailed_and_others_not_contradicted() -> None:
    lines = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    found = Consistency((lines, lines, np.zeros((0, 3))))
    # Line 0 labelled: .7 and 1 - .6; none labelled: .9 and .4.
    assert found.apc([(0,), (), ()]).per_example()[:2] == pytest.approx([(0.7 + 0.4) / 2, (0.9 + 0.4) / 2])
    assert found.apc([(0,), (), ()]).figure() == pytest.approx((0.55 + 0.65) / 2)


@given(st.lists(st.lists(st.sampled_from([-1, 0, 1]), max_size=5), min_size=1, max_size=6))
def test_bounds_and_order_of_lines(signs: list[list[int]]) -> None:
    found, turned = with_signs(*signs), with_signs(*[lines[::-1] for lines in signs])
    assert -1 <= found.c_score_max().figure() <= 1
    assert 0 <= found.contradict_rate().figure() <= 1
    for figure in ("c_score_max", "c_score_sum", "entail_rate", "contradict_rate"):
        assert getattr(found, figure)().figure() == getattr(turned, figure)().figure()


def test_every_reply_meets_every_line_of_its_own_persona() -> None:
    found = judge_consistency(NumberJudge(), ["+a -b", "-a", "hm"], [["a", "b", "c"], [], ["a", "b"]])
    assert found.signs() == [[1, -1, 0], [], [0, 0]]


def test_personas_that_are_all_empty_need_no_judge() -> None:
    assert judge_consistency(NumberJudge(), ["x"], [[]]).signs() == [[]]


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(PersonalignError, match="one per response"):
        judge_consistency(NumberJudge(), ["x"], [])


def test_no_replies_have_no_figures() -> None:
    with pytest.raises(PersonalignError, match="no replies"):
        with_signs().c_score_max().figure()


def test_earlier_messages_of_the_same_person_may_contradict() -> None:
    answers = Answers(
        [
            Question("x", 1, (), own=()),
            Question("x", 3, (), own=("a",)),
            Question("x", 5, (), own=("a", "b")),
            Question("y", 1, (), own=("c",)),
        ],
        [Reply("-a"), Reply("-a"), Reply("+a -b"), Reply("+c")],
    )
    verdicts = judge_earlier_turns(NumberJudge(), answers)
    # The first turn has nothing before it and is left out; two of the other three contradict.
    assert self_contradiction(verdicts).figure() == pytest.approx(2 / 3)
    assert self_contradicting_dialogues(verdicts, answers.dialogues).figure() == 0.5


def test_dialogues_of_a_part_count_the_replies_of_that_part_alone() -> None:
    none, hit = np.zeros((0, 3)), np.array([[0.0, 0.0, 1.0]])
    found = self_contradicting_dialogues([none, hit, none, none], ["a", "a", "a", "b"])
    assert found.figure() == 0.5
    assert found.of([0, 2, 3]).figure() == 0.0
    assert found.of([1, 2]).figure() == 1.0
    by_dialogue = found.grouped(["a", "a", "a", "b"])
    assert by_dialogue.figure() == 0.5
    assert by_dialogue.without_each().tolist() == [0.0, 1.0]


def test_copied_share_is_the_longest_run_shared_with_one_line() -> None:
    persona = ["I like to fish.", "i have a big dog"]
    # "i have a big" is shared; the run may not go on into another line.
    assert copied_share("well , i have a big fish", persona) == pytest.approx(4 / 6)
    assert copied_share("I LIKE TO FISH!", persona) == 1.0
    assert copied_share("...", persona) == 0.0
    assert copied_share("hello", []) == 0.0


@given(st.text("ab ", max_size=12), st.text("ab ", max_size=12))
def test_copied_share_equals_search_over_all_runs(reply: str, line: str) -> None:
    own, other = reply.split(), line.split()
    runs = [own[i:j] for i in range(len(own)) for j in range(i + 1, len(own) + 1)]
    others = [other[i:j] for i in range(len(other)) for j in range(i + 1, len(other) + 1)]
    expected = max((len(run) for run in runs if run in others), default=0) / max(1, len(own))
    assert copied_share(reply, [line]) == pytest.approx(expected)
