"""The template `trunk-first`: persona block, turns, and short cues that open the branches.

    Persona:
     I have a dog.
     I work at night.
    User: any pets ?
    Relevant persona: I have a dog.
    Assistant: yes , a dog .<end>

The reply to a selected line hangs off the selection; the reply without selection follows the turns at once,
and is token for token what the history shows of that turn.
"""

from dataclasses import dataclass

from personalign.data.dialogue import Dialogue
from personalign.prompts.layout import Trunk
from personalign.prompts.lines import PersonaLines
from personalign.prompts.segments import Ids, SegmentEncoder, one_line
from personalign.prompts.settings import Unselected
from personalign.prompts.wording import LINE_END


@dataclass(frozen=True, slots=True)
class TrunkFirst:
    """A Layout over either kind of trunk."""

    encoder: SegmentEncoder
    lines: PersonaLines
    trunk: Trunk

    @property
    def end_ids(self) -> Ids:
        return self.trunk.end_ids

    @property
    def selection_end_ids(self) -> Ids:
        return self.encoder.structure(LINE_END)[-1:]

    def select(self, dialogue: Dialogue, first: int, turn: int) -> list[int]:
        prompt = self.trunk.tokens(dialogue, first, turn, persona=True)
        prompt.extend(self.trunk.select_cue)
        return prompt

    def select_target(self, dialogue: Dialogue, line: int | None) -> list[int]:
        return [*self.lines.ids(dialogue, line), *self.encoder.structure(LINE_END)]

    def reply(self, dialogue: Dialogue, first: int, turn: int, line: int | Unselected | None) -> list[int]:
        if isinstance(line, Unselected):
            prompt = self.trunk.tokens(dialogue, first, turn, persona=True)
            prompt.extend(self.trunk.open_cue)
            return prompt
        prompt = self.select(dialogue, first, turn)
        prompt.extend(self.select_target(dialogue, line))
        prompt.extend(self.trunk.reply_cue)
        return prompt

    def reply_target(self, text: str) -> list[int]:
        return [*spoken(self.encoder, self.trunk.gap, text), *self.trunk.end]

    def without_persona(self, dialogue: Dialogue, first: int, turn: int) -> list[int]:
        prompt = self.trunk.tokens(dialogue, first, turn, persona=False)
        prompt.extend(self.trunk.open_cue)
        return prompt

    def longest(self, dialogue: Dialogue, first: int, turn: int) -> int:
        selection = len(self.select_target(dialogue, self.lines.longest(dialogue)))
        selected = len(self.trunk.select_cue) + selection + len(self.trunk.reply_cue)
        return self.trunk.length(dialogue, first, turn) + max(selected, len(self.trunk.open_cue))


def spoken(encoder: SegmentEncoder, gap: str, text: str) -> Ids:
    """A message after its cue; nothing at all for an empty one."""
    line = one_line(text)
    return encoder.content(gap + line) if line else ()
