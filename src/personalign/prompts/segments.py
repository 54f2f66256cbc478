"""From pieces of text to token ids, each piece on its own: no token ever spans two of them."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from personalign.errors import PersonalignError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]

_CACHE_LIMIT = 200_000

# A tokenizer's core is told by an attribute how to read special tokens; two threads would tell it two things.
_CORE = threading.Lock()


def one_line(text: str) -> str:
    """The text with every line break, and the blanks around it, made one space; no blanks at its ends."""
    return " ".join(part for line in text.splitlines() if (part := line.strip()))


class SegmentEncoder:
    """Encodes pieces of text and remembers the results.

    `structure` is the template's own text, in which special tokens are special. `content` is what people
    wrote: text that spells a special token stays text there, so no message can close its own turn.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._structure = _remembered(lambda text: _encode(tokenizer, text, people_wrote_it=False))
        self._content = _remembered(lambda text: _encode(tokenizer, text, people_wrote_it=True))

    def structure(self, text: str) -> Ids:
        return self._structure(text)

    def content(self, text: str) -> Ids:
        return self._content(text)


def _encode(tokenizer: "PreTrainedTokenizerBase", text: str, *, people_wrote_it: bool) -> list[int]:
    if not tokenizer.is_fast:
        slow: list[int] = tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=people_wrote_it
        )
        return slow
    # The core alone: what transformers wraps around it takes ten times as long as a short piece of text needs.
    core = tokenizer.backend_tokenizer
    with _CORE:
        core.no_truncation()
        core.no_padding()
        core.encode_special_tokens = people_wrote_it
        ids: list[int] = core.encode(text, add_special_tokens=False).ids
        core.encode_special_tokens = False
    return ids


def _remembered(encode: Callable[[str], list[int]]) -> Callable[[str], Ids]:
    cache: dict[str, Ids] = {}

    def lookup(text: str) -> Ids:
        ids = cache.get(text)
        if ids is None:
            if len(cache) >= _CACHE_LIMIT:
                cache.clear()
            ids = cache[text] = tuple(encode(text))
        return ids

    return lookup


def require_encodable(
    tokenizer: "PreTrainedTokenizerBase", encoder: SegmentEncoder, texts: tuple[str, ...]
) -> None:
    """Raise PersonalignError when the tokenizer loses a text that the template relies on."""
    for text in texts:
        ids = encoder.structure(text)
        if not ids or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids):
            raise PersonalignError(
                f"the tokenizer cannot write {text!r}, which the prompt template needs; it gives "
                f"{list(ids)}. Add it with tokenizer.add_tokens([...]) before the model is built: "
                "personalign.prompts.structure_texts(language) lists all such texts"
            )


def starts_words_itself(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer marks the start of any text as the start of a word, as Llama 2's does."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer.encode("a", add_special_tokens=False))
    return bool(tokens) and str(tokens[0]).startswith("\N{LOWER ONE EIGHTH BLOCK}")


def leading_bos(tokenizer: "PreTrainedTokenizerBase") -> Ids:
    """The beginning-of-text token, if the tokenizer puts one before a text by itself."""
    ids = tokenizer.encode("")
    return (ids[0],) if ids and ids[0] == tokenizer.bos_token_id else ()


def end_of_text(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Raises PersonalignError where the tokenizer has no end token."""
    if tokenizer.eos_token_id is None:
        raise PersonalignError(
            "the tokenizer has no end-of-text token, and without one a reply never ends; set "
            'tokenizer.eos_token (for example "<eos>"), or "eos_token" in the model\'s tokenizer_config.json'
        )
    return int(tokenizer.eos_token_id)
