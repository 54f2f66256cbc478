"""Scores of lines, the bias for none, and the choices that follow."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_arrays
from tests.decoding.small_models import (
    PACKED_KINDS,
    PLAIN_KINDS,
    SLIDING_KINDS,
    loaded_model,
    made_dialogue,
    made_dialogues,
    prompter_of,
)

from personalign.data.dialogue import Dialogue
from personalign.decoding.respond import selection_scores
from personalign.decoding.selection import (
    Choice,
    Scores,
    calibrate_none,
    choose,
    labelled_line,
    oracle_choice,
    random_choice,
)
from personalign.errors import PersonalignError
from personalign.models import LoadedModel
from personalign.prompts import Prompter
from personalign.trees import DialogueTree, score


def naive_scores(loaded: LoadedModel, prompter: Prompter, dialogue: Dialogue, turn: int) -> list[float]:
    """Every choice as a sequence of its own, token after token."""
    prompt, scores = prompter.select(dialogue, turn), []
    for line in [*range(len(dialogue.persona)), None]:
        target = prompter.select_target(dialogue, line)
        with torch.no_grad():
            logits = loaded.model(torch.tensor([prompt + target])).logits[0].double()
        log_probs = logits.log_softmax(dim=-1)
        scores.append(sum(float(log_probs[len(prompt) + i - 1, token]) for i, token in enumerate(target)))
    return scores


def primitive_scores(loaded: LoadedModel, prompter: Prompter, dialogue: Dialogue, turn: int) -> list[float]:
    """Every choice through the scoring primitive, in a tree of this turn alone."""
    tree = DialogueTree()
    for line in [*range(len(dialogue.persona)), None]:
        tree.add(prompter.select(dialogue, turn), prompter.select_target(dialogue, line))
    [branches] = score(loaded.model, [tree], plan=loaded.plan)
    return [float(branch.sum()) for branch in branches]


@pytest.mark.parametrize(
    ("kind", "history"),
    [*((kind, None) for kind in (*PACKED_KINDS, *SLIDING_KINDS, *PLAIN_KINDS)), ("llama", 1), ("llama", 2)],
)
def test_a_score_is_the_log_probability_of_the_whole_target(kind: str, history: int | None) -> None:
    loaded = loaded_model(kind)
    prompter = prompter_of(loaded, history=history)
    dialogues = made_dialogues()
    found = selection_scores(loaded, prompter, dialogues)
    for dialogue, per_turn in zip(dialogues, found, strict=True):
        assert len(per_turn) == len(dialogue.reply_indices())
        for turn, scores in zip(dialogue.reply_indices(), per_turn, strict=True):
            assert scores == pytest.approx(naive_scores(loaded, prompter, dialogue, turn), abs=2e-4)
            assert scores == pytest.approx(primitive_scores(loaded, prompter, dialogue, turn), abs=2e-4)


@pytest.mark.parametrize("budget", [1, 150, 8192])
def test_scores_do_not_depend_on_the_batch(budget: int) -> None:
    loaded = loaded_model("llama")
    prompter = prompter_of(loaded)
    dialogues = made_dialogues()
    together = selection_scores(loaded, prompter, dialogues, budget=budget)
    alone = [
        [
            selection_scores(loaded, prompter, [item], turns=lambda _, turn=turn: [turn])[0][0]
            for turn in item.reply_indices()
        ]
        for item in dialogues
    ]
    for left, right in zip(together, alone, strict=True):
        np.testing.assert_allclose(np.concatenate(left), np.concatenate(right), atol=2e-4)


def test_a_line_that_occurs_twice_scores_the_same_twice() -> None:
    loaded = loaded_model("llama")
    twice = made_dialogue(
        "twice", "u: tea ?", "a: yes .", persona=("i like tea .", "no pets .", "i like tea .")
    )
    [[scores]] = selection_scores(loaded, prompter_of(loaded), [twice])
    assert scores[0] == scores[2]
    assert choose(np.array([1.0, 0.0, 1.0, 0.5])).line == 0


def test_choices_and_their_probabilities() -> None:
    scores = np.array([-1.0, -2.0, -1.5])
    assert choose(scores).line == 0
    assert choose(scores, none_bias=0.4).line == 0
    assert choose(scores, none_bias=0.6).line is None
    assert choose(np.array([-3.0])) == Choice(None, (1.0,))
    expected = np.exp([-1.0, -2.0, -0.9]) / np.exp([-1.0, -2.0, -0.9]).sum()
    assert choose(scores, none_bias=0.6).probabilities == pytest.approx(tuple(expected))


def share_chosen(scores: list[Scores], bias: float) -> float:
    return sum(choose(item, none_bias=bias).line is None for item in scores) / len(scores)


_NUMBER = st.floats(-50, 50, width=32).map(float)
_SCORES = st.integers(1, 5).flatmap(lambda size: st_arrays.arrays(np.float64, size, elements=_NUMBER))


@given(st.lists(_SCORES, min_size=1, max_size=30), st.floats(0, 1))
def test_no_bias_meets_the_share_better_than_the_calibrated_one(scores: list[Scores], share: float) -> None:
    """Compared with every other bias that lets turns choose differently."""
    bias = calibrate_none(scores, share_of_none=share)
    assert np.isfinite(bias)
    margins = [float(item[:-1].max() - item[-1]) for item in scores if len(item) > 1]
    others = [share_chosen(scores, other) for other in [*margins, min(margins, default=0.0) - 1.0]]
    best = min(abs(other - share) for other in others)
    assert abs(share_chosen(scores, bias) - share) <= best + 1e-12


@given(st.lists(_NUMBER, min_size=1, max_size=30, unique=True), st.integers(0, 5), st.floats(0, 1))
def test_the_calibrated_share_is_within_a_turn_of_the_wanted(
    margins: list[float], without_persona: int, share: float
) -> None:
    scores = [np.array([margin, 0.0]) for margin in margins] + [np.array([0.0])] * without_persona
    reached = share_chosen(scores, calibrate_none(scores, share_of_none=share))
    # A turn without persona chooses none whatever is wanted.
    lowest = without_persona / len(scores)
    assert abs(reached - max(share, lowest)) <= 0.5 / len(scores) + 1e-9


def test_neighbouring_margins_can_still_be_told_apart() -> None:
    high = np.nextafter(1.0, 2.0)
    scores = [np.array([1.0, 0.0]), np.array([high, 0.0])]
    assert share_chosen(scores, calibrate_none(scores, share_of_none=0.5)) == 0.5


def test_without_any_persona_every_bias_does() -> None:
    assert calibrate_none([np.array([-2.0])] * 3, share_of_none=0.2) == 0.0


def test_nothing_to_calibrate_on_is_refused() -> None:
    with pytest.raises(PersonalignError, match="without turns"):
        calibrate_none([], share_of_none=0.5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_random_choices_draw_none_at_the_given_rate_and_lines_alike(share: float) -> None:
    draws = 20_000
    generator = np.random.default_rng(1)
    chosen = Counter(random_choice(4, share_of_none=share, generator=generator).line for _ in range(draws))
    for line, rate in [(None, share), *((line, (1 - share) / 4) for line in range(4))]:
        assert abs(chosen[line] / draws - rate) <= 4 * np.sqrt(rate * (1 - rate) / draws)
    drawn = random_choice(4, share_of_none=share, generator=generator)
    assert drawn.probabilities == pytest.approx((*[(1 - share) / 4] * 4, share))


def test_a_random_choice_without_lines_is_none() -> None:
    assert random_choice(0, share_of_none=0.0, generator=np.random.default_rng(1)) == Choice(None, (1.0,))


def test_the_oracle_takes_the_first_labelled_line() -> None:
    long = made_dialogues()[0]
    assert [labelled_line(long, turn) for turn in long.reply_indices()] == [0, 1, None, None]
    assert oracle_choice(long, 3) == Choice(1, (0.0, 1.0, 0.0, 0.0))
    assert oracle_choice(long, 5) == Choice(None, (0.0, 0.0, 0.0, 1.0))


def test_an_oracle_without_labels_is_refused() -> None:
    unlabelled = made_dialogue("bare", "u: tea ?", "a: yes .", persona=("i like tea .",))
    with pytest.raises(PersonalignError, match="dialogue 'bare' has no relevance labels"):
        oracle_choice(unlabelled, 1)
