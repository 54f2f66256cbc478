"""The plain trunk-first template: what it says, and which prompts begin with which."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.prompts.prompt_tokenizers import (
    MAKERS,
    choices,
    dialogue,
    dialogues,
    gpt2_like,
    tokenizer_of,
    word_level,
)
from transformers import PreTrainedTokenizerBase

from personalign.data.dialogue import Dialogue, Turn
from personalign.errors import PersonalignError
from personalign.prompts import UNSELECTED, Language, Prompter, PromptSettings, segments, structure_texts
from personalign.prompts.segments import one_line

KINDS = list(MAKERS)
LONG = PromptSettings(max_tokens=100_000)
PETS = dialogue("u: Any pets ?", "a: Yes , a dog .", "u: work ?", "a: at night .")


def prompter_of(kind: str, recipe: PromptSettings = LONG) -> Prompter:
    return Prompter(tokenizer_of(kind), recipe)


@pytest.mark.parametrize("kind", ["gpt2", "llama3"])
def test_the_text_of_each_prompt(kind: str) -> None:
    prompter = prompter_of(kind)
    begin = "<begin>" if kind == "llama3" else ""
    trunk = (
        f"{begin}Persona:\n I have a dog .\n I work at night .\n"
        "User: Any pets ?\nAssistant: Yes , a dog .<end>User: work ?\n"
    )
    decode = prompter.tokenizer.decode
    assert decode(prompter.select(PETS, 3)) == trunk + "Relevant persona:"
    assert decode(prompter.select_target(PETS, 1)) == " I work at night .\n"
    assert decode(prompter.select_target(PETS, None)) == " none\n"
    chosen = trunk + "Relevant persona: I work at night .\nAssistant:"
    assert decode(prompter.reply(PETS, 3, line=1)) == chosen
    assert decode(prompter.reply(PETS, 3, line=None)) == trunk + "Relevant persona: none\nAssistant:"
    assert decode(prompter.reply(PETS, 3, line=UNSELECTED)) == trunk + "Assistant:"
    assert decode(prompter.reply_target("at night .")) == " at night .<end>"
    without = trunk.replace(" I have a dog .\n I work at night .\n", "")
    assert decode(prompter.without_persona(PETS, 3)) == without + "Assistant:"


def test_chinese_text() -> None:
    prompter = Prompter(tokenizer_of("gpt2"), PromptSettings(language="zh"))
    talk = dialogue("u: 你做什么工作？", "a: 面包店。", persona=["我在面包店上夜班。"])
    assert prompter.tokenizer.decode(prompter.reply(talk, 1, line=0) + prompter.reply_target("面包店。")) == (
        "人物设定：\n我在面包店上夜班。\n用户：你做什么工作？\n相关设定：我在面包店上夜班。\n助手：面包店。<end>"
    )


def test_numbered_lines() -> None:
    prompter = prompter_of("gpt2", PromptSettings(numbered=True))
    text = prompter.tokenizer.decode(prompter.select(PETS, 1))
    assert text.startswith("Persona:\n 1.I have a dog .\n 2.I work at night .\n")
    assert prompter.tokenizer.decode(prompter.select_target(PETS, 1)) == " 2.I work at night .\n"


def test_word_level_keeps_every_structural_text_one_token() -> None:
    prompter = prompter_of("words")
    single = [prompter.tokenizer.encode(text, add_special_tokens=False) for text in structure_texts("en")]
    assert [len(ids) for ids in single] == [1] * 6
    tokens = prompter.tokenizer.convert_ids_to_tokens(prompter.reply(PETS, 1, line=0))
    persona = "Persona: \n I have a dog . \n I work at night . \n"
    reply = "User: Any pets ? \n Relevant persona: I have a dog . \n Assistant:"
    assert tokens == _words(f"{persona} {reply}")


def _words(text: str) -> list[str]:
    joined = text.replace("Relevant persona:", "Relevant_persona:").split(" ")
    return [word.replace("Relevant_persona:", "Relevant persona:") for word in joined]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(drawn=dialogues(), language=st.sampled_from(["en", "zh"]), numbered=st.booleans())
def test_prompts_hang_off_one_another(kind: str, drawn: Dialogue, language: Language, numbered: bool) -> None:
    if kind == "words":
        language = "en"
    prompter = _cached(kind, language, numbered)
    trunk = prompter.reply(drawn, drawn.reply_indices()[-1], line=UNSELECTED)
    for turn in drawn.reply_indices():
        select = prompter.select(drawn, turn)
        opened = prompter.reply(drawn, turn, line=UNSELECTED)
        cue = prompter.tokenizer.encode(
            "Assistant:" if language == "en" else "助手：", add_special_tokens=False
        )
        assert opened[-len(cue) :] == cue
        history = opened[: -len(cue)]
        assert select[: len(history)] == history
        assert trunk[: len(opened)] == opened
        if turn != drawn.reply_indices()[-1]:
            # The history holds the reply exactly as training supervises it.
            said = opened + prompter.reply_target(drawn.messages[turn].content)
            assert trunk[: len(said)] == said
        for line in choices(drawn):
            chosen = select + prompter.select_target(drawn, line)
            assert prompter.reply(drawn, turn, line=line) == chosen + cue


@cache
def _cached(kind: str, language: Language, numbered: bool) -> Prompter:
    return prompter_of(kind, PromptSettings(language=language, numbered=numbered, max_tokens=100_000))


@pytest.mark.parametrize("kind", ["gpt2", "llama3"])
@settings(max_examples=40, deadline=None)
@given(drawn=dialogues())
def test_decoding_gives_back_the_text_whatever_it_holds(kind: str, drawn: Dialogue) -> None:
    prompter = _cached(kind, "en", False)
    turn = drawn.reply_indices()[-1]
    text = "Persona:\n" + "".join(f" {one_line(line)}\n" for line in drawn.persona)
    for message in drawn.messages[:turn]:
        said = one_line(message.content)
        speaker, end = ("User:", "\n") if message.role == "user" else ("Assistant:", "<end>")
        text += speaker + (f" {said}" if said else "") + end
    begin = "<begin>" if kind == "llama3" else ""
    assert prompter.tokenizer.decode(prompter.select(drawn, turn)) == begin + text + "Relevant persona:"


@settings(max_examples=30, deadline=None)
@given(drawn=dialogues())
def test_what_people_write_ends_no_turn(drawn: Dialogue) -> None:
    prompter = _cached("gpt2", "en", False)
    turn = drawn.reply_indices()[-1]
    replies = sum(message.role == "assistant" for message in drawn.messages[:turn])
    assert prompter.select(drawn, turn).count(prompter.end_ids[0]) == replies
    assert prompter.reply_target(drawn.messages[turn].content).count(prompter.end_ids[0]) == 1


@settings(max_examples=30, deadline=None)
@given(drawn=dialogues(), gold=st.text(max_size=9))
def test_no_prompt_reads_the_reply_or_what_follows(drawn: Dialogue, gold: str) -> None:
    prompter = _cached("gpt2", "en", False)
    turn = drawn.reply_indices()[0]
    other = Dialogue(
        drawn.id, drawn.persona, (*drawn.messages[:turn], Turn("assistant", gold)), relevant=((),)
    )
    unborn = Dialogue(drawn.id, drawn.persona, drawn.messages[:turn])
    for ask in (
        prompter.select,
        prompter.without_persona,
        lambda d, t: prompter.reply(d, t, line=UNSELECTED),
    ):
        assert ask(drawn, turn) == ask(other, turn) == ask(unborn, turn)


@settings(max_examples=30, deadline=None)
@given(drawn=dialogues())
def test_without_persona_is_the_prompt_of_nobody(drawn: Dialogue) -> None:
    prompter = _cached("gpt2", "en", False)
    nobody = Dialogue(drawn.id, (), drawn.messages)
    for turn in drawn.reply_indices():
        assert prompter.without_persona(drawn, turn) == prompter.reply(nobody, turn, line=UNSELECTED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_reads_back(kind: str) -> None:
    prompter = prompter_of(kind)
    target = prompter.reply_target("Yes , a dog .")
    assert target[-1] in prompter.end_ids
    assert prompter.decode_reply(target) == "Yes , a dog ."
    assert prompter.decode_reply([*target, *target]) == "Yes , a dog ."
    assert prompter.decode_reply(target[:-1]) == "Yes , a dog ."
    assert prompter.decode_reply([]) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_chosen_line_ends_with_the_selection_end(kind: str) -> None:
    prompter = prompter_of(kind)
    for line in (None, 0, 1):
        target = prompter.select_target(PETS, line)
        assert target[-1] in prompter.selection_end_ids
        assert not set(target[:-1]) & set(prompter.selection_end_ids)


def test_turns_and_lines_that_do_not_exist() -> None:
    prompter = prompter_of("gpt2")
    with pytest.raises(ValueError, match="the user's"):
        prompter.select(PETS, 0)
    with pytest.raises(ValueError, match="4 messages"):
        prompter.select(PETS, 5)
    with pytest.raises(ValueError, match="2 persona lines"):
        prompter.select_target(PETS, 2)
    with pytest.raises(ValueError, match="2 persona lines"):
        prompter.reply(PETS, 1, line=-1)


def test_a_tokenizer_that_cannot_serve_is_refused() -> None:
    endless = gpt2_like()
    endless.eos_token = None
    with pytest.raises(PersonalignError, match=r"tokenizer\.eos_token"):
        Prompter(endless, LONG)
    with pytest.raises(PersonalignError, match=r"'\\n'.*structure_texts"):
        Prompter(word_level(without=["\n"]), LONG)
    with pytest.raises(PersonalignError, match="'Persona:'"):
        Prompter(word_level(without=["Persona:"]), LONG)


def test_each_text_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prompter = Prompter(gpt2_like(), LONG)
    calls: list[str] = []
    encode = segments._encode

    def counted(tokenizer: PreTrainedTokenizerBase, text: str, *, people_wrote_it: bool) -> list[int]:
        calls.append(text)
        return encode(tokenizer, text, people_wrote_it=people_wrote_it)

    monkeypatch.setattr(segments, "_encode", counted)
    talk = dialogue(*[f"{'ua'[i % 2]}: number {i}" for i in range(30)])

    def ask_for_everything(asked: Dialogue) -> None:
        for turn in asked.reply_indices():
            prompter.select(asked, turn)
            prompter.reply(asked, turn, line=0)
            prompter.reply_target(asked.messages[turn].content)

    ask_for_everything(talk)
    assert set(calls) > {f" number {i}" for i in range(30)}
    assert len(calls) == len(set(calls)) <= 30 + 2 + 1
    calls.clear()
    ask_for_everything(Dialogue("again", talk.persona, talk.messages))
    assert not calls
    assert prompter.prefix_report(talk).shared == prompter.prefix_report(talk).turns == 15
