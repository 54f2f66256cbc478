"""The template `paper`: PAL's three separate prompts (Select and Generate: paper, section 2.1.2; No-persona: 2.2.1).

The structure is PAL's, the wording is ours. The prompts share no beginning, so trees save little here; the
template is for comparison with published numbers. On a model with a chat template each prompt is one user
message.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from personalign.data.dialogue import Dialogue
from personalign.prompts.chat_template import Block, ChatTemplate, Piece
from personalign.prompts.lines import PersonaLines
from personalign.prompts.segments import (
    Ids,
    SegmentEncoder,
    end_of_text,
    leading_bos,
    one_line,
    require_encodable,
)
from personalign.prompts.settings import UNSELECTED, Unselected
from personalign.prompts.trunk_first import spoken
from personalign.prompts.wording import LINE_END, Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Paper:
    """A Layout. `chat` is None for a base model; `bos` is then what the text begins with.

    `gap` is the blank before a target, `end` what ends it.
    """

    encoder: SegmentEncoder
    lines: PersonaLines
    wording: Wording
    chat: ChatTemplate | None
    bos: Ids
    gap: str
    end: Ids
    end_ids: Ids

    @property
    def selection_end_ids(self) -> Ids:
        return self.end_ids

    def select(self, dialogue: Dialogue, first: int, turn: int) -> list[int]:
        return self._prompt(
            [
                *_literal(self.wording.paper_select, LINE_END),
                *self._persona(dialogue),
                *self._history(dialogue, first, turn),
                *_literal(self.wording.select),
            ]
        )

    def select_target(self, dialogue: Dialogue, line: int | None) -> list[int]:
        return [*self.encoder.content(self.gap + self.lines.text(dialogue, line)), *self.end]

    def reply(self, dialogue: Dialogue, first: int, turn: int, line: int | Unselected | None) -> list[int]:
        return self._prompt(
            [
                *_literal(self.wording.paper_reply, LINE_END),
                *self._highlight(self.wording.paper_highlight, dialogue, line),
                *self._persona(dialogue),
                *self._history(dialogue, first, turn),
                *self._highlight(self.wording.select, dialogue, line),
                *_literal(self.wording.assistant),
            ]
        )

    def reply_target(self, text: str) -> list[int]:
        return [*spoken(self.encoder, self.gap, text), *self.end]

    def without_persona(self, dialogue: Dialogue, first: int, turn: int) -> list[int]:
        return self._prompt(
            [
                *_literal(self.wording.paper_without, LINE_END),
                *self._history(dialogue, first, turn),
                *_literal(self.wording.assistant),
            ]
        )

    def longest(self, dialogue: Dialogue, first: int, turn: int) -> int:
        return max(
            len(self.select(dialogue, first, turn)),
            len(self.reply(dialogue, first, turn, self.lines.longest(dialogue))),
            len(self.reply(dialogue, first, turn, UNSELECTED)),
            len(self.without_persona(dialogue, first, turn)),
        )

    def _persona(self, dialogue: Dialogue) -> list[Piece]:
        pieces = _literal(self.wording.persona, LINE_END)
        for line in range(len(dialogue.persona)):
            pieces += [Piece(self.lines.gap + self.lines.text(dialogue, line)), *_literal(LINE_END)]
        return pieces

    def _history(self, dialogue: Dialogue, first: int, turn: int) -> list[Piece]:
        pieces = _literal(self.wording.paper_history, LINE_END)
        for message in dialogue.messages[first:turn]:
            speaker = self.wording.user if message.role == "user" else self.wording.assistant
            said = one_line(message.content)
            pieces += [
                *_literal(speaker),
                Piece(self.lines.gap + said if said else ""),
                *_literal(LINE_END),
            ]
        return pieces

    def _highlight(self, cue: str, dialogue: Dialogue, line: int | Unselected | None) -> list[Piece]:
        if isinstance(line, Unselected):
            return []
        return [
            *_literal(cue),
            Piece(self.lines.gap + self.lines.text(dialogue, line)),
            *_literal(LINE_END),
        ]

    def _prompt(self, pieces: list[Piece]) -> list[int]:
        if self.chat is not None:
            return self.chat.prompt([Block("user", tuple(pieces))])
        ids = list(self.bos)
        for text, literal in pieces:
            if text:
                ids.extend(self.encoder.structure(text) if literal else self.encoder.content(text))
        return ids


def _literal(*texts: str) -> list[Piece]:
    return [Piece(text, literal=True) for text in texts]


def paper_layout(
    tokenizer: "PreTrainedTokenizerBase",
    *,
    encoder: SegmentEncoder,
    wording: Wording,
    lines: PersonaLines,
    chat: ChatTemplate | None,
) -> Paper:
    """Raises PersonalignError when the tokenizer has no end token or cannot write the template's texts."""
    require_encodable(tokenizer, encoder, paper_texts(wording))
    if chat is not None:
        traits = chat.traits
        return Paper(encoder, lines, wording, chat, (), traits.gap, traits.end, traits.end_ids)
    end = (end_of_text(tokenizer),)
    return Paper(encoder, lines, wording, None, leading_bos(tokenizer), lines.gap, end, end)


def paper_texts(wording: Wording) -> tuple[str, ...]:
    """The texts that the template writes."""
    tasks = (wording.paper_select, wording.paper_reply, wording.paper_highlight, wording.paper_without)
    heads = (wording.paper_history, wording.persona, wording.user, wording.assistant, wording.select)
    return (*tasks, *heads, wording.paper_none, LINE_END)
