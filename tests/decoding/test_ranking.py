"""Ranking candidates on one tree: the scores of every candidate run alone."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from tests.decoding.small_models import (
    PACKED_KINDS,
    PLAIN_KINDS,
    loaded_model,
    made_dialogues,
    prompter_of,
)

from personalign.data.dialogue import Dialogue, Turn
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.ranking import TOO_LONG, Ranking, rank_candidates
from personalign.decoding.respond import Selection, respond
from personalign.errors import PersonalignError
from personalign.models import LoadedModel
from personalign.prompts import UNSELECTED, Prompter, PromptSettings


def with_candidates(dialogue: Dialogue) -> Dialogue:
    """Five for every turn but the second: other replies of the dialogue and its partner, one of them twice."""
    messages = [turn.content for turn in dialogue.messages]
    lists = []
    for nth, turn in enumerate(dialogue.reply_indices()):
        others = [text for text in messages if text != messages[turn]]
        lists.append(() if nth == 1 else (*others[:3], *others[:1], messages[turn]))
    return replace(dialogue, candidates=tuple(lists))


def alone(loaded: LoadedModel, prompter: Prompter, dialogue: Dialogue, ranking: Ranking) -> list[float]:
    """One sequence per candidate, through nothing but the model."""
    line = UNSELECTED if ranking.choice is None else ranking.choice.line
    prompt = list(prompter.reply(dialogue, ranking.turn, line=line))
    scores = []
    for candidate in ranking.candidates:
        target = list(prompter.reply_target(candidate))
        with torch.no_grad():
            logits = loaded.model(input_ids=torch.tensor([[*prompt, *target]])).logits[0]
        log_probs = logits.double().log_softmax(-1)[len(prompt) - 1 : -1]
        scores.append(float(log_probs.gather(1, torch.tensor(target)[:, None]).sum()))
    return scores


@pytest.mark.parametrize("kind", [*PACKED_KINDS, *PLAIN_KINDS])
@pytest.mark.parametrize("strategy", ["unselected", "predicted", "random"])
def test_scores_are_those_of_candidates_run_alone(kind: str, strategy: str) -> None:
    loaded = loaded_model(kind)
    prompter = prompter_of(loaded)
    dialogues = [with_candidates(dialogue) for dialogue in made_dialogues()]
    selection = Selection(strategy)  # type: ignore[arg-type]
    rankings = rank_candidates(loaded, prompter, dialogues, selection=selection)
    by_id = {dialogue.id: dialogue for dialogue in dialogues}
    expected = [(d.id, turn) for d in dialogues for n, turn in enumerate(d.reply_indices()) if n != 1]
    assert [(ranking.dialogue, ranking.turn) for ranking in rankings] == expected
    for ranking in rankings:
        dialogue = by_id[ranking.dialogue]
        scores = alone(loaded, prompter, dialogue, ranking)
        assert ranking.scores == pytest.approx(scores, abs=1e-3)
        assert ranking.candidates[ranking.gold] == dialogue.messages[ranking.turn].content
        assert len(ranking.candidates) == len(set(ranking.candidates))


def test_a_split_tree_ranks_the_same_and_choices_are_those_of_a_reply() -> None:
    loaded = loaded_model(PACKED_KINDS[0])
    prompter = prompter_of(loaded)
    dialogues = [with_candidates(dialogue) for dialogue in made_dialogues()]
    whole = rank_candidates(loaded, prompter, dialogues, selection=Selection())
    parts = rank_candidates(loaded, prompter, dialogues, selection=Selection(), budget=64)
    for one, other in zip(whole, parts, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)
    replies = respond(
        loaded, prompter, dialogues, selection=Selection(), decoding=DecodingSettings(max_new_tokens=1)
    )
    chosen = {(reply.dialogue, reply.turn): reply.choice for reply in replies}
    for ranking in whole:
        choice = chosen[ranking.dialogue, ranking.turn]
        assert ranking.choice is not None
        assert choice is not None
        assert ranking.choice.line == choice.line


def test_ties_are_lost() -> None:
    ranking = Ranking("x", 1, ("a", "b", "c"), (-1.0, -0.5, -0.5), 2, None)
    assert ranking.rank == 2
    assert ranking.best == "b"


def test_without_candidates_there_is_nothing_to_rank() -> None:
    loaded = loaded_model(PACKED_KINDS[0])
    dialogue = Dialogue("x", (), (Turn("user", "a"), Turn("assistant", "b")))
    with pytest.raises(PersonalignError, match="add the field 'candidates'"):
        rank_candidates(loaded, prompter_of(loaded), [dialogue], selection=Selection("unselected"))


def test_turns_that_are_too_long_are_left_out_and_counted() -> None:
    loaded = loaded_model(PACKED_KINDS[0])
    dialogues = [with_candidates(dialogue) for dialogue in made_dialogues()]
    whole = rank_candidates(loaded, prompter_of(loaded), dialogues, selection=Selection("unselected"))
    first = whole[0]
    dialogue = dialogues[0]
    assert first.dialogue == dialogue.id
    prompt = prompter_of(loaded).reply(dialogue, first.turn, line=UNSELECTED)
    longest = max(
        len(prompter_of(loaded).reply(item, ranking.turn, line=UNSELECTED))
        for ranking in whole
        for item in dialogues
        if item.id == ranking.dialogue
    )
    words = " ".join(["hello"] * (longest + 20 - len(prompt)))
    lists = list(dialogue.candidates or ())
    lists[0] = (words, *lists[0])
    dropped = Counter[str]()
    limited = replace(loaded, plan=replace(loaded.plan, longest=longest + 12))
    found = rank_candidates(
        limited,
        prompter_of(loaded),
        [replace(dialogue, candidates=tuple(lists)), *dialogues[1:]],
        selection=Selection("unselected"),
        dropped=dropped,
    )
    assert dropped == {TOO_LONG: 1}
    assert [item.turn for item in found] == [item.turn for item in whole[1:]]
    for one, other in zip(found, whole[1:], strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)
    narrow = Prompter(loaded.tokenizer, PromptSettings(max_tokens=16, reserve=8))
    counted = Counter[str]()
    with pytest.raises(PersonalignError, match="every turn is too long for this model, with prompts of 8"):
        rank_candidates(loaded, narrow, dialogues, selection=Selection("unselected"), dropped=counted)
