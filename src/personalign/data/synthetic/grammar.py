"""The grammar of the synthetic corpus: kinds of fact, their values, and the wordings of everything said."""

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Literal

from personalign.errors import PersonalignError

Part = Literal["train", "stop", "test"]
"""Whose wordings: `stop` and `test` each have some that occur nowhere else."""

PARTS: tuple[Part, ...] = ("train", "stop", "test")
_FILES = {"en": "english.toml", "zh": "chinese.toml"}
_FULL_STOP = {"en": " .", "zh": "。"}


@dataclass(frozen=True, slots=True)
class Wordings:
    """Sentences, those of persona lines and replies with `{}` where the value goes."""

    train: tuple[str, ...]
    stop: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, part: Part) -> tuple[str, ...]:
        return {"train": self.train, "stop": self.stop, "test": self.test}[part]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fact. A person has one value of a kind, so that another value contradicts it.

    `unseen` are the values of people in the unseen part; no other part has them. All replies that are not
    held out for `test` may be given in any part: the words of a reply are what a model must have learnt.
    """

    name: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    lines: Wordings
    questions: Wordings
    replies: Wordings

    def replies_in(self, part: Part) -> tuple[str, ...]:
        return self.replies.train + (self.replies.test if part == "test" else ())


@dataclass(frozen=True, slots=True)
class Grammar:
    """Everything that can be said in one language.

    `months` date facts of any kind: who says a fact says the month as well, so that knowing which values belong to
    a kind is not enough to state it. `and_you` hands the partner's own fact back as a question, `remarks` answer such
    a fact, `evasions` answer a question that no persona line answers, `greetings` and `exchanges` map small talk to
    its replies.
    """

    language: str
    kinds: tuple[Kind, ...]
    months: tuple[str, ...]
    date_frame: str
    and_you: tuple[str, ...]
    remarks: tuple[str, ...]
    evasions: tuple[str, ...]
    greetings: Mapping[str, tuple[str, ...]]
    exchanges: Mapping[str, tuple[str, ...]]

    def kind(self, name: str) -> Kind:
        return next(kind for kind in self.kinds if kind.name == name)

    def dated(self, sentence: str, month: str) -> str:
        """A line or reply that says since when; it ends with the language's full stop."""
        return self.date_frame.format(sentence.removesuffix(_FULL_STOP[self.language]), month)

    def join(self, *sentences: str) -> str:
        """Sentences one after the other, as the language spaces them."""
        return (" " if self.language == "en" else "").join(sentences)

    def talk(self) -> Iterator[str]:
        """Every sentence that states no fact and asks for none."""
        yield from self.and_you + self.remarks + self.evasions
        for said in (self.greetings, self.exchanges):
            for opening, answers in said.items():
                yield opening
                yield from answers


@functools.cache
def grammar(language: str) -> Grammar:
    """The grammar of `language`, "en" or "zh". Raises PersonalignError for any other."""
    if language not in _FILES:
        raise PersonalignError(f"there is no synthetic corpus in language '{language}'; write en or zh")
    text = resources.files(__package__).joinpath(_FILES[language]).read_text(encoding="utf-8")
    table = tomllib.loads(text)
    talk = table["talk"]
    return Grammar(
        language=language,
        kinds=tuple(
            Kind(
                name=name,
                seen=tuple(row["seen"].split()),
                unseen=tuple(row["unseen"].split()),
                lines=_persona_lines(row, table["persona"]["patterns"], number=number),
                questions=_questions(row, table["asking"]["patterns"]),
                replies=_wordings(row["replies"]),
            )
            for number, (name, row) in enumerate(table["kinds"].items())
        ),
        months=tuple(table["dates"]["months"].split()),
        date_frame=table["dates"]["frame"],
        and_you=tuple(talk["and_you"]),
        remarks=tuple(talk["remarks"]),
        evasions=tuple(talk["evasions"]),
        greetings={opening: tuple(answers) for opening, answers in talk["greetings"].items()},
        exchanges={opening: tuple(answers) for opening, answers in talk["exchanges"].items()},
    )


def _wordings(row: Mapping[str, list[str]]) -> Wordings:
    return Wordings(*(tuple(row.get(part, ())) for part in PARTS))


def _questions(row: Mapping[str, Any], patterns: Sequence[str]) -> Wordings:
    """A kind's own questions and, in training, the shared patterns: what is asked for then hangs on the noun alone."""
    own = _wordings(row["questions"])
    asked = (pattern.replace("N", row["noun"]) for pattern in patterns)
    held_out = {*own.stop, *own.test}
    shared = [question for question in asked if question not in held_out and question not in own.train]
    return replace(own, train=(*own.train, *shared))


def _persona_lines(row: Mapping[str, Any], patterns: Sequence[str], *, number: int) -> Wordings:
    """A kind's own lines and the shared patterns, of which other ones are held out from kind to kind.

    Training has every pattern with other kinds, and every kind in other patterns: what is new in a held-out line is
    only that the two meet, and so copying it can be learnt but the line not known by heart.
    """
    said = [pattern.replace("N", row["noun"]).replace("V", row["value"]) for pattern in patterns]
    count = len(said)
    test = {said[number % count], said[(number + 3) % count]}
    stop = {said[(number + 5) % count]}
    held_out = test | stop
    train = (line for line in (*said, *row["lines"]) if line not in held_out)
    return Wordings(train=tuple(train), stop=tuple(sorted(stop)), test=tuple(sorted(test)))


def vocabulary(language: str) -> list[str]:
    """Every token of the grammar, unseen values included, sorted: English words and marks, or characters."""
    rules = grammar(language)
    texts = [*rules.talk(), *rules.months, rules.date_frame.replace("{}", "")]
    for kind in rules.kinds:
        texts += kind.seen + kind.unseen
        for wordings in (kind.lines, kind.questions, kind.replies):
            texts += [text.replace("{}", "") for part in PARTS for text in wordings.of(part)]
    return sorted({token for text in texts for token in tokens(text, language=language)})


def tokens(text: str, *, language: str) -> list[str]:
    """Words and punctuation marks of English, characters of Chinese."""
    return text.split() if language == "en" else list("".join(text.split()))


def find_values(text: str, *, language: str) -> Iterator[tuple[str, str]]:
    """(kind, value) for each value that `text` names, in order of mention; case does not matter."""
    kind_of = _kind_of_value(language)
    for match in _value_pattern(language).finditer(text.lower()):
        yield kind_of[match.group()], match.group()


def find_months(text: str, *, language: str) -> tuple[str, ...]:
    """The months that `text` names, in order of mention."""
    return tuple(match.group() for match in _month_pattern(language).finditer(text.lower()))


def replace_values(text: str, values: Mapping[str, str], *, language: str) -> str:
    """`text` with every value that is a key of `values` replaced."""
    return _value_pattern(language).sub(lambda match: values.get(match.group(), match.group()), text)


@functools.cache
def _kind_of_value(language: str) -> dict[str, str]:
    return {value: kind.name for kind in grammar(language).kinds for value in kind.seen + kind.unseen}


@functools.cache
def _month_pattern(language: str) -> re.Pattern[str]:
    choices = "|".join(grammar(language).months)
    return re.compile(rf"(?<![a-z])(?:{choices})(?![a-z])" if language == "en" else choices)


@functools.cache
def _value_pattern(language: str) -> re.Pattern[str]:
    longest_first = sorted(_kind_of_value(language), key=lambda value: (-len(value), value))
    choices = "|".join(map(re.escape, longest_first))
    # Chinese has no word boundaries; in English "pop" must not be found in "popular".
    return re.compile(rf"(?<![a-z])(?:{choices})(?![a-z])" if language == "en" else choices)
