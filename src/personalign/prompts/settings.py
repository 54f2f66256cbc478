"""What a recipe says about prompts, and the sentinel for a reply without a highlighted line."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from personalign.errors import PersonalignError
from personalign.prompts.wording import WORDINGS, Language

Template = Literal["trunk-first", "paper"]
TEMPLATES: tuple[Template, ...] = ("trunk-first", "paper")


class Unselected(Enum):
    """The type of UNSELECTED: all persona lines are shown and none is highlighted."""

    UNSELECTED = "unselected"


UNSELECTED: Final = Unselected.UNSELECTED


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """How dialogues become prompts; part of the recipe and of the hash that a run stores.

    - `history`: the last so many messages are shown; `None` shows all that fit.
    - `max_tokens`: the length of prompt and target together; `reserve` of them are kept free for the target,
      so that a prompt has at most `max_tokens - reserve`, in training as at inference.
    - `numbered`: persona lines carry their number, from 1, in the persona block and in the selection target.
      The template `paper` numbers them always.

    Raises PersonalignError for a value that cannot work.
    """

    template: Template = "trunk-first"
    language: Language = "en"
    history: int | None = None
    max_tokens: int = 1024
    reserve: int = 64
    numbered: bool = False

    def __post_init__(self) -> None:
        _require_one_of("template", self.template, TEMPLATES)
        _require_one_of("language", self.language, tuple(WORDINGS))
        if self.history is not None and self.history < 1:
            raise PersonalignError(
                f"prompts: history is {self.history}, but a prompt needs the last turn at least; "
                "write 1 or more, or null for the whole dialogue"
            )
        if not 0 < self.reserve < self.max_tokens:
            raise PersonalignError(
                f"prompts: reserve is {self.reserve} and max_tokens {self.max_tokens}, which leaves no room "
                "for a prompt or a target; write 0 < reserve < max_tokens"
            )

    @property
    def budget(self) -> int:
        """The most tokens that a prompt may have."""
        return self.max_tokens - self.reserve


def _require_one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise PersonalignError(f"prompts: {field} is {value!r}; write one of {', '.join(allowed)}")
