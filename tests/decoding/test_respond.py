"""Select, then generate: the same replies as turn by turn, and nothing of the answer in the question."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.decoding.small_models import (
    PACKED_KINDS,
    PLAIN_KINDS,
    SLIDING_KINDS,
    loaded_model,
    made_dialogue,
    made_dialogues,
    prompter_of,
    transformers_reply,
)

from personalign.data.dialogue import Dialogue, Turn
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Response, Selection, respond, selection_scores, without_persona
from personalign.decoding.selection import Scores, choose
from personalign.decoding.served import Reply
from personalign.errors import PersonalignError
from personalign.models import LoadedModel
from personalign.prompts import UNSELECTED, Prompter

GREEDY = DecodingSettings(max_new_tokens=16)
SAMPLING = DecodingSettings(strategy="sample", temperature=1.5, top_p=0.9, max_new_tokens=10, seed=2)


def like_longer_lines(dialogue: Dialogue, turns: Sequence[int]) -> list[Scores]:
    """A scorer that is no model."""
    lengths = [float(len(line)) for line in dialogue.persona]
    return [np.array([*lengths, 12.0 + turn]) for turn in turns]


SELECTIONS = {
    "predicted": Selection("predicted"),
    "biased": Selection("predicted", none_bias=3.0),
    "scorer": Selection("predicted", scorer=like_longer_lines),
    "random": Selection("random", share_of_none=0.4, seed=1),
    "unselected": Selection("unselected"),
    "oracle": Selection("oracle"),
}


def expected_reply(
    loaded: LoadedModel, prompter: Prompter, dialogue: Dialogue, response: Response
) -> tuple[str, bool, int]:
    """What transformers writes after the prompt of this response, by itself and without any cache of ours."""
    line = UNSELECTED if response.choice is None else response.choice.line
    prompt = prompter.reply(dialogue, response.turn, line=line)
    tokens, ended = transformers_reply(loaded, prompt, end_ids=prompter.end_ids, limit=GREEDY.max_new_tokens)
    return prompter.decode_reply(tokens), ended, len(tokens)


def assert_replies_are_those_of_transformers(
    loaded: LoadedModel, prompter: Prompter, dialogues: Sequence[Dialogue], responses: Sequence[Response]
) -> None:
    by_id = {dialogue.id: dialogue for dialogue in dialogues}
    for response in responses:
        expected = expected_reply(loaded, prompter, by_id[response.dialogue], response)
        assert (response.text, response.ended, response.tokens) == expected


@pytest.mark.parametrize(
    ("name", "history"), [*((name, None) for name in SELECTIONS), ("predicted", 1), ("predicted", 2)]
)
def test_replies_rest_on_the_selection(name: str, history: int | None) -> None:
    loaded = loaded_model("llama")
    prompter = prompter_of(loaded, history=history)
    dialogues = made_dialogues()
    responses = respond(loaded, prompter, dialogues, selection=SELECTIONS[name], decoding=GREEDY)
    assert [(item.dialogue, item.turn) for item in responses] == [
        (dialogue.id, turn) for dialogue in dialogues for turn in dialogue.reply_indices()
    ]
    assert_replies_are_those_of_transformers(loaded, prompter, dialogues, responses)


@pytest.mark.parametrize("kind", [*PACKED_KINDS, *SLIDING_KINDS, *PLAIN_KINDS])
def test_every_kind_of_model_responds(kind: str) -> None:
    loaded = loaded_model(kind)
    assert (loaded.plan.mode == "packed") == (kind not in PLAIN_KINDS)
    prompter = prompter_of(loaded)
    dialogues = made_dialogues()
    responses = respond(loaded, prompter, dialogues, selection=Selection(), decoding=GREEDY)
    assert_replies_are_those_of_transformers(loaded, prompter, dialogues, responses)


def test_a_model_for_flex_attention_decodes() -> None:
    loaded = loaded_model("llama")
    flexible = replace(
        loaded, model=copy.deepcopy(loaded.model), plan=replace(loaded.plan, attention="flex_attention")
    )
    flexible.model.set_attn_implementation("flex_attention")
    found, expected = (
        respond(item, prompter_of(item), made_dialogues(), selection=Selection(), decoding=GREEDY)
        for item in (flexible, loaded)
    )
    assert found == expected
    assert flexible.model.config._attn_implementation == "flex_attention"


def lines_of(responses: Sequence[Response]) -> list[int | None]:
    assert all(item.choice is not None for item in responses)
    return [None if item.choice is None else item.choice.line for item in responses]


def test_each_strategy_chooses_as_it_says() -> None:
    loaded = loaded_model("llama")
    prompter = prompter_of(loaded)
    dialogues = made_dialogues()

    def chosen(name: str) -> list[int | None]:
        return lines_of(respond(loaded, prompter, dialogues, selection=SELECTIONS[name], decoding=GREEDY))

    scores = [item for row in selection_scores(loaded, prompter, dialogues) for item in row]
    assert chosen("predicted") == [choose(item).line for item in scores]
    assert chosen("biased") == [choose(item, none_bias=3.0).line for item in scores]
    assert chosen("scorer") == [
        choose(item).line
        for dialogue in dialogues
        for item in like_longer_lines(dialogue, dialogue.reply_indices())
    ]
    assert chosen("oracle") == [0, 1, None, None, None, 0, None, None, None, 0]
    unselected = respond(loaded, prompter, dialogues, selection=SELECTIONS["unselected"], decoding=GREEDY)
    assert all(item.choice is None for item in unselected)


def test_random_selection_draws_none_at_its_rate_and_does_not_depend_on_the_batch() -> None:
    loaded = loaded_model("llama")
    prompter = prompter_of(loaded)
    short = DecodingSettings(max_new_tokens=1)
    many = [
        made_dialogue(f"number-{number}", "u: tea ?", "a: yes .", persona=("i like tea .", "no pets ."))
        for number in range(300)
    ]
    selection = Selection("random", share_of_none=0.4, seed=1)
    lines = lines_of(respond(loaded, prompter, many, selection=selection, decoding=short))
    for line, rate in ((None, 0.4), (0, 0.3), (1, 0.3)):
        assert abs(lines.count(line) / 300 - rate) <= 4 * np.sqrt(rate * (1 - rate) / 300)
    some = lines_of(respond(loaded, prompter, many[40:20:-1], selection=selection, decoding=short))
    assert some == lines[40:20:-1]
    other = replace(selection, seed=2)
    assert lines_of(respond(loaded, prompter, many, selection=other, decoding=short)) != lines


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLING, DecodingSettings(strategy="beam", max_new_tokens=8)])
@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_batches_and_single_turns_give_the_same_replies(kind: str, decoding: DecodingSettings) -> None:
    loaded = loaded_model(kind)
    prompter = prompter_of(loaded)
    dialogues = made_dialogues()

    def replies(items: Sequence[Dialogue], **others: Any) -> list[tuple[str, int, str, bool]]:
        found = respond(loaded, prompter, items, selection=Selection(), decoding=decoding, **others)
        return [(item.dialogue, item.turn, item.text, item.ended) for item in found]

    together = replies(dialogues)
    assert replies(dialogues, budget=1) == together
    assert sorted(replies(dialogues[::-1])) == sorted(together)
    assert [
        reply
        for dialogue in dialogues
        for turn in dialogue.reply_indices()
        for reply in replies([dialogue], turns=lambda _, turn=turn: [turn])
    ] == together


def with_garbage(dialogue: Dialogue, *, at: int) -> Dialogue:
    """The message at this index, and all later ones, say something else."""
    messages = tuple(
        turn if index < at else Turn(turn.role, f"work cat {index} bakery bakery .")
        for index, turn in enumerate(dialogue.messages)
    )
    return replace(dialogue, messages=messages)


def with_other_labels(dialogue: Dialogue) -> Dialogue:
    lines = len(dialogue.persona)
    labels = tuple(() if label or not lines else (lines - 1,) for label in dialogue.relevant or ())
    return replace(dialogue, relevant=labels)


def answers(dialogue: Dialogue, turn: int, selection: Selection) -> list[Response]:
    loaded = loaded_model("llama")
    return respond(
        loaded, prompter_of(loaded), [dialogue], selection=selection, decoding=GREEDY, turns=lambda _: [turn]
    )


@pytest.mark.parametrize("name", SELECTIONS)
def test_no_token_of_the_gold_reply_reaches_its_prompts(name: str) -> None:
    for dialogue in made_dialogues():
        for turn in dialogue.reply_indices():
            changed = with_garbage(dialogue, at=turn)
            assert answers(changed, turn, SELECTIONS[name]) == answers(dialogue, turn, SELECTIONS[name])


@pytest.mark.parametrize("name", [name for name in SELECTIONS if name != "oracle"])
def test_no_label_reaches_a_prompt(name: str) -> None:
    loaded = loaded_model("llama")
    before, after, without = (
        respond(loaded, prompter_of(loaded), items, selection=SELECTIONS[name], decoding=GREEDY)
        for items in (
            made_dialogues(),
            [with_other_labels(item) for item in made_dialogues()],
            [replace(item, relevant=None) for item in made_dialogues()],
        )
    )
    assert before == after == without


def test_a_gold_reply_is_history_to_later_turns_alone() -> None:
    loaded = loaded_model("llama")
    prompter = prompter_of(loaded)
    long = made_dialogues()[0]
    turns = long.reply_indices()
    found = respond(loaded, prompter, [long], selection=Selection(), decoding=GREEDY)
    for place, turn in enumerate(turns):
        only = replace(
            long,
            messages=tuple(
                Turn(item.role, "work cat bakery .") if index == turn else item
                for index, item in enumerate(long.messages)
            ),
        )
        changed = respond(loaded, prompter, [only], selection=Selection(), decoding=GREEDY)
        assert [item.text for item in changed[: place + 1]] == [item.text for item in found[: place + 1]]
        later = [item.choice for item in changed[place + 1 :]], [item.choice for item in found[place + 1 :]]
        assert place == len(turns) - 1 or later[0] != later[1]


def test_the_oracle_heeds_labels() -> None:
    loaded = loaded_model("llama")
    prompter = prompter_of(loaded)
    dialogues = made_dialogues()
    before, after = (
        lines_of(respond(loaded, prompter, items, selection=SELECTIONS["oracle"], decoding=GREEDY))
        for items in (dialogues, [with_other_labels(item) for item in dialogues])
    )
    assert before != after


def test_a_turn_that_does_not_exist_yet_is_answered() -> None:
    loaded = loaded_model("llama")
    prompter = prompter_of(loaded)
    whole = made_dialogues()[0]
    open_one = replace(whole, messages=whole.messages[:3], relevant=None)
    [answer] = respond(
        loaded,
        prompter,
        [open_one],
        selection=Selection(),
        decoding=GREEDY,
        turns=lambda item: [len(item.messages)],
    )
    [expected] = respond(
        loaded, prompter, [whole], selection=Selection(), decoding=GREEDY, turns=lambda _: [3]
    )
    assert answer == expected


def test_without_persona_the_persona_does_not_matter() -> None:
    loaded = loaded_model("llama")
    prompter = prompter_of(loaded)
    dialogues = made_dialogues()
    found = without_persona(loaded, prompter, dialogues, decoding=GREEDY)
    assert found == without_persona(
        loaded,
        prompter,
        [replace(item, persona=("no .",), relevant=None) for item in dialogues],
        decoding=GREEDY,
    )
    for dialogue, replies in zip(dialogues, found, strict=True):
        for turn, reply in zip(dialogue.reply_indices(), replies, strict=True):
            prompt = prompter.without_persona(dialogue, turn)
            tokens, ended = transformers_reply(
                loaded, prompt, end_ids=prompter.end_ids, limit=GREEDY.max_new_tokens
            )
            assert reply == Reply(prompter.decode_reply(tokens), ended, len(tokens))


def test_progress_counts_turns() -> None:
    loaded = loaded_model("llama")
    steps: list[tuple[int, int]] = []
    respond(
        loaded,
        prompter_of(loaded),
        made_dialogues(),
        selection=Selection(),
        decoding=DecodingSettings(max_new_tokens=1),
        budget=1,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert [total for _, total in steps] == [10] * 4
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    assert steps[-1] == (10, 10)


def test_dialogues_without_turns_to_answer_are_passed_over() -> None:
    loaded = loaded_model("llama")
    silent = made_dialogue("silent", "u: hello .")
    assert respond(loaded, prompter_of(loaded), [silent], selection=Selection(), decoding=GREEDY) == []
    assert selection_scores(loaded, prompter_of(loaded), [silent]) == [[]]


@pytest.mark.parametrize("kind", ["llama", "bloom"])
def test_replies_that_would_outgrow_the_model_are_refused(kind: str) -> None:
    loaded = loaded_model(kind)
    short = replace(loaded, plan=replace(loaded.plan, longest=60))
    with pytest.raises(PersonalignError, match="takes 60 at most"):
        respond(
            short, prompter_of(loaded), made_dialogues(), selection=Selection("unselected"), decoding=GREEDY
        )
