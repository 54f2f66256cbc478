"""The trunk as plain text, for models without a chat template; no token is added to the vocabulary."""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from personalign.data.dialogue import Dialogue, Role
from personalign.prompts.lines import PersonaLines
from personalign.prompts.segments import (
    Ids,
    SegmentEncoder,
    end_of_text,
    leading_bos,
    one_line,
    require_encodable,
)
from personalign.prompts.wording import LINE_END, Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def plain_texts(wording: Wording) -> tuple[str, ...]:
    """The texts that the plain trunk-first template writes."""
    return (wording.persona, wording.user, wording.assistant, wording.select, wording.none, LINE_END)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A dialogue's tokens: the two persona blocks, and all turns end to end; turn i starts at offsets[i]."""

    dialogue: Dialogue
    block: Ids
    without: Ids
    turns: list[int]
    offsets: list[int]


@dataclass(slots=True)
class PlainTrunk:
    """`Persona:` and its lines, then `User: ...` and `Assistant: ...<eos>`; a Trunk."""

    encoder: SegmentEncoder
    lines: PersonaLines
    bos: Ids
    end: Ids
    gap: str
    header: Ids
    line_end: Ids
    speakers: dict[Role, Ids]
    select_cue: Ids
    _latest: _Encoded | None = field(default=None, init=False)

    @property
    def open_cue(self) -> Ids:
        return self.speakers["assistant"]

    @property
    def reply_cue(self) -> Ids:
        return self.speakers["assistant"]

    @property
    def end_ids(self) -> Ids:
        return self.end

    def tokens(self, dialogue: Dialogue, first: int, turn: int, *, persona: bool) -> list[int]:
        encoded = self._encoded(dialogue)
        start = encoded.block if persona else encoded.without
        return [*start, *encoded.turns[encoded.offsets[first] : encoded.offsets[turn]]]

    def length(self, dialogue: Dialogue, first: int, turn: int) -> int:
        encoded = self._encoded(dialogue)
        return len(encoded.block) + encoded.offsets[turn] - encoded.offsets[first]

    def _encoded(self, dialogue: Dialogue) -> _Encoded:
        # All prompts of one dialogue are asked for in a row, so remembering one dialogue is enough. Read once: another
        # thread may put its own dialogue there at any time.
        encoded = self._latest
        if encoded is None or encoded.dialogue is not dialogue:
            encoded = self._latest = self._encode(dialogue)
        return encoded

    def _encode(self, dialogue: Dialogue) -> _Encoded:
        without = self.bos + self.header
        block = list(without)
        for line in range(len(dialogue.persona)):
            block.extend(self.lines.ids(dialogue, line))
            block.extend(self.line_end)
        turns = [self._turn(turn.role, turn.content) for turn in dialogue.messages]
        offsets = list(accumulate(map(len, turns), initial=0))
        return _Encoded(dialogue, tuple(block), without, [i for turn in turns for i in turn], offsets)

    def _turn(self, role: Role, content: str) -> list[int]:
        line = one_line(content)
        said = self.encoder.content(self.gap + line) if line else ()
        return [*self.speakers[role], *said, *(self.end if role == "assistant" else self.line_end)]


def plain_trunk(
    tokenizer: "PreTrainedTokenizerBase", *, encoder: SegmentEncoder, wording: Wording, lines: PersonaLines
) -> PlainTrunk:
    """Raises PersonalignError when the tokenizer has no end token or cannot write the template's texts."""
    end = (end_of_text(tokenizer),)
    require_encodable(tokenizer, encoder, plain_texts(wording))
    return PlainTrunk(
        encoder=encoder,
        lines=lines,
        bos=leading_bos(tokenizer),
        end=end,
        gap=lines.gap,
        header=encoder.structure(wording.persona) + encoder.structure(LINE_END),
        line_end=encoder.structure(LINE_END),
        speakers={"user": encoder.structure(wording.user), "assistant": encoder.structure(wording.assistant)},
        select_cue=encoder.structure(wording.select),
    )
