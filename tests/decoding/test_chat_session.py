import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.decoding.tiny_chat_models import chat_model, prompter_of, talk

from personalign.data.dialogue import Dialogue, Turn
from personalign.decoding.chat import ChatSession, Reply
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Response, Selection, respond
from personalign.decoding.selection import Scores
from personalign.errors import PersonalignError
from personalign.models import LoadedModel
from personalign.prompts import Prompter

USER = ["hello ?", "any pets ?", "what do you do ?", "do you like a cat ?", "and a dog ?"]
GREEDY = DecodingSettings(max_new_tokens=8)
STRATEGIES = {
    "greedy": GREEDY,
    "sample": DecodingSettings("sample", max_new_tokens=8, temperature=0.8, top_k=20, top_p=0.9, seed=4),
    "beam": DecodingSettings("beam", max_new_tokens=6, beams=3),
}


def by_first_word(dialogue: Dialogue, turns: Sequence[int]) -> list[Scores]:
    """A selector that is not the model: prefers lines that share words with the last message."""
    words = [set(dialogue.messages[turn - 1].content.split()) for turn in turns]
    lines = [set(line.split()) for line in dialogue.persona]
    return [np.array([*(len(line & said) for line in lines), 0.5]) for said in words]


def from_scratch(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogue: Dialogue,
    selection: Selection,
    decoding: DecodingSettings,
) -> Response:
    [response] = respond(
        loaded,
        prompter,
        [dialogue],
        selection=selection,
        decoding=decoding,
        turns=lambda item: [len(item.messages)],
    )
    return response


def assert_same(reply: Reply, response: Response) -> None:
    assert (reply.text, reply.ended, reply.tokens) == (response.text, response.ended, response.tokens)
    if response.choice is None or reply.choice is None:
        assert reply.choice is response.choice
    else:
        assert reply.choice.line == response.choice.line
        assert reply.choice.probabilities == pytest.approx(response.choice.probabilities, abs=1e-4)


def extended(dialogue: Dialogue, role: str, text: str) -> Dialogue:
    return replace(dialogue, messages=(*dialogue.messages, Turn(role, text)))  # type: ignore[arg-type]


def converse(session: ChatSession, *, check: Any = None, persona: tuple[str, ...] | None = None) -> Dialogue:
    dialogue = talk() if persona is None else talk(persona=persona)
    for text in USER:
        dialogue = extended(dialogue, "user", text)
        reply = session.reply(dialogue, session.select(dialogue))
        if check is not None:
            check(dialogue, reply)
        dialogue = extended(dialogue, "assistant", reply.text or "yes .")
    return dialogue


SELECTIONS = {
    "lm": Selection(none_bias=0.3),
    "encoder": Selection(scorer=by_first_word, none_bias=0.1),
    "random": Selection("random", share_of_none=0.3, seed=2),
    "unselected": Selection("unselected"),
}


@pytest.mark.parametrize("selection", list(SELECTIONS))
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_a_chat_gives_the_replies_that_respond_gives(strategy: str, selection: str) -> None:
    loaded = chat_model()
    prompter = prompter_of(loaded)
    settings = SELECTIONS[selection], STRATEGIES[strategy]
    session = ChatSession(loaded, prompter, selection=settings[0], decoding=settings[1])
    replies = []

    def check(dialogue: Dialogue, reply: Reply) -> None:
        assert_same(reply, from_scratch(loaded, prompter, dialogue, *settings))
        replies.append(reply.text)

    converse(session, check=check)
    assert len(set(replies)) > 1


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ("gpt2", {}),
        ("llama", {"numbered": True}),
        ("qwen2", {"template": "paper", "max_tokens": 512}),
        ("qwen2", {"history": 2}),
        ("qwen2", {"max_tokens": 104}),
    ],
)
def test_whatever_the_model_and_the_prompts(shape: str, settings: dict[str, Any]) -> None:
    kind = "bytes" if settings.get("template") == "paper" or settings.get("numbered") else "words"
    loaded = chat_model(shape, tokenizer=kind, max_positions=2048)
    longest = 8 * settings.get("max_tokens", 256) if kind == "bytes" else settings.get("max_tokens", 256)
    prompter = prompter_of(loaded, **{**settings, "max_tokens": min(longest, 2000)})
    session = ChatSession(loaded, prompter, selection=Selection(), decoding=GREEDY)
    trimmed = []

    def check(dialogue: Dialogue, reply: Reply) -> None:
        assert_same(reply, from_scratch(loaded, prompter, dialogue, Selection(), GREEDY))
        trimmed.append(prompter.window(dialogue, len(dialogue.messages)).first)

    converse(session, check=check)
    assert (trimmed[-1] > 0) == ("history" in settings or settings.get("max_tokens") == 104)


@pytest.mark.parametrize("mode", ["separate", "single"])
def test_models_that_cannot_run_trees_chat_as_well(mode: str) -> None:
    loaded = chat_model(mode=mode)
    prompter = prompter_of(loaded)
    for decoding in STRATEGIES.values():
        session = ChatSession(loaded, prompter, selection=Selection(), decoding=decoding)
        assert not session.streams()
        dialogue, pieces = talk("any pets ?"), list[str]()
        reply = session.reply(dialogue, session.select(dialogue), on_text=pieces.append)
        assert_same(reply, from_scratch(loaded, prompter, dialogue, Selection(), decoding))
        assert "".join(pieces) == reply.text


def test_turns_can_be_taken_back_and_the_persona_changed() -> None:
    loaded = chat_model()
    prompter = prompter_of(loaded)
    session = ChatSession(loaded, prompter, selection=Selection(), decoding=GREEDY)
    whole = converse(session)
    others = [
        replace(whole, messages=whole.messages[:3]),
        replace(whole, messages=whole.messages[:3]),
        replace(whole, messages=whole.messages[:7], persona=("i like a cat .",)),
        replace(whole, messages=whole.messages[:7], persona=()),
        whole,
    ]
    for dialogue in others:
        reply = session.reply(dialogue, session.select(dialogue))
        assert_same(reply, from_scratch(loaded, prompter, dialogue, Selection(), GREEDY))


def test_another_seed_draws_another_reply_to_the_same_choice() -> None:
    session = ChatSession(
        loaded := chat_model(), prompter_of(loaded), selection=Selection(), decoding=STRATEGIES["sample"]
    )
    dialogue = talk("any pets ?")
    choice = session.select(dialogue)
    texts = {
        session.reply(dialogue, choice, decoding=replace(session.decoding, seed=seed)).text
        for seed in range(5)
    }
    assert len(texts) > 1
    assert session.reply(dialogue, choice).text == session.reply(dialogue, choice).text


def test_a_turn_computes_only_what_is_new() -> None:
    loaded = chat_model()
    prompter = prompter_of(loaded)
    session = ChatSession(
        loaded, prompter, selection=Selection(), decoding=DecodingSettings(max_new_tokens=1)
    )
    computed: list[int] = []

    def count(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        computed.append(kwargs["input_ids"].shape[1])

    handle = loaded.model.register_forward_pre_hook(count, with_kwargs=True)
    dialogue = talk(*(["hello ? what do you do ?", "yes i work as a cook ."] * 4), "any pets ?")
    session.reply(dialogue, session.select(dialogue))
    first = sum(computed)
    computed.clear()
    longer = extended(extended(dialogue, "assistant", "yes ."), "user", "a dog ?")
    session.reply(longer, session.select(longer))
    handle.remove()
    trunk = len(prompter.reply(dialogue, len(dialogue.messages), line=None))
    assert first > trunk
    new = len(prompter.select(longer, len(longer.messages))) - len(
        prompter.select(dialogue, len(dialogue.messages))
    )
    choices = sum(len(prompter.select_target(longer, line)) for line in (0, 1, 2, None))
    # The new messages, the choices after a cue, and the cue and the one token of the reply.
    assert sum(computed) <= new + 1 + choices + 2
    assert sum(computed) < trunk


def test_the_cache_does_not_grow_for_ever() -> None:
    loaded = chat_model()
    prompter = prompter_of(loaded, max_tokens=100)
    session = ChatSession(loaded, prompter, selection=Selection(), decoding=GREEDY)
    dialogue, sizes = talk(), []
    for turn in range(40):
        dialogue = extended(dialogue, "user", USER[turn % len(USER)])
        reply = session.reply(dialogue, session.select(dialogue))
        dialogue = extended(dialogue, "assistant", reply.text or "no .")
        sizes.append(session.cached_tokens)
    assert max(sizes) < 1400
    assert any(later < earlier for earlier, later in itertools.pairwise(sizes))
    before = replace(dialogue, messages=dialogue.messages[:-1])
    assert_same(reply, from_scratch(loaded, prompter, before, Selection(), GREEDY))


@pytest.mark.parametrize("tokenizer", ["words", "bytes"])
def test_the_pieces_of_a_stream_are_the_reply(tokenizer: str) -> None:
    loaded = chat_model(tokenizer=tokenizer)
    session = ChatSession(loaded, prompter_of(loaded), selection=Selection("unselected"), decoding=GREEDY)
    dialogue = talk("any pets ?")
    several = False
    for seed in range(12):
        pieces: list[str] = []
        decoding = DecodingSettings("sample", max_new_tokens=16, seed=seed, temperature=20.0)
        reply = session.reply(dialogue, None, decoding=decoding, on_text=pieces.append)
        assert "".join(pieces) == reply.text
        several |= sum(map(bool, pieces)) > 3
    assert several


class StoppedError(Exception):
    pass


def test_a_reply_that_was_stopped_leaves_nothing_behind() -> None:
    loaded = chat_model()
    prompter = prompter_of(loaded)
    session = ChatSession(loaded, prompter, selection=Selection(), decoding=GREEDY)
    dialogue = talk("any pets ?")
    choice = session.select(dialogue)

    def stop(piece: str) -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        session.reply(dialogue, choice, on_text=stop)
    assert_same(
        session.reply(dialogue, choice), from_scratch(loaded, prompter, dialogue, Selection(), GREEDY)
    )
    hooks = [hook for module in loaded.model.modules() for hook in module._forward_pre_hooks.values()]
    assert hooks == []


def test_a_message_that_can_never_fit_is_refused() -> None:
    loaded = chat_model()
    session = ChatSession(loaded, prompter_of(loaded, max_tokens=80), selection=Selection(), decoding=GREEDY)
    with pytest.raises(PersonalignError, match="more than the 48 tokens"):
        session.select(talk("yes " * 60))


def test_a_reply_that_could_outgrow_the_model_is_refused() -> None:
    loaded = chat_model("gpt2", max_positions=96)
    session = ChatSession(
        loaded, prompter_of(loaded), selection=Selection(), decoding=DecodingSettings(max_new_tokens=90)
    )
    with pytest.raises(PersonalignError, match="takes 96 at most"):
        session.reply(talk("any pets ?"), session.select(talk("any pets ?")))
