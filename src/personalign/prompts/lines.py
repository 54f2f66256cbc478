"""How a persona line is written, the same wherever it stands, so that choosing it is copying it."""

from dataclasses import dataclass

from personalign.data.dialogue import Dialogue
from personalign.prompts.segments import Ids, SegmentEncoder, one_line


@dataclass(frozen=True, slots=True)
class PersonaLines:
    """Encodes persona lines, with their number from 1 if `numbered`, and the sentence for "none"."""

    encoder: SegmentEncoder
    gap: str
    none: str
    numbered: bool

    def text(self, dialogue: Dialogue, line: int | None) -> str:
        """The line without the blank before it. Raises ValueError for a line that is not there."""
        if line is None:
            return self.none
        if not 0 <= line < len(dialogue.persona):
            count = len(dialogue.persona)
            raise ValueError(f"dialogue {dialogue.id!r} has {count} persona lines, so no line {line}")
        number = f"{line + 1}." if self.numbered else ""
        return number + one_line(dialogue.persona[line])

    def ids(self, dialogue: Dialogue, line: int | None) -> Ids:
        """The line after a cue."""
        return self.encoder.content(self.gap + self.text(dialogue, line))

    def longest(self, dialogue: Dialogue) -> int | None:
        """The line with the most tokens; None if that is the sentence for "none"."""
        lines: list[int | None] = [None, *range(len(dialogue.persona))]
        return max(lines, key=lambda line: len(self.ids(dialogue, line)))
