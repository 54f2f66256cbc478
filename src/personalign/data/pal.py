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


def read_rows(text: str, *, file: str) -> Rows:
    """The dialogues of a JSON array of tuples, or of one tuple per line, as native rows."""
    values = read_json_values(text, file=file)
    faults = list(values.faults)
    examples = []
    for row in values.rows:
        problems = list(tuple_problems(row.value))
        faults.extend(Fault(file, row.line, *problem) for problem in problems)
        if not problems:
            persona, history, response, labels = row.value
            relevant = [index for index in labels if index != _NONE]
            examples.append(Example(row.line, persona, history, response, relevant))
    return Rows(tuple(row_of(group) for group in by_dialogue(examples)), tuple(faults))


def by_dialogue(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """The `examples` of each dialogue that they were cut from.

    An example continues the dialogue before it when persona and `rest` are equal and its history, less the
    last utterance, is how that dialogue ended. `id` decides nothing.
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
        said += [*example.history[-1:], example.response]
    if current:
        yield current


def row_of(examples: list[Example]) -> Row:
    """The row of the dialogue that `examples` make up.

    A first example with a longer history (a file that was shuffled or cut inside a dialogue) gives its last
    exchange alone: the earlier replies of its history have no label, so they must not become examples; they
    are kept in `extra["earlier_history"]`.
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
    if len(first.history) > 1:
        value[EARLIER] = first.history[:-1]
    return Row(first.line, value)


def tuple_problems(value: Any) -> Iterator[tuple[str, str, str]]:
    if not isinstance(value, list):
        yield "line", f"is {kind(value)}", _SHAPE
        return
    if len(value) != 4:
        yield "line", f"has {len(value)} parts", _SHAPE
        return
    persona, history, response, labels = value
    for name, texts in (("persona", persona), ("history", history)):
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
            yield name, "is not a list of non-empty strings", "write the sentences, [] if there are none"
    if not isinstance(response, str) or not response.strip():
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


def tuples_from(dialogues: Iterable[Dialogue], *, window: int | None = None) -> Iterator[list[Any]]:
    """PAL's tuple of every reply; `window` utterances of history (the release keeps 3), None: all.

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
        texts = [turn.content for turn in dialogue.messages]
        for index, relevant in zip(dialogue.reply_indices(), dialogue.relevant, strict=True):
            start = 0 if window is None else max(0, index - window)
            yield [list(dialogue.persona), texts[start:index], texts[index], list(relevant) or [_NONE]]
