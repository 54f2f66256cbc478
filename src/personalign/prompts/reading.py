"""What a freely decoded selection means."""

import difflib
import re

_NUMBER = re.compile(r"\s*(\d{1,3})\s*[.)．、:：]")
_ALIKE = 0.6


def read_selection(text: str, persona: tuple[str, ...] | list[str]) -> int | None:
    """Index of the persona line that the text names, or None.

    Only the first line of the text counts. A line that is equal but for case and blanks wins; then a leading
    number (from 1) that a line has; then the most similar line, if its difflib ratio is at least 0.6.
    """
    said = text.strip().split("\n", 1)[0]
    wanted, lines = _plain(said), [_plain(line) for line in persona]
    if wanted in lines:
        return lines.index(wanted)
    number = _NUMBER.match(said)
    if number and 1 <= int(number[1]) <= len(lines):
        return int(number[1]) - 1
    likeness = [difflib.SequenceMatcher(None, wanted, line, autojunk=False).ratio() for line in lines]
    best = max(range(len(lines)), key=likeness.__getitem__, default=None)
    return best if best is not None and likeness[best] >= _ALIKE else None


def _plain(text: str) -> str:
    return "".join(text.casefold().split())
