"""Over-long input loses its oldest turns, and nothing else, in every template."""

from functools import cache
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.prompts import chat_templates as templates
from tests.prompts.prompt_tokenizers import (
    choices,
    dialogue,
    dialogues,
    gpt2_like,
    llama3_like,
    tokenizer_of,
    word_level,
)
from transformers import PreTrainedTokenizerFast

from personalign.data.dialogue import Dialogue, Turn
from personalign.errors import PersonalignError
from personalign.prompts import UNSELECTED, Prompter, PromptSettings, Window
from personalign.prompts.settings import Template
from personalign.prompts.truncation import choose_window

MODELS = {
    "gpt2": gpt2_like,
    "words": word_level,
    "chatml": lambda: llama3_like(templates.CHATML),
    "moved": lambda: llama3_like(templates.MOVED_LAST),
    "no-system": lambda: llama3_like(templates.NO_SYSTEM),
}
KINDS = [(kind, template) for kind in MODELS for template in ("trunk-first", "paper") if kind != "words"] + [
    ("words", "trunk-first")
]


@cache
def prompter_of(kind: str, template: Template, budget: int, history: int | None = None) -> Prompter:
    recipe = PromptSettings(template=template, max_tokens=budget + 10, reserve=10, history=history)
    return Prompter(_tokenizer(kind), recipe)


@cache
def _tokenizer(kind: str) -> PreTrainedTokenizerFast:
    return MODELS[kind]()


def every_prompt(prompter: Prompter, talk: Dialogue, turn: int) -> list[list[int]]:
    replies = [prompter.reply(talk, turn, line=line) for line in (*choices(talk), UNSELECTED)]
    return [prompter.select(talk, turn), prompter.without_persona(talk, turn), *replies]


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    fixed=st.integers(0, 20),
    budget=st.integers(0, 60),
    history=st.one_of(st.none(), st.integers(1, 14)),
)
def test_the_longest_window_that_fits(
    lengths: list[int], fixed: int, budget: int, history: int | None
) -> None:
    turn = len(lengths)
    starts = list(accumulate(lengths, initial=0))

    def length(first: int) -> int:
        return fixed + starts[turn] - starts[first]

    window = choose_window(turn, history=history, budget=budget, length=length)
    allowed = [first for first in range(turn) if history is None or turn - first <= history]
    fitting = [first for first in allowed if length(first) <= budget]
    assert window.fits == bool(fitting)
    assert window.first == (fitting[0] if fitting else turn - 1)
    assert window.dropped_by_history == allowed[0]
    assert window.dropped_by_history + window.trimmed == window.first


def test_nothing_said_yet() -> None:
    assert choose_window(0, history=3, budget=5, length=lambda first: 5) == Window(0, 0, 0, True)
    assert choose_window(0, history=3, budget=4, length=lambda first: 5) == Window(0, 0, 0, False)


@pytest.mark.parametrize(("kind", "template"), KINDS)
@settings(max_examples=25, deadline=None)
@given(
    drawn=dialogues(),
    budgets=st.tuples(st.integers(20, 700), st.integers(20, 700)).map(sorted),
    history=st.one_of(st.none(), st.integers(1, 5)),
)
def test_prompts_keep_to_the_budget(
    kind: str, template: Template, drawn: Dialogue, budgets: list[int], history: int | None
) -> None:
    tight, loose = (prompter_of(kind, template, budget, history) for budget in budgets)
    before = 0
    for turn in drawn.reply_indices():
        window = tight.window(drawn, turn)
        lengths = [len(prompt) for prompt in every_prompt(tight, drawn, turn)]
        if window.fits:
            assert max(lengths) <= tight.settings.budget
        else:
            assert window.first == max(0, turn - 1)
        wider = loose.window(drawn, turn)
        assert wider.first <= window.first
        assert wider.fits or not window.fits
        assert before <= window.first <= max(0, turn - 1)
        assert window.dropped_by_history == (max(0, turn - history) if history else 0)
        assert window.trimmed == window.first - window.dropped_by_history
        before = window.first


@pytest.mark.parametrize(("kind", "template"), KINDS)
def test_persona_and_last_turn_stay(kind: str, template: Template) -> None:
    talk = dialogue(
        *[f"{'ua'[index % 2]}: hello , how are you today ? number {index} ." for index in range(20)],
        persona=["I have a dog .", "I work at night ."],
    )
    if kind == "words":
        talk = Dialogue(
            talk.id, talk.persona, tuple(Turn(t.role, "hello , how are you") for t in talk.messages)
        )
    full = prompter_of(kind, template, 100_000)
    budget = max(len(prompt) for prompt in every_prompt(full, talk, 19)) * 7 // 10
    tight = prompter_of(kind, template, budget)
    window = tight.window(talk, 19)
    assert window.fits
    assert 0 < window.trimmed < 18
    text = str(tight.tokenizer.decode(tight.reply(talk, 19, line=1)))
    assert "I have a dog ." in text
    assert text.count("I work at night .") == (3 if template == "paper" else 2)
    if kind != "words":
        assert f"number {window.first} ." in text
        assert f"number {window.first - 1} ." not in text
        assert "number 18 ." in text
    # One turn more would not have fitted, give or take the room that is kept for an opening.
    wider = Dialogue(talk.id, talk.persona, talk.messages[window.first - 1 :])
    assert max(len(p) for p in every_prompt(full, wider, 19 - window.first + 1)) > budget - 30


def test_history_counts_messages() -> None:
    talk = dialogue("u: one", "a: two", "u: three", "a: four", "u: five", "a: six")
    prompter = prompter_of("gpt2", "trunk-first", 1000, 3)
    text = str(prompter.tokenizer.decode(prompter.select(talk, 5)))
    assert "User: three\nAssistant: four<end>User: five\n" in text
    assert "two" not in text
    assert prompter.window(talk, 5) == Window(2, 2, 0, True)
    # The window of the last turn starts elsewhere, so the two before it share nothing with it.
    assert prompter.prefix_report(talk).broken == 2


def test_a_turn_that_does_not_fit_is_reported() -> None:
    talk = dialogue("u: hello", "a: hi", "u: " + "how are you today ? " * 30, "a: well")
    prompter = prompter_of("gpt2", "trunk-first", 100)
    assert prompter.window(talk, 1) == Window(0, 0, 0, True)
    assert prompter.window(talk, 3) == Window(2, 0, 2, False)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"history": 0}, "history is 0"),
        ({"reserve": 0}, "reserve is 0"),
        ({"max_tokens": 64}, "0 < reserve < max_tokens"),
        ({"template": "papers"}, "trunk-first, paper"),
        ({"language": "fr"}, "en, zh"),
    ],
)
def test_settings_that_cannot_work(wrong: dict[str, object], word: str) -> None:
    with pytest.raises(PersonalignError, match=word):
        PromptSettings(**wrong)  # type: ignore[arg-type]


def test_the_hash_changes_with_whatever_changes_a_prompt() -> None:
    tokenizer = tokenizer_of("gpt2")
    recipes = [
        PromptSettings(),
        PromptSettings(template="paper"),
        PromptSettings(language="zh"),
        PromptSettings(history=3),
        PromptSettings(max_tokens=512),
        PromptSettings(reserve=32),
        PromptSettings(numbered=True),
    ]
    chats = [llama3_like(template) for template in (templates.CHATML, templates.HEADED)]
    hashes = [Prompter(tokenizer, recipe).hash for recipe in recipes]
    hashes += [Prompter(chat, PromptSettings()).hash for chat in chats]
    assert len(set(hashes)) == len(hashes)
    assert Prompter(gpt2_like(), PromptSettings()).hash == hashes[0]
    assert all(len(value) == 64 for value in hashes)
