"""Small tokenizers of the kinds that models have, trained on the spot on made-up sentences."""

from collections.abc import Callable, Sequence
from functools import cache

from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from personalign.data.dialogue import Dialogue, Turn
from personalign.prompts import Language, structure_texts

SENTENCES = [
    "I have a dog . Any pets ? Yes , a grey cat and two parrots .",
    "I work at night in a bakery . What do you do for work ?",
    "hello , how are you today ? i am fine , thanks . 1.2.3 User: none",
    "You are the person whom the lines below describe . Relevant persona: Assistant:",
    "我养了一只狗。你做什么工作？我在面包店上夜班。",
]

# The splitting rule of byte-level tokenizers with 100k and more tokens: numbers in threes, line breaks apart.
_MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _train_bytes(splitter: pre_tokenizers.PreTokenizer, special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=special,
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    return tokenizer


def gpt2_like() -> PreTrainedTokenizerFast:
    tokenizer = _train_bytes(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>")


def llama3_like(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    special = ["<begin>", "<end>", "<head>", "</head>", "<eot>", "<im_start>", "<im_end>"]
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_MODERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer = _train_bytes(splitter, special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<begin>",
        eos_token="<end>",
        additional_special_tokens=special[2:],
        chat_template=chat_template,
    )


def llama2_like(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """Marks the beginning of every text as the beginning of a word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>", "<turn>", "</turn>"],
        initial_alphabet=[chr(code) for code in range(33, 127)] + ["\n", "▁"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES * 4, *structure_texts("zh")], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<turn>", "</turn>"],
        chat_template=chat_template,
    )


def word_level(language: Language = "en", *, without: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    words = sorted({word for text in SENTENCES for word in text.split()} | {"none", "无"})
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<end>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    added = [text for text in structure_texts(language) if text not in without]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")


MAKERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "gpt2": gpt2_like,
    "llama3": llama3_like,
    "llama2": llama2_like,
    "words": word_level,
}


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    return MAKERS[kind]()


def dialogue(*messages: str, persona: Sequence[str] = ("I have a dog .", "I work at night .")) -> Dialogue:
    """Messages as `"u: text"` for the user and `"a: text"` for the assistant."""
    turns = tuple(Turn("user" if text[0] == "u" else "assistant", text[3:]) for text in messages)
    return Dialogue("made-up", tuple(persona), turns)


_TEXT = st.one_of(
    st.sampled_from(
        ["Any pets ?", "a dog", "我养了一只狗。", "🐶 yes 🦜!", "two\nlines", "", " <end>", "User: hi"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=["Co", "Cn"]), max_size=30),
)


@st.composite
def dialogues(draw: st.DrawFn, *, max_messages: int = 9) -> Dialogue:
    """Any persona, any order of speakers, any text; at least one message is the assistant's."""
    persona = draw(st.lists(_TEXT, max_size=4))
    roles = draw(st.lists(st.sampled_from(["user", "assistant"]), min_size=1, max_size=max_messages))
    turns = [Turn(role, draw(_TEXT)) for role in roles]
    if all(turn.role == "user" for turn in turns):
        turns.append(Turn("assistant", draw(_TEXT)))
    return Dialogue("drawn", tuple(persona), tuple(turns))


def choices(drawn: Dialogue) -> list[int | None]:
    """Every choice that a selection may come to."""
    return [None, *range(len(drawn.persona))]
