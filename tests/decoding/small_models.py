"""Small random models that end their replies, dialogues of many shapes, and what transformers itself generates."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from tests.models.test_selftest import CONFIGURATIONS
from transformers import AutoModelForCausalLM, GenerationConfig

from personalign.data.dialogue import Dialogue, Turn
from personalign.models import LoadedModel, prepare, train_bpe, word_tokenizer
from personalign.prompts import UNSELECTED, Prompter, PromptSettings, structure_texts

PACKED_KINDS = ("llama", "qwen2", "gpt2")
SLIDING_KINDS = ("mistral", "gemma-3", "qwen2-sliding")
PLAIN_KINDS = ("bloom", "mamba", "gpt-neo")

SENTENCE = "i you have a dog cat work at night in the bakery any pets ? yes no . hello how are do like tea"
WORDS = SENTENCE.split()


def tokenizer_of(kind: str) -> Any:
    if kind == "words":
        return word_tokenizer([*WORDS, "none"], structure=structure_texts("en"), language="en")
    return train_bpe([SENTENCE] * 3, vocab_size=290)


@cache
def loaded_model(
    kind: str, *, tokenizer: str = "words", attention: str | None = None, seed: int = 3
) -> LoadedModel:
    """A random model whose head is sharp, so that no two tokens tie, and fond of the end token."""
    tokens = tokenizer_of(tokenizer)
    config = CONFIGURATIONS[kind]()
    config.vocab_size = len(tokens)
    config.max_position_embeddings = 512
    config.tie_word_embeddings = False
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head *= 3.0
        head[tokens.eos_token_id] *= 3.5
    return prepare(model.eval(), tokens, dtype="float32", device=torch.device("cpu"))


def prompter_of(loaded: LoadedModel, *, history: int | None = None) -> Prompter:
    return Prompter(loaded.tokenizer, PromptSettings(history=history, max_tokens=400, reserve=40))


def made_dialogue(
    name: str, *messages: str, persona: Sequence[str] = (), relevant: Sequence[Sequence[int]] | None = None
) -> Dialogue:
    """Messages as `"u: text"` for the user and `"a: text"` for the assistant."""
    turns = tuple(Turn("user" if text[0] == "u" else "assistant", text[3:]) for text in messages)
    labels = None if relevant is None else tuple(map(tuple, relevant))
    return Dialogue(name, tuple(persona), turns, relevant=labels)


def made_dialogues() -> list[Dialogue]:
    """A long one, one that the assistant begins, one without persona, one with two turns in a row by one speaker."""
    return [
        made_dialogue(
            "long",
            "u: hello . any pets ?",
            "a: yes i have a dog .",
            "u: do you work at night ?",
            "a: yes i work in the bakery at night .",
            "u: tea ?",
            "a: no .",
            "u: you like the cat .",
            "a: i do like the cat . are you at work ?",
            persona=("i have a dog .", "i work at night in the bakery .", "i like tea ."),
            relevant=((0,), (1, 2), (), ()),
        ),
        made_dialogue(
            "assistant-first",
            "a: hello you .",
            "u: hello . how are you ?",
            "a: i like tea .",
            persona=("i like tea .", "no pets ."),
            relevant=((), (0,)),
        ),
        made_dialogue("no-persona", "u: any pets ?", "a: no pets .", "u: no ?", "a: no .", relevant=((), ())),
        made_dialogue(
            "in-a-row",
            "u: hello .",
            "u: any tea ?",
            "a: yes .",
            "a: i have tea at work .",
            persona=("you have tea at work .",),
            relevant=((), (0,)),
        ),
    ]


def transformers_reply(
    loaded: LoadedModel, prompt: Sequence[int], *, end_ids: Sequence[int], limit: int, **settings: Any
) -> tuple[list[int], bool]:
    """What `generate()` adds to one prompt, without its end token, and whether there was one."""
    config = GenerationConfig(
        max_new_tokens=limit,
        eos_token_id=list(end_ids),
        pad_token_id=loaded.tokenizer.pad_token_id,
        **settings,
    )
    with torch.no_grad():
        output = loaded.model.generate(
            torch.tensor([list(prompt)]),
            attention_mask=torch.ones(1, len(prompt)).long(),
            generation_config=config,
        )
    tokens = output[0, len(prompt) :].tolist()
    for place, token in enumerate(tokens):
        if token in end_ids:
            return tokens[:place], True
    return tokens, False


def reply_prompts(prompter: Prompter, dialogues: Sequence[Dialogue]) -> list[list[list[int]]]:
    """Per dialogue and assistant turn, the prompt without a highlighted line."""
    return [
        [prompter.reply(item, turn, line=UNSELECTED) for turn in item.reply_indices()] for item in dialogues
    ]
