from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, LlamaConfig, Qwen2Config

from personalign.models import load_tokenizer, train_bpe, word_tokenizer

WORDS = ["i", "have", "a", "dog", ".", "you", "?", "relevant", "##s"]
STRUCTURE = ["Relevant persona:", "Reply:", "\n"]
ENGLISH = word_tokenizer(WORDS, structure=STRUCTURE, language="en")
CHINESE = word_tokenizer(["我有", "一只狗。"], structure=["相关人设:", "\n"], language="zh")
BPE = train_bpe(["i have a dog .", "you have a cat ?"] * 5, vocab_size=300)
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@given(SENTENCES)
def test_words_come_back(sentence: str) -> None:
    encoded = ids(ENGLISH, sentence)
    assert len(encoded) == len(sentence.split())
    assert ENGLISH.decode(encoded) == sentence


@given(st.lists(SENTENCES, min_size=1, max_size=3))
def test_structure_stays_whole(sentences: list[str]) -> None:
    text = "\n".join(f"Relevant persona: {sentence}" for sentence in sentences)
    encoded = ids(ENGLISH, text)
    assert len(encoded) == sum(len(sentence.split()) + 1 for sentence in sentences) + len(sentences) - 1
    assert ENGLISH.decode(encoded) == text


@given(SENTENCES, SENTENCES)
def test_a_prompt_is_a_prefix_of_prompt_and_target(prompt: str, target: str) -> None:
    cue = f"{prompt}\nReply:"
    assert ids(ENGLISH, f"{cue} {target}")[: len(ids(ENGLISH, cue))] == ids(ENGLISH, cue)


@given(st.text(alphabet="我有一只狗。", min_size=1, max_size=12))
def test_chinese_is_characters_without_spaces(sentence: str) -> None:
    encoded = ids(CHINESE, f"相关人设:{sentence}\n")
    assert len(encoded) == len(sentence) + 2
    assert CHINESE.decode(encoded) == f"相关人设:{sentence}\n"
    assert ids(CHINESE, " ".join(sentence)) == ids(CHINESE, sentence)


def test_unknown_words_are_unknown() -> None:
    assert ids(ENGLISH, "i have cats")[-1] == ENGLISH.unk_token_id
    assert ids(CHINESE, "我猫")[-1] == CHINESE.unk_token_id


def test_special_tokens_differ() -> None:
    for tokenizer in (ENGLISH, CHINESE, BPE):
        special = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
        assert len(set(special)) == 3
        assert ENGLISH.decode(special, skip_special_tokens=True) == ""


@given(st.text(max_size=30).filter(lambda text: "<" not in text))
def test_bpe_brings_every_text_back(text: str) -> None:
    assert BPE.decode(ids(BPE, text)) == text


def test_bpe_has_learnt_words() -> None:
    assert len(BPE) == len(BPE.get_vocab()) <= 300
    assert len(ids(BPE, "i have a dog")) == 4


@pytest.mark.parametrize("config", [LlamaConfig, GPT2Config, Qwen2Config])
def test_a_saved_tokenizer_is_the_same(config: Any, tmp_path: Path) -> None:
    """Beside a Qwen2 model AutoTokenizer would rebuild it as a byte-level one."""
    text = "Relevant persona: i have a dog .\n"
    config().save_pretrained(tmp_path)
    for tokenizer in (ENGLISH, CHINESE, BPE):
        tokenizer.save_pretrained(tmp_path)
        loaded = load_tokenizer(tmp_path)
        assert ids(loaded, text) == ids(tokenizer, text)
        assert loaded.decode(ids(loaded, text)) == tokenizer.decode(ids(tokenizer, text))
        assert loaded.eos_token_id == tokenizer.eos_token_id
        assert loaded.pad_token_id == tokenizer.pad_token_id
