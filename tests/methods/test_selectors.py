"""Encoders as selectors: what they score, what telling a line costs it, and what they may not read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tests.methods.made_runs import baker

from personalign.data.dialogue import Dialogue, Turn
from personalign.methods.recipe import Selector
from personalign.methods.selectors import EncoderScorer, open_scorer

TOPICS = ("dog", "bakery", "tea")


class TopicEncoder:
    """One direction per topic, one for everything else; counts what it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        rows = []
        for text in texts:
            vector = np.array([text.count(topic) for topic in TOPICS] + [0.1], dtype=np.float32)
            rows.append(vector / np.linalg.norm(vector))
        return np.stack(rows)


def talk() -> Dialogue:
    return Dialogue(
        "d",
        ("my dog .", "the bakery ."),
        (
            Turn("user", "a dog ?"),
            Turn("assistant", "yes a dog ."),
            Turn("user", "dog or bakery ?"),
            Turn("assistant", "bakery ."),
        ),
    )


def test_a_lines_score_is_its_likeness_to_the_last_message() -> None:
    first, second = EncoderScorer(TopicEncoder())(talk(), [1, 3])
    assert first.shape == second.shape == (3,)
    assert first[0] == pytest.approx(1.0, abs=1e-6)
    assert first[1] == pytest.approx(0.01 / 1.01, abs=1e-6)
    assert second[0] == pytest.approx(second[1])
    assert first[-1] == second[-1] == 0.0


def test_what_was_told_is_discounted() -> None:
    plain, discounted = (
        EncoderScorer(TopicEncoder(), discount=share)(talk(), [1, 3]) for share in (0.0, 0.5)
    )
    # Nothing was told before the first reply.
    np.testing.assert_allclose(plain[0], discounted[0])
    np.testing.assert_allclose(plain[1][:-1] - discounted[1][:-1], [0.5 * 1.0, 0.5 * 0.01 / 1.01], atol=1e-6)
    assert discounted[1].argmax() == 1


def test_nothing_at_or_after_the_turn_is_read() -> None:
    """Neither scored nor shown to the encoder."""
    for turn in baker().reply_indices():
        scores = EncoderScorer(TopicEncoder(), discount=1.0)(baker(), [turn])
        garbled = replace(
            baker(),
            messages=tuple(
                replace(item, content="tea bakery dog") if index >= turn else item
                for index, item in enumerate(baker().messages)
            ),
        )
        encoder = TopicEncoder()
        np.testing.assert_array_equal(scores[0], EncoderScorer(encoder, discount=1.0)(garbled, [turn])[0])
        assert "tea bakery dog" not in encoder.texts


def test_a_text_is_encoded_once() -> None:
    encoder = TopicEncoder()
    scorer = EncoderScorer(encoder, discount=1.0)
    scorer(talk(), [1, 3])
    scorer(talk(), [1, 3])
    assert len(encoder.texts) == len(set(encoder.texts))


def test_odd_dialogues() -> None:
    scorer = EncoderScorer(TopicEncoder(), discount=1.0)
    assert [item.tolist() for item in scorer(replace(talk(), persona=()), [1, 3])] == [[0.0], [0.0]]
    first = replace(talk(), messages=(Turn("assistant", "a dog ."), Turn("assistant", "tea .")))
    opening, following = scorer(first, [0, 1])
    assert opening.tolist() == [0.0, 0.0, 0.0]
    assert following[0] < following[1] < 0
    assert scorer(talk(), []) == []


def test_the_lm_needs_no_scorer() -> None:
    assert open_scorer(Selector(kind="lm"), Path(".")) is None


@pytest.mark.parametrize(("kind", "discount"), [("encoder", 0.0), ("encoder-untold", 0.7)])
def test_kinds_of_encoders(kind: str, discount: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personalign.models.encoder.load_encoder", lambda source: TopicEncoder())
    scorer = open_scorer(Selector(kind=kind, discount=0.7), Path("."))  # type: ignore[arg-type]
    assert isinstance(scorer, EncoderScorer)
    assert scorer.discount == discount
