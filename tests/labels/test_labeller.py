from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.evaluation.judge import Pair, Verdicts
from personalign.labels.labeller import (
    CosineIdfLabeller,
    CosineLabeller,
    IdfOverlapLabeller,
    Labeller,
    NliLabeller,
    labels_above,
)


def dialogue(persona: Sequence[str], *replies: str) -> Dialogue:
    messages = [turn for reply in replies for turn in (Turn("user", "and you ?"), Turn("assistant", reply))]
    return Dialogue(id="d", persona=tuple(persona), messages=tuple(messages))


class TableJudge:
    """P(entailment), P(neutral), P(contradiction) by pair; neutral where the table says nothing."""

    name = "table"

    def __init__(self, table: dict[Pair, tuple[float, float, float]]) -> None:
        self.table = table

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        return Verdicts(np.array([self.table.get(pair, (0, 1, 0)) for pair in pairs], dtype=np.float32))


class TableEncoder:
    """Two-dimensional unit vectors by angle in degrees."""

    def __init__(self, angles: dict[str, float]) -> None:
        self.angles = angles

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        radians = np.radians([self.angles.get(text, 180.0) for text in texts])
        return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


JUDGE = TableJudge(
    {
        ("p0", "r0"): (0.991, 0.009, 0),
        ("p2", "r0"): (0.999, 0.001, 0),
        ("p1", "r1"): (0.98, 0.02, 0),
        ("p0", "r1"): (0.4, 0.35, 0.25),
    }
)
DIALOGUES = [dialogue(["p0", "p1", "p2"], "r0", "r1"), dialogue([], "r0"), dialogue(["p0"])]


def test_nli_labels_come_in_persona_order_as_published() -> None:
    assert NliLabeller(JUDGE).label(DIALOGUES) == [((0, 2), ()), ((),), ()]


def test_nli_labels_can_come_surest_first() -> None:
    assert NliLabeller(JUDGE, best_first=True).label(DIALOGUES)[0] == ((2, 0), ())


def test_without_a_threshold_nli_takes_every_line_whose_likeliest_class_is_entailment() -> None:
    assert NliLabeller(JUDGE, threshold=0.0).label(DIALOGUES)[0] == ((0, 2), (0, 1))


def test_likeliest_entailment_below_half_is_still_entailment_but_a_tie_lost_is_not() -> None:
    scores = NliLabeller(TableJudge({("p", "r"): (0.45, 0.5, 0.05)})).scores([dialogue(["p"], "r")])
    assert scores[0].tolist() == [[0.0]]


def test_idf_prefers_the_line_with_the_rare_words() -> None:
    chat = dialogue(["i have a dog", "i have a boat", "i have a zebra"], "my zebra and my dog", "hm")
    others = [dialogue(["i have a dog"], f"dog number {number}") for number in range(5)]
    labeller = IdfOverlapLabeller(threshold=0.1)
    assert labeller.label([chat, *others])[0] == ((2, 0), ())
    scores = labeller.scores([chat, *others])[0]
    assert scores.shape == (2, 3)
    assert scores[0, 2] > scores[0, 0] > scores[0, 1] == scores[1].max() == 0


def test_cosine_scores_are_cosines() -> None:
    encoder = TableEncoder({"p0": 0, "p1": 60, "r": 20})
    labeller = CosineLabeller(encoder, threshold=0.75)
    chat = dialogue(["p0", "p1"], "r", "s")
    expected = np.cos(np.radians([[20, 40], [180, 120]]))
    assert labeller.scores([chat])[0] == pytest.approx(expected, abs=1e-6)
    assert labeller.label([chat]) == [((0, 1), ())]


def test_cosine_idf_adds_the_two_scores() -> None:
    encoder = TableEncoder({"a dog": 0, "a cat": 50, "the dog": 30})
    chat = dialogue(["a cat", "a dog"], "the dog")
    both = CosineIdfLabeller(encoder, weight=0.3).scores([chat])[0]
    apart = CosineLabeller(encoder).scores([chat])[0] + 0.3 * IdfOverlapLabeller().scores([chat])[0]
    assert both == pytest.approx(apart)
    assert both[0, 1] > CosineLabeller(encoder).scores([chat])[0][0, 1]


@pytest.mark.parametrize(
    "labeller",
    [
        NliLabeller(JUDGE),
        IdfOverlapLabeller(),
        CosineLabeller(TableEncoder({})),
        CosineIdfLabeller(TableEncoder({})),
    ],
)
def test_labels_fit_the_turns_whatever_is_empty(labeller: Labeller) -> None:
    labels = labeller.label(DIALOGUES)
    assert [len(turns) for turns in labels] == [2, 1, 0]
    assert [scores.shape for scores in labeller.scores(DIALOGUES)] == [(2, 3), (1, 0), (0, 1)]
    assert labeller.label([]) == []


def test_a_score_at_the_threshold_counts_and_equal_scores_keep_persona_order() -> None:
    scores = [np.array([[0.5, 0.7, 0.5, 0.4], [0.0, 0.0, 0.0, 0.0]])]
    assert labels_above(scores, 0.5) == [((1, 0, 2), ())]
    assert labels_above(scores, 0.0)[0][1] == ()
