"""One conversation at a time: select a line, stream a reply, and keep what was computed for the next turn."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from personalign.data.dialogue import Dialogue
from personalign.decoding.forest import Forest
from personalign.decoding.generation import DecodingSettings, Grown, generate
from personalign.decoding.plain import plain_generate
from personalign.decoding.respond import Selection, choose_lines
from personalign.decoding.selection import Choice
from personalign.errors import PersonalignError
from personalign.models import LoadedModel, autocast
from personalign.prompts import UNSELECTED, Prompter

# The cache starts anew when it holds so many times what the prompt needs, and at least so many tokens.
OVERGROWN = 4
SMALL = 1024

OnText = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to a conversation.

    - `choice`: the line that it rests on; None where nothing was selected.
    - `ended`: whether the model ended it, rather than the limit of tokens.
    - `tokens`: its length, without the end token.
    """

    text: str
    choice: Choice | None
    ended: bool
    tokens: int


class ChatSession:
    """Answers dialogues, each as a continuation of those before wherever they share a beginning.

        session = ChatSession(loaded, prompter, selection=Selection(), decoding=DecodingSettings())
        choice = session.select(dialogue)
        reply = session.reply(dialogue, choice, on_text=lambda piece: print(piece, end="", flush=True))

    The session keeps keys and values, never the conversation: replies are those of `respond` for the same dialogue,
    whatever was asked before, and taking turns back or changing the persona needs no word to it. A turn computes
    only tokens that no earlier turn had, as long as the prompts share their beginnings.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        prompter: Prompter,
        *,
        selection: Selection,
        decoding: DecodingSettings,
    ) -> None:
        self.loaded = loaded
        self.prompter = prompter
        self.selection = selection
        self.decoding = decoding
        self._forest: Forest | None = None
        self._grown = 0

    def streams(self, decoding: DecodingSettings | None = None) -> bool:
        """Whether replies come token by token; beams and models that cannot run trees give them whole."""
        return self.loaded.plan.mode == "packed" and (decoding or self.decoding).strategy != "beam"

    @property
    def cached_tokens(self) -> int:
        """How many tokens the next turn finds computed, those of no further use included."""
        return 0 if self._forest is None else len(self._forest.trees[0]) + self._grown

    def select(self, dialogue: Dialogue) -> Choice | None:
        """The persona line that matters for what is said next; None where the strategy highlights nothing.

        Raises PersonalignError where persona and last message alone are too long.
        """
        turn = next_turn(self.prompter, dialogue)
        by_model = self.selection.strategy == "predicted" and self.selection.scorer is None
        forest = None
        if by_model and self.loaded.plan.mode == "packed":
            prompt = self.prompter.select(dialogue, turn)
            forest = self._take_forest(len(prompt))
            before = len(forest.trees[0])
            if forest.insert(0, prompt)[-1] < before:
                # Scoring needs the logits of the prompt's last token, and the cache holds no logits.
                forest = self._new_forest()
        with self._inference():
            [[choice]] = choose_lines(
                self.loaded, forest, self.prompter, [dialogue], [[turn]], selection=self.selection
            )
        self._forest = forest or self._forest
        return choice

    def reply(
        self,
        dialogue: Dialogue,
        choice: Choice | None,
        *,
        decoding: DecodingSettings | None = None,
        on_text: OnText | None = None,
    ) -> Reply:
        """What is said next, resting on `choice`; `decoding` stands in for the session's this once.

        `on_text` is called after every token with the text that came to be fixed by it, which may be empty; the pieces
        together are the reply. What it raises ends the reply, and the session goes on working.

        Raises PersonalignError where persona and last message alone are too long, or prompt and reply together could
        be longer than the model allows.
        """
        turn = next_turn(self.prompter, dialogue)
        decoding = decoding or self.decoding
        line = UNSELECTED if choice is None else choice.line
        prompt = self.prompter.reply(dialogue, turn, line=line)
        pieces = _Pieces(self.prompter, on_text)
        key = f"{dialogue.id}/{turn}"
        if self.loaded.plan.mode == "packed":
            grown = self._grow(prompt, key, decoding, pieces)
        else:
            [[grown]] = plain_generate(
                self.loaded, [[prompt]], decoding=decoding, end_ids=self.prompter.end_ids, keys=[key]
            )
        text = self.prompter.decode_reply(grown.tokens)
        pieces.finish(text)
        return Reply(text, choice, grown.ended, len(grown.tokens))

    def _grow(self, prompt: list[int], key: str, decoding: DecodingSettings, pieces: "_Pieces") -> Grown:
        forest = self._take_forest(len(prompt))
        with self._inference():
            forest.insert(0, prompt[:-1])
            forest.compute()
            [grown] = generate(
                forest,
                [forest.leaf(0, prompt)],
                settings=decoding,
                end_ids=self.prompter.end_ids,
                keys=[key],
                stream=lambda _, token: pieces.add(token),
            )
        beams = decoding.beams if decoding.strategy == "beam" else 1
        self._grown += (len(grown.tokens) + 1) * beams
        self._forest = forest
        return grown

    def _take_forest(self, needed: int) -> Forest:
        """The forest, which is put back when its work is done: one that was interrupted is not used again."""
        forest, self._forest = self._forest, None
        if forest is None or len(forest.trees[0]) + self._grown > max(SMALL, OVERGROWN * needed):
            return self._new_forest()
        return forest

    def _new_forest(self) -> Forest:
        self._grown = 0
        return Forest(self.loaded.model, rows=1, plan=self.loaded.plan)

    def _inference(self) -> AbstractContextManager[object]:
        self.loaded.model.eval()
        return autocast(self.loaded.precision)


def next_turn(prompter: Prompter, dialogue: Dialogue) -> int:
    """The index of the message that is to come; PersonalignError where its prompts cannot be short enough."""
    turn = len(dialogue.messages)
    if not prompter.window(dialogue, turn).fits:
        raise PersonalignError(
            f"the persona and the last message alone take more than the {prompter.settings.budget} tokens of a prompt; "
            "write a shorter message or fewer persona lines"
        )
    return turn


class _Pieces:
    """Cuts the growing text into pieces, none of which is taken back."""

    def __init__(self, prompter: Prompter, on_text: OnText | None) -> None:
        self._prompter = prompter
        self._on_text = on_text
        self._tokens: list[int] = []
        self._told = ""

    def add(self, token: int) -> None:
        if self._on_text is None:
            return
        self._tokens.append(token)
        # A character of several bytes is fixed only when its last token has come.
        self._tell(self._prompter.decode_reply(self._tokens).rstrip("\N{REPLACEMENT CHARACTER}"))

    def finish(self, text: str) -> None:
        if text != self._told:
            self._tell(text)

    def _tell(self, text: str) -> None:
        if self._on_text is None:
            return
        piece = text.removeprefix(self._told) if text.startswith(self._told) else ""
        self._told += piece
        self._on_text(piece)
