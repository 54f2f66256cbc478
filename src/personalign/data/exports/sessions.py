"""From a chat log to the sessions of one person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from personalign.data.dialogue import Dialogue, Role, Turn
from personalign.data.exports.log import ChatLog, ChatMessage
from personalign.errors import PersonalignError

SILENCE = timedelta(hours=6)
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Sessions:
    """The dialogues of `person`, oldest first; `without_reply` sessions had nothing by them, or nothing but theirs."""

    person: str
    dialogues: tuple[Dialogue, ...]
    messages: int
    without_reply: int
    first: datetime
    last: datetime


def sessions_of(log: ChatLog, person: str, *, silence: timedelta = SILENCE) -> Sessions:
    """Cut the log where nobody wrote for longer than `silence`, and read it with `person` as the assistant.

    A clock that goes back, as at the end of summer time, is no silence. Everybody else is the user. Messages in a row by
    one side become one, a line each. A session needs a message by either side. Raises PersonalignError where nobody, or
    more than one, has that name.
    """
    name = find_person(log, person)
    dialogues: list[Dialogue] = []
    without = 0
    for messages in _cut(log.messages, silence):
        turns = _turns(messages, name)
        if {turn.role for turn in turns} != {"user", "assistant"}:
            without += 1
            continue
        dialogues.append(
            Dialogue(
                id=f"{name}-{len(dialogues) + 1:05d}",
                persona=(),
                messages=tuple(turns),
                person=name,
                extra={"began": messages[0].sent.isoformat(), "ended": messages[-1].sent.isoformat()},
            )
        )
    if not dialogues:
        raise PersonalignError(f"{name} is in no conversation: nobody else writes in {without} sessions")
    first, last = log.messages[0].sent, log.messages[-1].sent
    return Sessions(name, tuple(dialogues), len(log.messages), without, first, last)


def find_person(log: ChatLog, person: str) -> str:
    """The sender of that name; case does not matter, and a beginning will do where it is one person's alone."""
    senders = log.senders()
    wanted = person.casefold().strip()
    equal = [name for name in senders if name.casefold() == wanted]
    found = (
        [person]
        if person in senders
        else equal or [name for name in senders if name.casefold().startswith(wanted)]
    )
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{name} ({count})" for name, count in senders.most_common(_SHOWN))
    more = f" and {len(senders) - _SHOWN} more" if len(senders) > _SHOWN else ""
    what = f"'{person}' could be {', '.join(found)}" if found else f"nobody here is called '{person}'"
    raise PersonalignError(f"person: {what}; write one of: {shown or 'nobody wrote anything'}{more}")


def _cut(messages: Sequence[ChatMessage], silence: timedelta) -> Iterator[list[ChatMessage]]:
    session: list[ChatMessage] = []
    for message in messages:
        if session and message.sent - session[-1].sent > silence:
            yield session
            session = []
        session.append(message)
    if session:
        yield session


def _turns(messages: Sequence[ChatMessage], name: str) -> list[Turn]:
    def role(message: ChatMessage) -> Role:
        return "assistant" if message.sender == name else "user"

    return [Turn(key, "\n".join(item.text for item in group)) for key, group in groupby(messages, key=role)]
