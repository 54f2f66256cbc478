"""PAL's three separate prompts."""

from functools import cache

import pytest
from hypothesis import given, settings
from tests.prompts import chat_templates as templates
from tests.prompts.prompt_tokenizers import dialogue, dialogues, gpt2_like, llama3_like

from personalign.data.dialogue import Dialogue
from personalign.prompts import UNSELECTED, Prompter, PromptSettings
from personalign.prompts.wording import WORDINGS, Language

PETS = dialogue("u: Any pets ?", "a: Yes , a dog .", "u: work ?", "a: at night .")
PERSONA = "Persona:\n 1.I have a dog .\n 2.I work at night .\n"
HISTORY = "Conversation:\nUser: Any pets ?\nAssistant: Yes , a dog .\nUser: work ?\n"
ENGLISH = WORDINGS["en"]


@cache
def prompter_of(language: Language = "en", chat_template: str | None = None) -> Prompter:
    tokenizer = gpt2_like() if chat_template is None else llama3_like(chat_template)
    return Prompter(tokenizer, PromptSettings(template="paper", language=language, max_tokens=100_000))


def test_the_text_of_each_prompt() -> None:
    prompter = prompter_of()
    decode = prompter.tokenizer.decode
    assert decode(prompter.select(PETS, 3)) == f"{ENGLISH.paper_select}\n{PERSONA}{HISTORY}Relevant persona:"
    assert decode(prompter.select_target(PETS, 1)) == " 2.I work at night .<end>"
    assert decode(prompter.select_target(PETS, None)) == " No persona line is relevant.<end>"
    assert decode(prompter.reply(PETS, 3, line=1)) == (
        f"{ENGLISH.paper_reply}\nPay attention above all to: 2.I work at night .\n{PERSONA}{HISTORY}"
        "Relevant persona: 2.I work at night .\nAssistant:"
    )
    assert decode(prompter.reply(PETS, 3, line=None)).count("No persona line is relevant.\n") == 2
    unselected = f"{ENGLISH.paper_reply}\n{PERSONA}{HISTORY}Assistant:"
    assert decode(prompter.reply(PETS, 3, line=UNSELECTED)) == unselected
    assert decode(prompter.reply_target("at\nnight .")) == " at night .<end>"
    assert decode(prompter.without_persona(PETS, 3)) == f"{ENGLISH.paper_without}\n{HISTORY}Assistant:"
    assert prompter.selection_end_ids == prompter.end_ids == (prompter.tokenizer.eos_token_id,)


def test_chinese_text() -> None:
    prompter = prompter_of("zh")
    talk = dialogue("u: 你做什么工作？", "a: 面包店。", persona=["我养了一只狗。"])
    assert prompter.tokenizer.decode(prompter.reply(talk, 1, line=0)) == (
        f"{WORDINGS['zh'].paper_reply}\n请特别注意：1.我养了一只狗。\n人物设定：\n1.我养了一只狗。\n"
        "对话：\n用户：你做什么工作？\n相关设定：1.我养了一只狗。\n助手："
    )


def test_one_user_message_on_a_chat_model() -> None:
    prompter = prompter_of("en", templates.CHATML)
    decode = prompter.tokenizer.decode
    assert decode(prompter.select(PETS, 3) + prompter.select_target(PETS, 0)) == (
        f"<im_start>user\n{ENGLISH.paper_select}\n{PERSONA}{HISTORY}Relevant persona:<im_end>\n"
        "<im_start>assistant\n1.I have a dog .<im_end>"
    )
    assert decode(prompter.reply_target("yes")) == "yes<im_end>"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_prompt_asks_for_the_none_sentence_that_the_target_uses(language: Language) -> None:
    wording = WORDINGS[language]
    assert wording.paper_none in wording.paper_select


@settings(max_examples=30, deadline=None)
@given(drawn=dialogues())
def test_only_the_reply_prompt_of_a_line_shows_it_apart(drawn: Dialogue) -> None:
    prompter = prompter_of()
    turn = drawn.reply_indices()[0]
    named = Dialogue("named", ("I am Zed .", "I eat Q ."), drawn.messages)
    zed = str(prompter.tokenizer.decode(prompter.reply(named, turn, line=0)))
    assert (zed.count("1.I am Zed .\n"), zed.count("2.I eat Q .\n")) == (3, 1)
    shown = str(prompter.tokenizer.decode(prompter.reply(named, turn, line=UNSELECTED)))
    assert (shown.count("1.I am Zed .\n"), shown.count("2.I eat Q .\n")) == (1, 1)
    assert "Zed" not in str(prompter.tokenizer.decode(prompter.without_persona(named, turn)))
