"""Files with a few things done to them, from a changed character to a lost line, for readers that must never stumble."""

import random

JUNK = [
    '"',
    "'",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "-",
    "#",
    "&a",
    "*a",
    "? ",
    "|",
    "\\ud800",
    "\x00",
    "\t",
    "é",
    "NaN",
]
JUNK += [
    "1e999",
    ".inf",
    "2026-01-01",
    "9" * 5000,
    "null",
    "true",
    "-1",
    "[" * 3000,
    "{a: " * 300,
    "\u2028",
    "\r",
    "  ",
]


def mutated(data: bytes, generator: random.Random) -> bytes:
    """One to three mutations of lines, characters or bytes."""
    for _ in range(generator.choice([1, 1, 2, 3])):
        lines = data.split(b"\n")
        index = generator.randrange(len(lines))
        match generator.randrange(9):
            case 0:
                del lines[index]
            case 1:
                lines.insert(generator.randrange(len(lines) + 1), lines[index])
            case 2:
                lines[index] = lines[index][: generator.randrange(len(lines[index]) + 1)]
            case 3 | 4 | 5:
                at = generator.randrange(len(lines[index]) + 1)
                end = at + generator.choice([0, 0, 1, 4])
                junk = generator.choice(JUNK).encode("utf-8", "surrogatepass")
                lines[index] = lines[index][:at] + junk + lines[index][end:]
            case 6:
                other = generator.randrange(len(lines))
                lines[index], lines[other] = lines[other], lines[index]
            case 7:
                lines[index] = b"  " + lines[index]
            case _:
                at = generator.randrange(len(data) + 1)
                noise = bytes(generator.randrange(256) for _ in range(generator.randint(1, 4)))
                data = data[:at] + noise + data[at:]
                continue
        data = b"\n".join(lines)
    return data
