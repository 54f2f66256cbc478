"""What a dialogue is: persona lines, and messages of two speakers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. `user` is the partner; `assistant` is the person whom the model plays."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One session of one person with one partner.

    Fields "per assistant turn" follow the order of the assistant messages.

    - `persona`: the sentences that describe the assistant; may be empty.
    - `partner_persona`: the same for the user, where known.
    - `candidates`: per assistant turn, replies to rank; the gold reply is among them, last by convention.
    - `relevant`: per assistant turn, indices into `persona` of the lines that the reply expresses;
      an empty tuple is the label "none". `None` for the whole field: not labelled.
    - `person`: identifies the person across sessions.
    - `extra`: keys of the source that personalign does not read; kept on a round trip.
    """

    id: str
    persona: tuple[str, ...]
    messages: tuple[Turn, ...]
    partner_persona: tuple[str, ...] = ()
    candidates: tuple[tuple[str, ...], ...] | None = None
    relevant: tuple[tuple[int, ...], ...] | None = None
    person: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def reply_indices(self) -> tuple[int, ...]:
        """Indices into `messages` of the assistant's turns, each of which is one example."""
        return tuple(i for i, turn in enumerate(self.messages) if turn.role == "assistant")

    def said(self, role: Role = "assistant", *, before: int | None = None) -> tuple[str, ...]:
        """The messages of one side, in order; with `before`, those that stand before that message alone."""
        return tuple(turn.content for turn in self.messages[:before] if turn.role == role)
