"""What freely decoded selections mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.prompts.prompt_tokenizers import MAKERS, dialogue, tokenizer_of

from personalign.prompts import Prompter, PromptSettings
from personalign.prompts.reading import read_selection

PERSONA = [
    "I have a dog .",
    "I work at night in a bakery .",
    "3. grade teacher , that is me .",
    "我养了一只狗。",
]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (" I have a dog .", 0),
        ("i have a DOG.", 0),
        ("I have a dog .\nAssistant: yes", 0),
        ("2. something else", 1),
        (" 2.I work at night in a bakery .", 1),
        ("2、我", 1),
        ("I work nights in a bakery", 1),
        ("3. grade teacher , that is me .", 2),
        ("我养了一只 狗。", 3),
        ("none", None),
        ("No persona line is relevant.", None),
        ("9. no such line", None),
        ("0. no such line", None),
        ("2 dogs", None),
        ("", None),
        ("\n\n", None),
    ],
)
def test_reading(text: str, line: int | None) -> None:
    assert read_selection(text, PERSONA) == line


def test_without_persona_nothing_can_be_meant() -> None:
    assert read_selection("1. I have a dog .", []) is None


@given(persona=st.lists(st.text(min_size=1, max_size=20), max_size=5), text=st.text(max_size=30))
def test_any_text_means_a_line_or_none(persona: list[str], text: str) -> None:
    assert read_selection(text, persona) in {None, *range(len(persona))}


@pytest.mark.parametrize("kind", list(MAKERS))
@pytest.mark.parametrize("numbered", [False, True])
def test_every_target_reads_back(kind: str, numbered: bool) -> None:
    if kind == "words" and numbered:
        numbered = False
    prompter = Prompter(tokenizer_of(kind), PromptSettings(numbered=numbered))
    talk = dialogue("u: Any pets ?", "a: Yes", persona=["I have a dog .", "I work at night .", "a grey cat"])
    for line in (None, 0, 1, 2):
        text = prompter.tokenizer.decode(prompter.select_target(talk, line), skip_special_tokens=True)
        assert prompter.read_selection(text, talk) == line
