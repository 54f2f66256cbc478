"""ParlAI's text format (Fb dialog), in which PERSONA-CHAT and ConvAI2 are distributed.

    1 your persona: i keep bees.
    2 partner's persona: i sail.
    3 any pets?<TAB>only bees.<TAB><TAB>i sing.|only bees.
    4 how many?<TAB>two hives.

A line is a number, the partner's text, a tab, the reply, and after two more tabs the candidates. Numbering
that starts again at 1 starts a dialogue. `__SILENCE__` stands for a partner who has not spoken. Files with
the personas of self, other, both and none, original and revised, differ only in their persona lines.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from personalign.data.dialogue import Dialogue
from personalign.data.faults import Fault, Row, Rows, excerpt
from personalign.data.text import lines_of
from personalign.errors import PersonalignError

SILENCE = "__SILENCE__"
_NUMBERED = re.compile(r"([0-9]{1,9}) (.*)", re.DOTALL)
_PERSONAS = {"your persona:": "persona", "partner's persona:": "partner_persona"}
_UNCARRIED = ("\t", "\r", "\\n")


@dataclass(slots=True)
class _Episode:
    line: int
    persona: list[str] = field(default_factory=list)
    partner_persona: list[str] = field(default_factory=list)
    messages: list[dict[str, str]] = field(default_factory=list)
    candidates: list[list[str]] = field(default_factory=list)
    is_whole: bool = True

    def row(self) -> Row:
        value: dict[str, Any] = {"persona": self.persona, "messages": self.messages}
        if self.partner_persona:
            value["partner_persona"] = self.partner_persona
        if any(self.candidates):
            value["candidates"] = self.candidates
        return Row(self.line, value)


def read_rows(text: str, *, file: str, blank_turns: bool = False) -> Rows:
    """The dialogues of a ParlAI text as native rows.

    A line without a tab that names no persona is a partner's turn without a reply. A literal backslash and n
    is a line break, as in ParlAI. `blank_turns`: let them through, for whoever takes them out; else each is a
    fault.
    """
    episodes: list[_Episode] = []
    faults: list[Fault] = []
    previous = 0
    for line, content in lines_of(text):
        match = _NUMBERED.fullmatch(content)
        if match is None:
            remedy = (
                "write a number, a space and the text (`text:...<TAB>labels:...` is another ParlAI format)"
            )
            faults.append(Fault(file, line, "line", f"no line number in {excerpt(content)}", remedy))
            continue
        number = int(match[1])
        if number == 1 or not episodes:
            episodes.append(_Episode(line))
        if number != 1 and number <= previous:
            problem = f"the numbering goes from {previous} to {number}"
            faults.append(Fault(file, line, "number", problem, "count up, and start a dialogue with 1"))
        previous = number
        taken = _take(episodes[-1], match[2], blank_turns=blank_turns)
        problems = [Fault(file, line, *problem) for problem in taken]
        episodes[-1].is_whole &= not problems
        faults.extend(problems)
    return Rows(tuple(episode.row() for episode in episodes if episode.is_whole), tuple(faults))


def _take(episode: _Episode, content: str, *, blank_turns: bool) -> Iterator[tuple[str, str, str]]:
    parts = [_unescape(part) for part in content.split("\t")]
    name = next((prefix for prefix in _PERSONAS if content.startswith(prefix)), None)
    if len(parts) == 1 and name is not None:
        sentence = parts[0].removeprefix(name).removeprefix(" ")
        if episode.messages:
            yield "persona", "a persona line after the first turn", "put the persona lines first"
        elif not sentence.strip():
            yield "persona", "is empty", "write a sentence, or take the line out"
        else:
            (episode.persona if name == "your persona:" else episode.partner_persona).append(sentence)
        return
    yield from _take_turns(episode, parts, blank_turns=blank_turns)


def _take_turns(
    episode: _Episode, parts: Sequence[str], *, blank_turns: bool
) -> Iterator[tuple[str, str, str]]:
    text = parts[0]
    if not text.strip() and not blank_turns:
        remedy = f"write what was said, or {SILENCE}, or give --drop-empty-turns"
        yield "text", "the partner's turn is empty", remedy
    if text != SILENCE:
        episode.messages.append({"role": "user", "content": text})
    if len(parts) == 1:
        if text == SILENCE:
            yield "reply", "there is neither a turn nor a reply", "take the line out"
        return
    reply = parts[1]
    dropped = blank_turns and not reply.strip()
    if not reply.strip() and not blank_turns:
        remedy = "write the reply after the tab, or take the tab out, or give --drop-empty-turns"
        yield "reply", "is empty", remedy
    episode.messages.append({"role": "assistant", "content": reply})
    candidates = parts[3].split("|") if len(parts) > 3 and parts[3] else []
    if len(parts) > 4:
        yield "line", f"has {len(parts)} fields", "write text, reply, (reward,) candidates, parted by tabs"
    if any(not candidate.strip() for candidate in candidates):
        yield "candidates", "one is empty", "take it out: candidates are parted by single bars"
    if candidates and reply not in candidates and not dropped:
        yield "candidates", "the reply is not among them", "add the reply as the last candidate"
    episode.candidates.append(candidates)


def _unescape(text: str) -> str:
    return text.replace("\\n", "\n")


def _escape(text: str) -> str:
    return text.replace("\n", "\\n")


def lines_from(dialogues: Iterable[Dialogue]) -> Iterator[str]:
    """The lines of `dialogues`, without line ends.

    The format has no place for ids, people, labels and extra keys: they are left out. What it would change
    (a tab, a bar in a reply, a turn that reads like a persona line) raises PersonalignError.
    """
    for dialogue in dialogues:
        lines = list(_lines(dialogue))
        if not lines:
            raise PersonalignError(f"dialogue {dialogue.id}: ParlAI's text has no way to write an empty one")
        yield from (f"{number} {line}" for number, line in enumerate(lines, start=1))


def _lines(dialogue: Dialogue) -> Iterator[str]:
    for prefix, sentences in zip(_PERSONAS, (dialogue.persona, dialogue.partner_persona), strict=True):
        for sentence in sentences:
            yield f"{prefix} {_carried(sentence, dialogue)}"
    waiting: str | None = None
    replies = 0
    for turn in dialogue.messages:
        if turn.content == SILENCE:
            raise PersonalignError(
                f"dialogue {dialogue.id}: a turn that reads {SILENCE} means no turn in ParlAI"
            )
        if turn.role == "user":
            if waiting is not None:
                yield _alone(waiting, dialogue)
            waiting = _carried(turn.content, dialogue)
            continue
        candidates = dialogue.candidates[replies] if dialogue.candidates is not None else ()
        replies += 1
        fields = [waiting or SILENCE, _carried(turn.content, dialogue, also="|")]
        if candidates:
            fields += ["", "|".join(_carried(text, dialogue, also="|") for text in candidates)]
        yield "\t".join(fields)
        waiting = None
    if waiting is not None:
        yield _alone(waiting, dialogue)


def _carried(text: str, dialogue: Dialogue, *, also: str = "\t") -> str:
    for mark in (*_UNCARRIED, also):
        if mark in text:
            raise PersonalignError(
                f"dialogue {dialogue.id}: ParlAI's text cannot carry {mark!r} in {excerpt(text)}; "
                "take it out, or write the native format"
            )
    return _escape(text)


def _alone(text: str, dialogue: Dialogue) -> str:
    if text.startswith(tuple(_PERSONAS)):
        raise PersonalignError(
            f"dialogue {dialogue.id}: the unanswered turn {excerpt(text)} would be read as a persona line; "
            "reword it, or write the native format"
        )
    return text
