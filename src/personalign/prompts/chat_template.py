"""A model's own chat template, asked for the text around the messages and never shown the messages.

The template renders place holders; what stands between them is tokenised apart from what people wrote, and
remembered per sequence of roles. So a message cannot close its own turn, a template cannot rewrite a message,
and one rendering serves every dialogue of the same shape.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Literal, NamedTuple

from personalign.errors import PersonalignError
from personalign.prompts.segments import Ids, SegmentEncoder, end_of_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ChatRole = Literal["system", "user", "assistant"]

# Templates that print today's date would give another prompt every day; this one is part of the hash.
PINNED_DATE = date(2025, 1, 1)

_DATE_CODES = ("%d", "%m", "%b", "%B", "%Y", "%y", "%a", "%A", "%j", "%H", "%M", "%S")
_PLACE_HOLDER = re.compile("\uf8f0(\\d+)\uf8f1")


class Piece(NamedTuple):
    """Part of a message: the template's own words if `literal`, otherwise what somebody wrote."""

    text: str
    literal: bool = False


class Block(NamedTuple):
    """One message as the chat template sees it."""

    role: ChatRole
    pieces: tuple[Piece, ...]


class _Slot(NamedTuple):
    """Where a message goes, by its number. The blanks before it are tokenised with it, as in running text."""

    message: int
    gap: str


class _Skeleton(NamedTuple):
    parts: tuple[Ids | _Slot, ...]


@dataclass(frozen=True, slots=True)
class ChatTraits:
    """What probing the template found.

    `takes_system`: a system message is rendered. `user_first`: the first message must be the user's. `gap`:
    the blanks before an assistant's text; `end`: the tokens after it, up to the one that ends the turn.
    """

    takes_system: bool
    user_first: bool
    gap: str
    end: Ids
    end_ids: Ids


class ChatTemplate:
    """Turns blocks into prompts that end where the assistant begins to write.

    Raises PersonalignError when the template cannot render a plain conversation.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", encoder: SegmentEncoder) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._source = _pinned_clock() + tokenizer.get_chat_template()
        self._skeletons: dict[tuple[ChatRole, ...], _Skeleton] = {}
        self.traits = self._probe()

    def prompt(self, blocks: Sequence[Block]) -> list[int]:
        """Token ids of the blocks and of what the template puts before the next assistant's text."""
        ids: list[int] = []
        for part in self._skeleton(tuple(block.role for block in blocks)).parts:
            ids.extend(self._fill(part, blocks[part.message]) if isinstance(part, _Slot) else part)
        return ids

    def _fill(self, slot: _Slot, block: Block) -> Ids:
        ids: Ids = ()
        gap = slot.gap
        for text, literal in block.pieces:
            if text:
                ids += (self._encoder.structure if literal else self._encoder.content)(gap + text)
                gap = ""
        return ids

    def _skeleton(self, roles: tuple[ChatRole, ...]) -> _Skeleton:
        if roles not in self._skeletons:
            rendered = self._render(roles, generation=True)
            if rendered is None:
                raise PersonalignError(
                    f"the tokenizer's chat template cannot render the messages {', '.join(roles)}; "
                    "set tokenizer.chat_template to one that can, or to None for the plain-text template"
                )
            self._skeletons[roles] = self._parse(rendered)
        return self._skeletons[roles]

    def _parse(self, rendered: str) -> _Skeleton:
        # Odd items are the captured message numbers.
        items = _PLACE_HOLDER.split(rendered)
        parts: list[Ids | _Slot] = []
        for at in range(0, len(items), 2):
            body = items[at].rstrip(" ")
            parts.append(self._encoder.structure(body))
            if at + 1 < len(items):
                parts.append(_Slot(int(items[at + 1]), items[at][len(body) :]))
        return _Skeleton(tuple(parts))

    def _render(self, roles: Sequence[ChatRole], *, generation: bool) -> str | None:
        """The conversation with place holders for its messages; None if the template refuses or loses one."""
        from jinja2 import TemplateError

        messages = [{"role": role, "content": f"\uf8f0{index}\uf8f1"} for index, role in enumerate(roles)]
        try:
            rendered = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._source,
                tokenize=False,
                add_generation_prompt=generation,
                date_string=PINNED_DATE.strftime("%d %b %Y"),
                enable_thinking=False,
            )
        except TemplateError:
            return None
        found = sorted(int(index) for index in _PLACE_HOLDER.findall(rendered))
        return str(rendered) if found == list(range(len(roles))) else None

    def _probe(self) -> ChatTraits:
        plain = self._render(("user", "assistant"), generation=False)
        if plain is None:
            raise PersonalignError(
                "the tokenizer's chat template cannot render a user's and an assistant's message; "
                "set tokenizer.chat_template to one that can, or to None for the plain-text template"
            )
        before, _, after = _PLACE_HOLDER.split(plain)[-3:]
        end = self._end(after)
        eos = self._tokenizer.eos_token_id
        return ChatTraits(
            takes_system=self._accepts("system", "user", "assistant", "user"),
            user_first=not self._accepts("assistant", "user"),
            gap=before[len(before.rstrip(" ")) :],
            end=end,
            end_ids=tuple(dict.fromkeys(end[-1:] if eos is None else (end[-1], int(eos)))),
        )

    def _accepts(self, *roles: ChatRole) -> bool:
        return self._render(roles, generation=True) is not None

    def _end(self, after: str) -> Ids:
        """The tokens after an assistant's text up to the first special one; else the end token."""
        ids = self._encoder.structure(after)
        special = {*self._tokenizer.all_special_ids, *_special_added(self._tokenizer)}
        at = next((at for at, token in enumerate(ids) if token in special), None)
        return (end_of_text(self._tokenizer),) if at is None else ids[: at + 1]


def _special_added(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return [index for index, token in tokenizer.added_tokens_decoder.items() if token.special]


def _pinned_clock() -> str:
    """A macro that hides the renderer's own `strftime_now`, which transformers lets nobody replace."""
    codes = "".join(f"|replace('{code}', '{PINNED_DATE.strftime(code)}')" for code in _DATE_CODES)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{codes} }}}}{{%- endmacro %}}\n"
