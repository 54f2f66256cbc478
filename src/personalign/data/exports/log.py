"""What a chat export holds: who wrote what, and when."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message as it was sent. `line` is where it stands in the file.

    `sent` has no offset: it is UTC where the export has one, else the export's wall clock. `sender_id` tells people of
    one name apart, where the export has it.
    """

    sender: str
    text: str
    sent: datetime
    line: int
    sender_id: str | None = None


@dataclass(frozen=True, slots=True)
class ChatLog:
    """The messages of one chat in the order in which they were sent, and why others were left out, with counts.

    That is the order of the file, but for tables, whose rows may stand in any. The clock does not tell: where summer time
    ends, it shows an hour twice.
    `remarks` say what had to be guessed, such as the order of day and month.
    """

    messages: tuple[ChatMessage, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def senders(self) -> Counter[str]:
        """How many messages each person sent."""
        return Counter(message.sender for message in self.messages)


# Reasons why a message is left out.
SYSTEM = "system messages"
MEDIA = "media without text"
DELETED = "deleted messages"
FORWARDED = "forwarded messages"
BLANK = "blank messages"
NOBODY = "messages without a sender"


def in_utc(sent: datetime) -> datetime:
    """The time without an offset: in UTC if it had one, else as it is."""
    return sent.replace(tzinfo=None) if sent.tzinfo is None else sent.astimezone(UTC).replace(tzinfo=None)
