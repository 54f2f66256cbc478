"""PAL's JSON: one `[persona, history, response, labels]` per reply, `[-1]` the label none.

The format of the PAL release (Li et al. 2025) and of the labelled PERSONA-CHAT that it starts from. History
is a window of utterances that alternate, the last one the partner's. Consecutive tuples of one dialogue are
joined again, so that each utterance is read once and a dialogue makes one tree.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from personalign.data.dialogue import Dialogue
from personalign.data.faults import Fault, Row, Rows, kind
from personalign.data.text import read_json_values
from personalign.errors import PersonalignError

EARLIER = "earlier_history"
_NONE = -1
_SHAPE = "write [persona, history, response, labels]"


@dataclass(frozen=True, slots=True)
class Example:
    """One reply. `relevant` is None where the source has no labels.

    Tables say more than tuples: `id` is that of the dialogue, `candidates` are those of the reply, and `rest`
    holds the other keys of a native row.
    """

    line: int
    persona: list[str]
    history: list[str]
    response: str
    relevant: list[int] | None
    candidates: list[Any] | None = None
    id: Any = None
    rest: Mapping[str, Any] = field(default_factory=dict)


def read_rows(text: str, *, file: str, blank_turns: bool = False) -> Rows:
    """The dialogues of a JSON array of tuples, or of one tuple per line, as native rows.

    `blank_turns`: let them through, for whoever takes them out; else each is a fault.
    """
    values = read_json_values(text, file=file)
    faults = list(values.faults)
    examples = []
    for row in values.rows:
        problems = list(tuple_problems(row.value, blank_turns=blank_turns))
        faults.extend(Fault(file, row.line, *problem) for problem in problems)
        if not problems:
            persona, history, response, labels = row.value
            relevant = [index for index in labels if index != _NONE]
            examples.append(Example(row.line, persona, history, response, relevant))
    return Rows(tuple(row_of(group) for group in by_dialogue(examples)), tuple(faults))


def by_dialogue(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """The `examples` of each dialogue that they were cut from.

    An example continues the dialogue before it when persona and `rest` are equal and its history, less the
    last utterance, is how that dialogue ended, what was said before its first example included. `id` decides
    nothing.
    """
    current: list[Example] = []
    said: list[str] = []
    for example in examples:
        *before, _ = example.history or [""]
        joins = (
            bool(current)
            and bool(before)
            and example.persona == current[0].persona
            and example.rest == current[0].rest
            and (example.relevant is None) == (current[0].relevant is None)
            and said[-len(before) :] == before
        )
        if current and not joins:
            yield current
            current, said = [], []
        current.append(example)
        # The first example brings what was said before it.
        said += [*(example.history if len(current) == 1 else example.history[-1:]), example.response]
    if current:
        yield current


def row_of(examples: list[Example]) -> Row:
    """The row of the dialogue that `examples` make up.

    A first example with a longer history (a file that was shuffled or cut inside a dialogue) gives its last
    exchange alone: the earlier replies of its history have no label, so they must not become examples; they
    are kept in `extra["earlier_history"]`. Of a history with a blank utterance, which is to be taken out, only
    what follows it is kept: without it the speakers would no longer alternate.
    """
    messages: list[dict[str, str]] = []
    for example in examples:
        messages += [{"role": "user", "content": text} for text in example.history[-1:]]
        messages.append({"role": "assistant", "content": example.response})
    first = examples[0]
    value: dict[str, Any] = {**first.rest, "persona": first.persona, "messages": messages}
    if first.id is not None:
        value["id"] = first.id
    if any(example.candidates for example in examples):
        value["candidates"] = [example.candidates or [] for example in examples]
    if first.relevant is not None:
        value["relevant"] = [example.relevant for example in examples]
    blanks = [place for place, text in enumerate(first.history, start=1) if not text.strip()]
    if earlier := first.history[max(blanks, default=0) : -1]:
        value[EARLIER] = earlier
    return Row(first.line, value)


def tuple_problems(value: Any, *, blank_turns: bool = False) -> Iterator[tuple[str, str, str]]:
    if not isinstance(value, list):
        yield "line", f"is {kind(value)}", _SHAPE
        return
    if len(value) != 4:
        yield "line", f"has {len(value)} parts", _SHAPE
        return
    persona, history, response, labels = value
    for name, texts, blanks in (("persona", persona, False), ("history", history, blank_turns)):
        if not _are_texts(texts, blanks=blanks):
            yield name, "is not a list of non-empty strings", "write the sentences, [] if there are none"
    if not isinstance(response, str) or not (response.strip() or blank_turns):
        yield "response", "is empty or no string", "write the reply, or take the tuple out"
    if not isinstance(labels, list) or not all(type(index) is int for index in labels) or not labels:
        yield "labels", "is not a list of whole numbers", "write indices into the persona, [-1] for none"
    elif _NONE in labels and len(labels) > 1:
        yield "labels", "names lines and none at once", "write [-1] alone, or only the lines"
    elif isinstance(persona, list) and any(not _NONE <= index < len(persona) for index in labels):
        problem = f"{labels} points outside the persona's {len(persona)} lines"
        yield "labels", problem, "write indices from 0, [-1] for none"
    elif len(set(labels)) < len(labels):
        yield "labels", "names a line twice", "name each line once"


def _are_texts(value: Any, *, blanks: bool = False) -> bool:
    return isinstance(value, list) and all(
        isinstance(text, str) and (blanks or text.strip()) for text in value
    )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What PAL's tuples, one per reply, have no place for: `turns` that no reply follows, and whole `dialogues`."""

    turns: int
    dialogues: int


def left_out(dialogues: Iterable[Dialogue]) -> LeftOut:
    turns = without_reply = 0
    for dialogue in dialogues:
        replies = dialogue.reply_indices()
        turns += len(dialogue.messages) - (replies[-1] + 1 if replies else 0)
        without_reply += not replies
    return LeftOut(turns, without_reply)


def tuples_from(dialogues: Iterable[Dialogue], *, window: int | None = None) -> Iterator[list[Any]]:
    """PAL's tuple of every reply; `window` utterances of history (the release keeps 3), None: all.

    A history begins with what `extra["earlier_history"]` kept of it. What is left out, `left_out` counts.
    Raises PersonalignError for a dialogue without labels or whose speakers do not alternate.
    """
    for dialogue in dialogues:
        if dialogue.relevant is None:
            raise PersonalignError(f"dialogue {dialogue.id} has no `relevant`: PAL's format needs labels")
        roles = [turn.role for turn in dialogue.messages]
        if any(role == following for role, following in pairwise(roles)):
            raise PersonalignError(
                f"dialogue {dialogue.id}: two turns in a row by one speaker, but PAL's history alternates; "
                "merge them (`--merge-turns`)"
            )
        earlier = dialogue.extra.get(EARLIER) or []
        if not _are_texts(earlier):
            raise PersonalignError(
                f"dialogue {dialogue.id}: `{EARLIER}` is not a list of non-empty strings; write what was said "
                "before, or take the key out"
            )
        texts = [*earlier, *(turn.content for turn in dialogue.messages)]
        for reply, relevant in zip(dialogue.reply_indices(), dialogue.relevant, strict=True):
            index = len(earlier) + reply
            start = 0 if window is None else max(0, index - window)
            yield [list(dialogue.persona), texts[start:index], texts[index], list(relevant) or [_NONE]]
