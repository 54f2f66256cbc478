"""Babble that no judge may call entailed: what models say that have not learnt to talk, or have forgotten how.

A judge that saw only sentences calls word salad entailed as soon as it holds the line's words. Some kinds are for
training; the others are held out, to see whether the judge learnt what babble is or only these kinds of it. One of
those, `repeated_line`, is near to two that are trained on: the line's words over and over, drawn at random
(`line_words`) or each by itself (`stuttered_line`), where it repeats a few of them as they stand.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from personalign.evaluation.judge import NEUTRAL
from personalign.evaluation.nli_rows import NliRow
from personalign.evaluation.tokens import mostly_chinese

START, END = "<s>", "</s>"


@dataclass(frozen=True, slots=True)
class Babbler:
    """Makes babble of the length of real replies. Build it with `babbler`.

    `words`: the vocabulary, most frequent first, and how often each occurs; `after`: what follows each word.
    `chinese`: words are characters, with nothing between them.
    """

    replies: tuple[tuple[str, ...], ...]
    words: tuple[str, ...]
    weights: tuple[int, ...]
    after: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]]
    chinese: bool = False

    def make(self, kind: str, *, line: str, shuffle: random.Random) -> str:
        """One reply of a kind of `KINDS`, which may borrow from the persona line that it is set against."""
        said = KINDS[kind](self, _cut(line, chinese=self.chinese), shuffle)
        return ("" if self.chinese else " ").join(said)


def babbler(replies: Sequence[str]) -> Babbler:
    """From real replies, cut at white space or, where most hold Chinese characters, into characters."""
    chinese = mostly_chinese(replies)
    cut = tuple(tuple(words) for reply in replies if (words := _cut(reply, chinese=chinese)))
    counts = Counter(word for reply in cut for word in reply)
    follow: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for reply in cut:
        for first, second in zip((START, *reply), (*reply, END), strict=True):
            follow[first][second] += 1
    ranked = counts.most_common()
    return Babbler(
        cut,
        tuple(word for word, _ in ranked),
        tuple(count for _, count in ranked),
        {word: (tuple(found), tuple(found.values())) for word, found in follow.items()},
        chinese,
    )


def _cut(text: str, *, chinese: bool) -> list[str]:
    return list("".join(text.split())) if chinese else text.split()


def babble_rows(
    made_by: Babbler, lines: Sequence[str], *, kinds: Sequence[str], count: int, seed: int
) -> list[NliRow]:
    """`count` neutral rows, each kind alike, against lines drawn at random."""
    shuffle = random.Random(seed)
    rows = []
    for number in range(count):
        line = shuffle.choice(lines)
        rows.append(
            NliRow(line, made_by.make(kinds[number % len(kinds)], line=line, shuffle=shuffle), NEUTRAL)
        )
    return rows


def _length(made_by: Babbler, shuffle: random.Random) -> int:
    return max(3, len(shuffle.choice(made_by.replies)))


def _shuffled(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """A reply in random order."""
    reply = [*shuffle.choice(made_by.replies), *shuffle.choice(made_by.replies)][
        : _length(made_by, shuffle) + 2
    ]
    return shuffle.sample(reply, len(reply))


def _shuffled_line(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """The persona line itself in random order, some words of others among it."""
    mixed = [*line, *shuffle.choices(made_by.words, made_by.weights, k=3)]
    return shuffle.sample(mixed, len(mixed))


def _line_words(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """Words of the persona line, drawn again and again, some words of others among them."""
    said = [*shuffle.choices(line, k=_length(made_by, shuffle)), *shuffle.choices(made_by.words, k=2)]
    return shuffle.sample(said, len(said))


def _stuttered_line(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """The persona line, or its first or last words, with every word two or three times."""
    size = shuffle.randint(min(len(line), 2), len(line))
    start = shuffle.choice((0, len(line) - size))
    return [word for word in line[start : start + size] for _ in range(shuffle.randint(2, 3))]


def _frequent(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """Words by their frequency: what a model says that has learnt no more than that."""
    return shuffle.choices(made_by.words, made_by.weights, k=_length(made_by, shuffle))


def _any_words(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """Any words alike: an untrained model."""
    return shuffle.choices(made_by.words, k=_length(made_by, shuffle))


def _repeated(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """One to three words over and over."""
    reply = shuffle.choice(made_by.replies)
    size = min(len(reply), shuffle.randint(1, 3))
    start = shuffle.randrange(len(reply) - size + 1)
    return list(reply[start : start + size]) * shuffle.randint(3, 8)


def _repeated_line(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """One to three words of the persona line over and over."""
    size = min(len(line), shuffle.randint(1, 3))
    start = shuffle.randrange(len(line) - size + 1)
    return list(line[start : start + size]) * shuffle.randint(3, 8)


def _stuck(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """A reply that begins well and gets stuck on a word, as half-trained models do."""
    reply = shuffle.choice(made_by.replies)
    cut = shuffle.randint(1, max(1, len(reply) // 2))
    return [*reply[:cut], *[reply[cut - 1]] * shuffle.randint(4, 10)]


def _bigrams(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """A model that knows which word follows which, and no more; uniform over what follows, so that it rambles."""
    said: list[str] = []
    word = START
    for _ in range(_length(made_by, shuffle) + 4):
        (word,) = shuffle.choices(made_by.after[word][0])
        if word == END:
            word = START
            continue
        said.append(word)
    return said or [made_by.words[0]]


def _pieces(made_by: Babbler, line: Sequence[str], shuffle: random.Random) -> list[str]:
    """Pieces of words: an untrained model with a tokenizer of subwords."""
    pieces = []
    for word in shuffle.choices(made_by.words, k=2 * _length(made_by, shuffle)):
        start = shuffle.randrange(len(word))
        pieces.append(word[start : start + shuffle.randint(1, 4)])
    glued: list[str] = []
    for piece in pieces:
        if glued and shuffle.random() < 0.4:
            glued[-1] += piece
        else:
            glued.append(piece)
    return glued


KINDS: Mapping[str, Callable[[Babbler, Sequence[str], random.Random], list[str]]] = {
    "shuffled": _shuffled,
    "shuffled_line": _shuffled_line,
    "line_words": _line_words,
    "stuttered_line": _stuttered_line,
    "frequent_words": _frequent,
    "repeated": _repeated,
    "bigrams": _bigrams,
    "any_words": _any_words,
    "repeated_line": _repeated_line,
    "stuck": _stuck,
    "pieces": _pieces,
}
TRAINED_ON = (
    "shuffled",
    "shuffled_line",
    "line_words",
    "stuttered_line",
    "frequent_words",
    "repeated",
    "bigrams",
)
HELD_OUT = ("any_words", "repeated_line", "stuck", "pieces")
