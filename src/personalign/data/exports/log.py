"""What a chat export holds: who wrote what, and when."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message as it was sent. `sent` is the wall clock of the export; `line` is where it stands in the file.

    `sender_id` tells people of one name apart, where the export has it.
    """

    sender: str
    text: str
    sent: datetime
    line: int
    sender_id: str | None = None


@dataclass(frozen=True, slots=True)
class ChatLog:
    """The messages of one chat in the order of the file, and why others were left out, with counts.

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
