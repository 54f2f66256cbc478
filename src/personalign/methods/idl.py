"""IDL: learning a person from their dialogues alone, then deep personalised alignment.

"'In Dialogues We Learn': Towards Personalized Dialogue Without Pre-defined Profiles through In-Dialogue Learning".
Its two stages learn from:

1. `mutual_supervised_learning` (section 3.2): a person's session after other sessions of theirs, ordered, and no profile;
   the person's last reply in it is the target, or every one. Objective: nll.
2. `alignment_triples` (section 3.3): the gold reply, a criterion that conflicts, invents or swaps persons, and a rejected
   reply, all behind the same sessions. Objective: DPOC against the model of stage 1.

On trees the sessions are the trunk, which all of a session's turns share, and the replies are its branches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from personalign.data.dialogue import Dialogue
from personalign.methods.pal import Dropped
from personalign.prompts import UNSELECTED, Prompter
from personalign.training.examples import Example, Path


@dataclass(frozen=True, slots=True)
class Remembered:
    """A session told after others of the same person.

    `dialogue` has the messages of all of them and no persona; the first `past` are those of the earlier sessions, which
    are read and never answered. Over-long prompts lose the oldest of them first.
    """

    dialogue: Dialogue
    past: int

    def turns(self) -> tuple[int, ...]:
        """The person's turns in the session itself, as indices into the messages of `dialogue`."""
        return tuple(turn for turn in self.dialogue.reply_indices() if turn >= self.past)


def remember(session: Dialogue, references: Sequence[Dialogue]) -> Remembered:
    """The session after `references`, in the order given."""
    told = tuple(turn for reference in references for turn in reference.messages)
    dialogue = Dialogue(session.id, (), (*told, *session.messages), person=session.person)
    return Remembered(dialogue, len(told))


@dataclass(frozen=True, slots=True)
class Aligned:
    """For one turn of a remembered session: what is worse than its reply, and what is worst."""

    turn: int
    criterion: str
    rejected: str


def mutual_supervised_learning(
    sessions: Iterable[Remembered], prompter: Prompter, *, dropped: Dropped, every_turn: bool = False
) -> list[Example]:
    """Stage 1. The paper learns the last reply of each target session; `every_turn` all of the person's in it."""
    examples: list[Example] = []
    for session in sessions:
        for turn in session.turns()[0 if every_turn else -1 :]:
            if not _fits(session, turn, prompter, dropped):
                continue
            target = prompter.reply_target(session.dialogue.messages[turn].content)
            path = Path("reply", prompter.reply(session.dialogue, turn, line=UNSELECTED), target)
            _keep(examples, Example(session.dialogue.id, turn, (path,)), prompter, dropped)
    return examples


def alignment_triples(
    sessions: Iterable[tuple[Remembered, Sequence[Aligned]]], prompter: Prompter, *, dropped: Dropped
) -> list[Example]:
    """Stage 2: chosen, criterion and rejected replies as three branches of one trunk.

    Triples in which two replies are equal, or one is empty, teach a wrong order or none; they are dropped and counted.
    """
    examples: list[Example] = []
    for session, triples in sessions:
        for triple in triples:
            gold = session.dialogue.messages[triple.turn].content
            replies = {"chosen": gold, "criterion": triple.criterion, "rejected": triple.rejected}
            if not all(text.strip() for text in replies.values()):
                dropped.add("empty criterion or rejected reply")
            elif len({tuple(prompter.reply_target(" ".join(text.split()))) for text in replies.values()}) < 3:
                dropped.add("two replies of a triple are equal")
            elif _fits(session, triple.turn, prompter, dropped):
                prompt = prompter.reply(session.dialogue, triple.turn, line=UNSELECTED)
                paths = [Path(kind, prompt, prompter.reply_target(text)) for kind, text in replies.items()]
                example = Example(session.dialogue.id, triple.turn, tuple(paths))
                _keep(examples, example, prompter, dropped)
    return examples


def learnt_turns(session: Dialogue, *, every_turn: bool) -> tuple[int, ...]:
    """The person's last turn of a session, or every one."""
    return session.reply_indices()[0 if every_turn else -1 :]


def without_criterion(examples: Iterable[Example]) -> list[Example]:
    """The same as pairs, for plain DPO (Table 3, without criterion)."""
    return [
        replace(example, paths=tuple(path for path in example.paths if path.kind != "criterion"))
        for example in examples
    ]


def _fits(session: Remembered, turn: int, prompter: Prompter, dropped: Dropped) -> bool:
    window = prompter.window(session.dialogue, turn)
    if not window.fits:
        dropped.add("longer than max_tokens")
    elif window.trimmed:
        dropped.add("kept, oldest turns trimmed")
    return window.fits


def _keep(examples: list[Example], example: Example, prompter: Prompter, dropped: Dropped) -> None:
    """Unless a target longer than the reserve makes it too long."""
    if max(len(path) for path in example.paths) <= prompter.settings.max_tokens:
        examples.append(example)
    else:
        dropped.add("target longer than the room for it")
