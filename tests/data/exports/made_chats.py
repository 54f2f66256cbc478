"""WhatsApp's exports line by line, and what is read from them."""

from personalign.data.exports import ChatLog, DateOrder
from personalign.data.exports.whatsapp import read_whatsapp


def said(log: ChatLog) -> list[tuple[str, str]]:
    return [(message.sender, message.text) for message in log.messages]


def whatsapp(*lines: str, date_order: DateOrder | None = None) -> ChatLog:
    return read_whatsapp("\n".join(lines) + "\n", file="chat.txt", date_order=date_order)
