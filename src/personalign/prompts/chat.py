"""The trunk on a model with a chat template: the persona is the system message, the turns are messages."""

from dataclasses import dataclass

from personalign.data.dialogue import Dialogue
from personalign.prompts.chat_template import Block, ChatTemplate, Piece
from personalign.prompts.lines import PersonaLines
from personalign.prompts.segments import Ids, SegmentEncoder, one_line
from personalign.prompts.wording import LINE_END, Wording

_LINE_END = Piece(LINE_END, literal=True)
_PARAGRAPH = Piece(LINE_END * 2, literal=True)


@dataclass(frozen=True, slots=True)
class ChatTrunk:
    """A Trunk. Turns in a row by one speaker become one message, with a line for each.

    Where the template has no system role, the persona stands at the head of the first user message. Where the
    user must begin and does not, a fixed opening stands in for the user's message.
    """

    template: ChatTemplate
    encoder: SegmentEncoder
    wording: Wording
    lines: PersonaLines

    @property
    def select_cue(self) -> Ids:
        return self.encoder.structure(self.wording.select)

    @property
    def reply_cue(self) -> Ids:
        return self.encoder.structure(self.wording.chat_reply + LINE_END)

    @property
    def open_cue(self) -> Ids:
        return ()

    @property
    def gap(self) -> str:
        return self.template.traits.gap

    @property
    def end(self) -> Ids:
        return self.template.traits.end

    @property
    def end_ids(self) -> Ids:
        return self.template.traits.end_ids

    def tokens(self, dialogue: Dialogue, first: int, turn: int, *, persona: bool) -> list[int]:
        turns = self._turns(dialogue, first, turn)
        if self._needs_opening(turns):
            turns = [Block("user", (Piece(self.wording.chat_opening, literal=True),)), *turns]
        system = self._system(dialogue, persona=persona)
        if self.template.traits.takes_system:
            return self.template.prompt([Block("system", system), *turns])
        return self.template.prompt([Block("user", (*system, _PARAGRAPH, *turns[0].pieces)), *turns[1:]])

    def length(self, dialogue: Dialogue, first: int, turn: int) -> int:
        # Dropping a turn may bring in the opening: room for it is kept always, so dropping never lengthens.
        # One token more, as the template may put a blank before it.
        opened = self._needs_opening(self._turns(dialogue, first, turn))
        opening = 0 if opened else 1 + len(self.encoder.structure(self.wording.chat_opening))
        return opening + max(
            len(self.tokens(dialogue, first, turn, persona=persona)) for persona in (True, False)
        )

    def _turns(self, dialogue: Dialogue, first: int, turn: int) -> list[Block]:
        blocks: list[Block] = []
        for message in dialogue.messages[first:turn]:
            piece = Piece(one_line(message.content))
            if blocks and blocks[-1].role == message.role:
                blocks[-1] = Block(message.role, (*blocks[-1].pieces, _LINE_END, piece))
            else:
                blocks.append(Block(message.role, (piece,)))
        return blocks

    def _needs_opening(self, turns: list[Block]) -> bool:
        traits = self.template.traits
        if traits.user_first or not traits.takes_system:
            return not turns or turns[0].role != "user"
        return all(turn.role != "user" for turn in turns)

    def _system(self, dialogue: Dialogue, *, persona: bool) -> tuple[Piece, ...]:
        if not persona or not dialogue.persona:
            return (Piece(self.wording.chat_task_without, literal=True),)
        bullet = Piece(LINE_END + "-", literal=True)
        head = (
            Piece(self.wording.chat_task, literal=True),
            _LINE_END,
            Piece(self.wording.persona, literal=True),
        )
        lines = (
            Piece(self.lines.gap + self.lines.text(dialogue, line)) for line in range(len(dialogue.persona))
        )
        return (*head, *(piece for line in lines for piece in (bullet, line)))
