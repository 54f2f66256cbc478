"""The trained selector: what it learns, what it may not read, and that it is the same when read again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from personalign.data.dialogue import Dialogue, Turn
from personalign.errors import PersonalignError
from personalign.methods.trained_selector import (
    FILE,
    WEIGHTS,
    SelectorLearner,
    TrainedScorer,
    load_trained,
)

# What is asked never shares a word with the line that answers it: a cosine alone cannot know.
ASKED = {"job": "baker", "pet": "dog", "drink": "tea", "sport": "chess"}
WORDS = [*ASKED, *ASKED.values(), "hello", "fine"]


class WordEncoder:
    """One direction per word; counts what it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        rows = np.array([[text.count(word) for word in WORDS] + [0.1] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def talk(seed: int) -> Dialogue:
    """Two of four topics are asked about, some again, with a greeting between; a line told is not told again."""
    generator = np.random.default_rng(seed)
    persona = tuple(f"i am for {word}" for word in generator.permutation(list(ASKED.values())))
    messages: list[Turn] = []
    relevant: list[tuple[int, ...]] = []
    told: set[str] = set()
    for topic in generator.choice([*ASKED, "greeting"], size=4):
        asked = "hello" if topic == "greeting" else f"your {topic} ?"
        line = f"i am for {ASKED[topic]}" if topic in ASKED and topic not in told else None
        messages += [Turn("user", asked), Turn("assistant", line or "fine")]
        relevant.append(() if line is None else (persona.index(line),))
        told.add(topic)
    return Dialogue(f"d{seed}", persona, tuple(messages), relevant=tuple(relevant))


def trained(count: int = 150, *, seed: int = 1) -> TrainedScorer:
    learner = SelectorLearner([talk(nth) for nth in range(count)], WordEncoder(), language="en")
    return learner.train(seed=seed, progress=lambda: None)


@pytest.fixture(scope="module")
def scorer() -> TrainedScorer:
    return trained()


def test_it_learns_what_follows_what_and_what_was_told(scorer: TrainedScorer) -> None:
    right = []
    for dialogue in (talk(1000 + nth) for nth in range(40)):
        for scores, labels in zip(
            scorer(dialogue, dialogue.reply_indices()), dialogue.relevant or (), strict=True
        ):
            right.append(int(scores.argmax()) == (labels[0] if labels else len(dialogue.persona)))
    # Half of the turns are labelled none.
    assert np.mean(right) > 0.95


def test_scores_are_log_probabilities(scorer: TrainedScorer) -> None:
    dialogue = talk(5)
    scores = scorer(dialogue, dialogue.reply_indices())
    assert [item.shape for item in scores] == [(5,)] * 4
    np.testing.assert_allclose([np.exp(item).sum() for item in scores], 1.0, atol=1e-6)


def test_nothing_at_or_after_the_turn_is_read(scorer: TrainedScorer) -> None:
    dialogue = talk(7)
    for turn in dialogue.reply_indices():
        encoder = WordEncoder()
        fresh = replace(scorer, encoder=encoder, _vectors={})
        garbled = replace(
            dialogue,
            messages=tuple(
                replace(item, content="chess pet") if index >= turn else item
                for index, item in enumerate(dialogue.messages)
            ),
        )
        np.testing.assert_array_equal(scorer(dialogue, [turn])[0], fresh(garbled, [turn])[0])
        assert "chess pet" not in encoder.texts


def test_a_turn_scores_alike_alone_and_with_others(scorer: TrainedScorer) -> None:
    dialogue = talk(9)
    together = scorer(dialogue, dialogue.reply_indices())
    alone = [scorer(dialogue, [turn])[0] for turn in dialogue.reply_indices()]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_the_order_of_lines_does_not_matter(scorer: TrainedScorer) -> None:
    dialogue = talk(11)
    turned = replace(dialogue, persona=dialogue.persona[::-1])
    for first, second in zip(
        scorer(dialogue, dialogue.reply_indices()), scorer(turned, dialogue.reply_indices()), strict=True
    ):
        np.testing.assert_allclose(first[:-1], second[:-1][::-1], atol=1e-5)
        np.testing.assert_allclose(first[-1], second[-1], atol=1e-5)


def test_odd_dialogues(scorer: TrainedScorer) -> None:
    dialogue = talk(3)
    assert [item.tolist() for item in scorer(replace(dialogue, persona=()), [1, 3])] == [[0.0], [0.0]]
    opening = replace(dialogue, messages=(Turn("assistant", "hello"),))
    assert np.isfinite(scorer(opening, [0])[0]).all()
    assert scorer(dialogue, []) == []
    one = replace(dialogue, persona=dialogue.persona[:1])
    assert scorer(one, [1])[0].shape == (2,)


def test_reading_it_again_changes_nothing(scorer: TrainedScorer, tmp_path: Path) -> None:
    scorer.save(tmp_path)
    again = load_trained(tmp_path, WordEncoder())
    dialogue = talk(13)
    for first, second in zip(
        scorer(dialogue, dialogue.reply_indices()), again(dialogue, dialogue.reply_indices()), strict=True
    ):
        np.testing.assert_array_equal(first, second)


@pytest.fixture
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personalign.methods.trained_selector._FEWEST_STEPS", 10)


@pytest.mark.usefixtures("_few_steps")
def test_one_seed_gives_one_selector_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = trained(40)
    assert torch.equal(torch.rand(1), expected)
    second, other = trained(40), trained(40, seed=2)
    dialogue = talk(17)
    turns = dialogue.reply_indices()
    np.testing.assert_array_equal(first(dialogue, turns), second(dialogue, turns))
    assert not np.array_equal(first(dialogue, turns), other(dialogue, turns))


@pytest.mark.usefixtures("_few_steps")
def test_progress_meets_the_announced_steps() -> None:
    learner = SelectorLearner([talk(nth) for nth in range(40)], WordEncoder(), language="en")
    calls: list[None] = []
    learner.train(seed=1, progress=lambda: calls.append(None))
    assert len(calls) == learner.steps
    assert learner.turns == 160


def test_too_few_labels_are_refused() -> None:
    unlabelled = [replace(talk(nth), relevant=((),) * 4) for nth in range(40)]
    with pytest.raises(PersonalignError, match="only 0 training turns are labelled with a line"):
        SelectorLearner(unlabelled, WordEncoder(), language="en")


@pytest.mark.parametrize(
    ("file", "content"),
    [(FILE, b"{"), (FILE, b"{}"), (FILE, b'{"version": 7, "language": "en"}'), (WEIGHTS, b"damaged")],
)
def test_damaged_files_are_named(scorer: TrainedScorer, tmp_path: Path, file: str, content: bytes) -> None:
    scorer.save(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(PersonalignError, match=r"selector\.json.*train it again"):
        load_trained(tmp_path, WordEncoder())
