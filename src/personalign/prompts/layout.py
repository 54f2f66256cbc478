"""What a template does: from a dialogue and the first message shown to token ids."""

from typing import Protocol

from personalign.data.dialogue import Dialogue
from personalign.prompts.segments import Ids
from personalign.prompts.settings import Unselected


class Layout(Protocol):
    """One template for one tokenizer. `first` and `turn` bound the messages shown, `turn` excluded."""

    @property
    def end_ids(self) -> Ids: ...

    @property
    def selection_end_ids(self) -> Ids: ...

    def select(self, dialogue: Dialogue, first: int, turn: int) -> list[int]: ...

    def select_target(self, dialogue: Dialogue, line: int | None) -> list[int]: ...

    def reply(
        self, dialogue: Dialogue, first: int, turn: int, line: int | Unselected | None
    ) -> list[int]: ...

    def reply_target(self, text: str) -> list[int]: ...

    def without_persona(self, dialogue: Dialogue, first: int, turn: int) -> list[int]: ...

    def longest(self, dialogue: Dialogue, first: int, turn: int) -> int:
        """Length in tokens of the longest of the prompts, whichever line is selected."""
        ...


class Trunk(Protocol):
    """Persona block and turns, and the cues that open branches from them.

    `select_cue` opens the choice of a line, `reply_cue` the reply after a choice, `open_cue` the reply
    without one. `gap` is the blank before a reply, `end` what ends it.
    """

    @property
    def select_cue(self) -> Ids: ...

    @property
    def reply_cue(self) -> Ids: ...

    @property
    def open_cue(self) -> Ids: ...

    @property
    def gap(self) -> str: ...

    @property
    def end(self) -> Ids: ...

    @property
    def end_ids(self) -> Ids: ...

    def tokens(self, dialogue: Dialogue, first: int, turn: int, *, persona: bool) -> list[int]: ...

    def length(self, dialogue: Dialogue, first: int, turn: int) -> int:
        """The greater length of the trunk with persona and of that without."""
        ...
