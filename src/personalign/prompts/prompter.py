"""The only maker of prompts: training, scoring, decoding and chat ask the same object."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from personalign.data.dialogue import Dialogue
from personalign.prompts.chat import ChatTrunk
from personalign.prompts.chat_template import PINNED_DATE, ChatTemplate
from personalign.prompts.layout import Layout, Trunk
from personalign.prompts.lines import PersonaLines
from personalign.prompts.paper import paper_layout
from personalign.prompts.plain import plain_texts, plain_trunk
from personalign.prompts.reading import read_selection
from personalign.prompts.segments import SegmentEncoder, starts_words_itself
from personalign.prompts.settings import UNSELECTED, PromptSettings, Unselected
from personalign.prompts.truncation import Window, choose_window
from personalign.prompts.trunk_first import TrunkFirst
from personalign.prompts.wording import VERSION, WORDINGS, Language, Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class PrefixReport:
    """Of a dialogue's reply prompts, how many are a beginning of the longest one, and how many are not."""

    turns: int
    shared: int
    broken: int


class Prompter:
    """Makes prompts and targets, as lists of token ids, for one tokenizer and one recipe.

    `turn` is an index into `dialogue.messages` of the assistant's message that is to be answered for, or
    `len(dialogue.messages)` when it does not exist yet. What is said at `turn` or later is never read.

        prompter = Prompter(tokenizer, PromptSettings())
        prompt = prompter.reply(dialogue, turn, line=2)
        target = prompter.reply_target(dialogue.messages[turn].content)

    Raises PersonalignError when the tokenizer has no end token, cannot write the template's texts, or has a
    chat template that loses messages.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", settings: PromptSettings) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self._layout = _build_layout(tokenizer, settings)
        self.hash = _hash(tokenizer, settings)
        self._windows: tuple[Dialogue | None, dict[int, Window]] = (None, {})

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Token ids, any of which ends a reply."""
        return self._layout.end_ids

    @property
    def selection_end_ids(self) -> tuple[int, ...]:
        """Token ids, any of which ends a freely decoded selection."""
        return self._layout.selection_end_ids

    def select(self, dialogue: Dialogue, turn: int) -> list[int]:
        """The prompt that asks for the relevant persona line."""
        return self._layout.select(dialogue, self.window(dialogue, turn).first, turn)

    def select_target(self, dialogue: Dialogue, line: int | None) -> list[int]:
        """The persona line with this index, or the sentence for "none", with its terminator."""
        return self._layout.select_target(dialogue, line)

    def reply(self, dialogue: Dialogue, turn: int, *, line: int | Unselected | None) -> list[int]:
        """The prompt for a reply that rests on a line, on "none", or (UNSELECTED) on nothing highlighted."""
        return self._layout.reply(dialogue, self.window(dialogue, turn).first, turn, line)

    def reply_target(self, text: str) -> list[int]:
        """A reply with its end token."""
        return self._layout.reply_target(text)

    def without_persona(self, dialogue: Dialogue, turn: int) -> list[int]:
        """The prompt for a reply from the conversation alone (PAL's source of rejected replies)."""
        return self._layout.without_persona(dialogue, self.window(dialogue, turn).first, turn)

    def window(self, dialogue: Dialogue, turn: int) -> Window:
        """Which messages the prompts of this turn show; the same for all of them, whatever is selected."""
        # The prompts of one dialogue are asked for in a row, so remembering one dialogue is enough. Read once: another
        # thread may put its own dialogue there at any time.
        remembered, windows = self._windows
        if remembered is not dialogue:
            windows = {}
            self._windows = (dialogue, windows)
        if turn not in windows:
            windows[turn] = self._choose_window(dialogue, turn)
        return windows[turn]

    def _choose_window(self, dialogue: Dialogue, turn: int) -> Window:
        _require_assistant_turn(dialogue, turn)
        return choose_window(
            turn,
            history=self.settings.history,
            budget=self.settings.budget,
            length=lambda first: self._layout.longest(dialogue, first, turn),
        )

    def decode_reply(self, ids: list[int] | tuple[int, ...]) -> str:
        """The text of a generated reply up to its end token."""
        end = next((at for at, token in enumerate(ids) if token in self.end_ids), len(ids))
        text = self.tokenizer.decode(
            list(ids[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text).strip()

    def read_selection(self, text: str, dialogue: Dialogue) -> int | None:
        """The persona line that freely decoded text means: by number, by equality, by likeness, else none."""
        return read_selection(text, dialogue.persona)

    def prefix_report(self, dialogue: Dialogue) -> PrefixReport:
        """How many turns share their history's tokens with the longest prompt of the dialogue."""
        prompts = [self.reply(dialogue, turn, line=UNSELECTED) for turn in dialogue.reply_indices()]
        trunk = max(prompts, key=len, default=[])
        shared = sum(trunk[: len(prompt)] == prompt for prompt in prompts)
        return PrefixReport(len(prompts), shared, len(prompts) - shared)


def structure_texts(language: Language) -> list[str]:
    """All literal texts that the plain `trunk-first` template writes; a small vocabulary should hold each."""
    return list(plain_texts(WORDINGS[language]))


def _build_layout(tokenizer: "PreTrainedTokenizerBase", settings: PromptSettings) -> Layout:
    wording = WORDINGS[settings.language]
    encoder = SegmentEncoder(tokenizer)
    gap = "" if starts_words_itself(tokenizer) else wording.gap
    chat = ChatTemplate(tokenizer, encoder) if tokenizer.chat_template else None
    if settings.template == "paper":
        lines = PersonaLines(encoder, gap, wording.paper_none, numbered=True)
        return paper_layout(tokenizer, encoder=encoder, wording=wording, lines=lines, chat=chat)
    lines = PersonaLines(encoder, gap, wording.none, settings.numbered)
    return TrunkFirst(encoder, lines, _build_trunk(tokenizer, encoder, wording, lines, chat))


def _build_trunk(
    tokenizer: "PreTrainedTokenizerBase",
    encoder: SegmentEncoder,
    wording: Wording,
    lines: PersonaLines,
    chat: ChatTemplate | None,
) -> Trunk:
    if chat is None:
        return plain_trunk(tokenizer, encoder=encoder, wording=wording, lines=lines)
    return ChatTrunk(chat, encoder, wording, lines)


def _hash(tokenizer: "PreTrainedTokenizerBase", settings: PromptSettings) -> str:
    parts = {
        "version": VERSION,
        "wording": asdict(WORDINGS[settings.language]),
        "settings": asdict(settings),
        "chat_template": tokenizer.get_chat_template() if tokenizer.chat_template else None,
        "date": PINNED_DATE.isoformat(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _require_assistant_turn(dialogue: Dialogue, turn: int) -> None:
    if not 0 <= turn <= len(dialogue.messages):
        raise ValueError(f"dialogue {dialogue.id!r} has {len(dialogue.messages)} messages, so no turn {turn}")
    if turn < len(dialogue.messages) and dialogue.messages[turn].role != "assistant":
        raise ValueError(f"message {turn} of dialogue {dialogue.id!r} is the user's, and has no prompt")
