"""The Python API: open a model, score and select and reply, train a recipe.

    model = personalign.load("runs/quickstart")
    persona = ["i have a dog .", "i work as a baker ."]
    messages = [{"role": "user", "content": "any pets ?"}]
    choice = personalign.select(model, persona, messages)
    answer = personalign.reply(model, persona, messages)

Conversations are lists of messages, each a `Turn` or a mapping with `role` ("user" or "assistant") and `content`; what is
asked for is always the assistant's next turn. Input that cannot work raises `PersonalignError`.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from personalign.cli.reporter import TerminalReporter
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.faults import error_of, kind
from personalign.data.native import parse_row
from personalign.data.text import half_character
from personalign.decoding.chat import ChatSession, Reply, next_turn
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.selection import Choice, Strategy
from personalign.errors import PersonalignError
from personalign.methods.idl import remember
from personalign.methods.opening import Model, open_model
from personalign.methods.runs import make_run
from personalign.methods.shipped import load_run_recipe
from personalign.methods.steps import Interrupted
from personalign.methods.tables import read_results
from personalign.models import autocast
from personalign.models.precision import Dtype
from personalign.prompts import UNSELECTED, Unselected
from personalign.trees import DialogueTree
from personalign.trees import score as score_trees

__all__ = ["Choice", "Model", "Reply", "Scored", "load", "reply", "score", "select", "train"]

Message = Turn | Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate reply with the natural logarithms of its tokens' probabilities, the end token's last."""

    text: str
    token_log_probs: tuple[float, ...]

    @property
    def log_prob(self) -> float:
        """The logarithm of the whole reply's probability, in nats."""
        return sum(self.token_log_probs)

    @property
    def mean_log_prob(self) -> float:
        """Per token, so that replies of different lengths can be compared."""
        return self.log_prob / len(self.token_log_probs)


def load(source: str | Path, *, device: str = "auto", dtype: Dtype = "auto", seed: int = 0) -> Model:
    """Open a run folder, a model or adapter folder, a hub id, or `personalign-mini`, which comes along.

    What a run published (prompts, selector, bias of "none", decoding) is used; another model gets the defaults.

    Raises PersonalignError for what cannot be found, loaded, or used with this version's prompts.
    """
    with _quiet():
        return open_model(source, device=device, dtype=dtype, seed=seed)


def score(
    model: Model,
    persona: Sequence[str],
    messages: Sequence[Message],
    candidates: Sequence[str],
    *,
    line: int | Unselected | None = UNSELECTED,
) -> list[Scored]:
    """Log-probabilities of candidate replies, in the order given; all are branches of one tree, on one shared trunk.

    `line` is the persona line (from 0) that the replies rest on, None for "no line matters"; by default the whole
    persona is shown and nothing is highlighted. The best candidate by `log_prob` or `mean_log_prob` is what hits@1
    counts.

    Raises PersonalignError for a conversation or a line that is not right, and for input that is too long.
    """
    dialogue = _told(model, _dialogue(persona, messages))
    if not isinstance(candidates, Sequence) or isinstance(candidates, str):
        raise PersonalignError(f"candidates: is {candidates!r}; write a list of replies")
    for index, text in enumerate(candidates):
        if not isinstance(text, str):
            raise PersonalignError(f"candidates[{index}]: is {kind(text)}; write a reply")
        if half := half_character(text):
            raise PersonalignError(f"candidates[{index}]: {half}; write whole characters")
    if isinstance(line, int) and not 0 <= line < len(dialogue.persona):
        raise PersonalignError(
            f"line: {line} is outside the persona's {len(dialogue.persona)} lines; count from 0"
        )
    if not candidates:
        return []
    prompt = model.prompter.reply(dialogue, next_turn(model.prompter, dialogue), line=line)
    tree = DialogueTree()
    for text in candidates:
        tree.add(prompt, model.prompter.reply_target(text))
    with autocast(model.loaded.precision):
        [scored] = score_trees(model.loaded.model, [tree], plan=model.loaded.plan)
    return [Scored(text, tuple(values.tolist())) for text, values in zip(candidates, scored, strict=True)]


def select(model: Model, persona: Sequence[str], messages: Sequence[Message]) -> Choice:
    """The persona line that matters for what is said next, as the model's selector chooses it.

    `line` of the result is an index into `persona`, None for "no line matters"; `probabilities` [lines + 1] are those of
    every line, then of none.

    Raises PersonalignError for a conversation that is not right or too long, and for a model that learnt from sessions,
    which never chose a line.
    """
    if model.selection.strategy == "unselected":
        raise PersonalignError(
            f"select: {model.source} learnt from sessions and has no lines to choose from; `reply` answers for it"
        )
    choice = _session(model, "predicted").select(_dialogue(persona, messages))
    assert choice is not None
    return choice


def reply(
    model: Model,
    persona: Sequence[str],
    messages: Sequence[Message],
    *,
    strategy: Strategy | None = None,
    decoding: DecodingSettings | None = None,
    on_text: Callable[[str], None] | None = None,
) -> Reply:
    """Select a line, then say what the person says next.

    - `persona`: empty for a model that learnt one person from sessions (`personalign learn`), which is then told them.
    - `strategy`: `predicted`, `random`, or `unselected` to show the persona and highlight nothing; by default
      `predicted`, or `unselected` for a model that learnt from sessions.
    - `decoding`: the model's own unless given; `dataclasses.replace(model.decoding, ...)` changes parts of it.
    - `on_text`: called with the pieces of the reply as they come.

    Raises PersonalignError for a conversation that is not right or too long.
    """
    strategy = model.selection.strategy if strategy is None else strategy
    if strategy not in ("predicted", "random", "unselected"):
        raise PersonalignError(f"strategy: is {strategy!r}; write predicted, random or unselected")
    dialogue = _told(model, _dialogue(persona, messages))
    session = _session(model, strategy)
    return session.reply(dialogue, session.select(dialogue), decoding=decoding, on_text=on_text)


def train(
    recipe: str | Path, folder: str | Path, *, overrides: Sequence[str] = (), resume: bool = False
) -> dict[str, Any]:
    """Run a recipe in a folder, which `load` then opens; return its results, metrics by system.

    - `recipe`: the name of a shipped recipe, or a file.
    - `overrides`: as `--set` on the command line, such as "stages.stage1.epochs=2".
    - `resume`: go on from the last checkpoint of a stage that was interrupted.

    Steps that are done already are not done again. Progress is printed on standard error.

    Raises PersonalignError for a recipe or data that is not right, and after Ctrl-C between two steps of training.
    """
    run = make_run(
        load_run_recipe(str(recipe), overrides), Path(folder), reporter=TerminalReporter(), resume=resume
    )
    try:
        with _quiet():
            run.run()
    except Interrupted as stage:
        raise PersonalignError(
            f"stopped in {stage}, which is kept; go on with the same call and resume=True"
        ) from None
    return read_results(run.folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and remarks of transformers, which speak of its own affairs; as they were, afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _session(model: Model, strategy: Strategy) -> ChatSession:
    selection = replace(model.selection, strategy=strategy)
    return ChatSession(model.loaded, model.prompter, selection=selection, decoding=model.decoding)


def _dialogue(persona: Sequence[str], messages: Sequence[Message]) -> Dialogue:
    """Checked as a row of a file would be."""
    rows: Any = messages
    if isinstance(messages, Sequence) and not isinstance(messages, str):
        rows = [_row(message) for message in messages]
    lines = list(persona) if isinstance(persona, Sequence) and not isinstance(persona, str) else persona
    dialogue, faults = parse_row(
        {"id": "chat", "persona": lines, "messages": rows}, file="the conversation", line=0
    )
    if dialogue is None:
        raise error_of(faults)
    # What is drawn at random goes by the id: other conversations draw otherwise, the same one again the same.
    said = json.dumps([dialogue.persona, [(turn.role, turn.content) for turn in dialogue.messages]])
    return replace(dialogue, id=hashlib.sha256(said.encode()).hexdigest()[:16])


def _told(model: Model, dialogue: Dialogue) -> Dialogue:
    """Behind the sessions that came with the model, unless a persona is given, which stands in for them."""
    if dialogue.persona or not model.sessions:
        return dialogue
    return remember(dialogue, model.sessions).dialogue


def _row(message: Message) -> Any:
    if isinstance(message, Turn):
        return {"role": message.role, "content": message.content}
    return dict(message) if isinstance(message, Mapping) else message
