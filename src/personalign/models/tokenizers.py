"""Tokenizers for backbones from scratch: words or characters of a known vocabulary, and byte-level BPE."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

Language = Literal["en", "zh"]

UNKNOWN, BEGIN, END, PADDING = "<unk>", "<bos>", "<eos>", "<pad>"
# Where the decoder puts no space; no word begins with it.
NO_SPACE = "\u0000"


def word_tokenizer(
    vocabulary: Sequence[str], *, structure: Sequence[str], language: Language
) -> PreTrainedTokenizerFast:
    """One token per word (English, split at white space) or per character (Chinese, white space dropped).

    `structure` are texts of the prompt that stay single tokens, such as "Relevant persona:" and "\\n".
    Chinese entries of the vocabulary are taken apart into characters. Decoding gives words with single spaces
    between them, none around a line break; Chinese without spaces.
    """
    characters = language == "zh"
    entries = [character for entry in vocabulary for character in entry] if characters else list(vocabulary)
    tokens = dict.fromkeys([UNKNOWN, BEGIN, END, PADDING, *structure, *entries])
    core = Tokenizer(
        tokenizer_models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=UNKNOWN)
    )
    if characters:
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\s+"), "removed"), pre_tokenizers.Split(Regex("."), "isolated")]
        )
        core.decoder = decoders.Fuse()
    else:
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        core.decoder = decoders.Sequence(
            [
                decoders.WordPiece(prefix=NO_SPACE, cleanup=False),
                decoders.Fuse(),
                decoders.Replace(Regex(" ?\n ?"), "\n"),
            ]
        )
    core.add_special_tokens([UNKNOWN, BEGIN, END, PADDING])
    core.add_tokens([AddedToken(text, normalized=False) for text in structure])
    return _wrap(core, bos_token=BEGIN, eos_token=END, pad_token=PADDING, unk_token=UNKNOWN)


def train_bpe(texts: Iterable[str], *, vocab_size: int, lowercase: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2's (Radford et al. 2019), trained on `texts`; every text can be encoded.

    `lowercase` drops case, on training and on encoding: a small model has none to spare.
    """
    core = Tokenizer(tokenizer_models.BPE())
    if lowercase:
        core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BEGIN, END, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer=trainer)
    return _wrap(core, bos_token=BEGIN, eos_token=END, pad_token=PADDING)


def plain_tokens(tokenizer: Any) -> list[int]:
    """The ids of a tokenizer that stand for text."""
    special = set(tokenizer.all_special_ids)
    return [index for index in range(len(tokenizer)) if index not in special]


def _wrap(core: Tokenizer, **special: Any) -> PreTrainedTokenizerFast:
    # Cleaning up would eat the spaces before punctuation, which are tokens' borders here.
    return PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, padding_side="right", **special
    )
