"""The same history under another persona: a model that reads its persona must change its reply."""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.synthetic.grammar import Kind, find_values, grammar, replace_values
from personalign.data.synthetic.oracle import SyntheticOracle
from personalign.errors import PersonalignError

# More than a dialogue has values.
_MADE_UP = 40
_SHORTEST = 3
_ONSETS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "w",
    "br",
    "cl",
    "dr",
    "gr",
    "st",
    "tr",
    "pl",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "oo"]
_CODAS = ["", "n", "r", "l", "s", "t", "ck", "nd"]


def swap_personas(dialogues: Sequence[Dialogue], *, seed: int) -> list[Dialogue]:
    """Each dialogue with a person who has the same kinds of fact, each with another value.

    Lines and replies keep their wordings and only their values change, so `relevant` holds on; the user's
    turns stay. No new value is the partner's, values seen in training stay such, and so do unseen ones.
    With `dataclasses.replace(dialogue, persona=swapped.persona)` even the earlier replies stay as they were.
    """
    rng = random.Random(f"{seed}/swap")
    return [_swap(dialogue, rng) for dialogue in dialogues]


def shuffle_personas(dialogues: Sequence[Dialogue], *, seed: int) -> list[Dialogue]:
    """Each dialogue under the persona of a random other person, all messages unchanged.

    `relevant` is what the oracle says of the unchanged replies, mostly none; `truth` stays the old persona's.
    Raises PersonalignError where all dialogues are of one person.
    """
    rng = random.Random(f"{seed}/shuffle")
    owners = [dialogue.person or dialogue.id for dialogue in dialogues]
    if dialogues and len(set(owners)) < 2:
        raise PersonalignError(
            f"all dialogues are of person {owners[0]}; give dialogues of two or more people"
        )
    shuffled = []
    for dialogue, owner in zip(dialogues, owners, strict=True):
        place = rng.randrange(len(dialogues))
        while owners[place] == owner:
            place = rng.randrange(len(dialogues))
        shuffled.append(_under(dialogue, dialogues[place].persona))
    return shuffled


def foreign_values(dialogues: Sequence[Dialogue], words: Sequence[str], *, seed: int) -> list[Dialogue]:
    """Each dialogue with words in the place of all values, of either speaker, no word for two values of a dialogue.

    Whoever learns from them cannot know the values by heart. Wordings, months and `relevant` stay; the oracle does not
    know such values. Raises PersonalignError where a dialogue has more values than there are words.
    """
    rng = random.Random(f"{seed}/words")
    given = []
    for dialogue in dialogues:
        language = _language(dialogue)
        said = [*dialogue.persona, *dialogue.partner_persona, *(turn.content for turn in dialogue.messages)]
        old = list(dict.fromkeys(value for text in said for _, value in find_values(text, language=language)))
        if len(old) > len(words):
            raise PersonalignError(
                f"dialogue {dialogue.id} has {len(old)} values, but there are {len(words)} words to take their "
                "place; give more words"
            )
        given.append(_with_values(dialogue, dict(zip(old, rng.sample(words, len(old)), strict=True))))
    return given


def with_made_up_values(dialogues: Sequence[Dialogue], *, share: float, seed: int) -> list[Dialogue]:
    """A share of the dialogues, chosen at random, with made-up words for values; no dialogue's are another's."""
    rng = random.Random(f"{seed}/made up")
    return [
        foreign_values([item], made_up_words(_MADE_UP, rng=rng), seed=rng.getrandbits(32))[0]
        if rng.random() < share
        else item
        for item in dialogues
    ]


def made_up_words(count: int, *, rng: random.Random) -> list[str]:
    """Distinct words of one to three syllables that can be said and are no value of the English grammar."""
    values = {value for kind in grammar("en").kinds for value in kind.seen + kind.unseen}
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.randint(1, 3)))
        word = "".join(syllables) + rng.choice(_CODAS)
        if len(word) > _SHORTEST and word not in values:
            words[word] = None
    return list(words)


def _with_values(dialogue: Dialogue, new: Mapping[str, str]) -> Dialogue:
    """Under the new values wherever an old one is named, by whomever."""

    def renamed(text: str) -> str:
        return replace_values(text, new, language=_language(dialogue))

    return dataclasses.replace(
        dialogue,
        persona=tuple(map(renamed, dialogue.persona)),
        partner_persona=tuple(map(renamed, dialogue.partner_persona)),
        messages=tuple(Turn(turn.role, renamed(turn.content)) for turn in dialogue.messages),
        extra={**dialogue.extra, "truth": [_retold(row, new) for row in dialogue.extra["truth"]]},
    )


def _swap(dialogue: Dialogue, rng: random.Random) -> Dialogue:
    language = _language(dialogue)
    facts = dict(fact for line in dialogue.persona for fact in find_values(line, language=language))
    partner = dict(fact for line in dialogue.partner_persona for fact in find_values(line, language=language))
    new = {
        value: _another_value(grammar(language).kind(kind), rng, but_not=(value, partner.get(kind)))
        for kind, value in facts.items()
    }
    return dataclasses.replace(
        dialogue,
        persona=tuple(replace_values(line, new, language=language) for line in dialogue.persona),
        messages=tuple(
            Turn("assistant", replace_values(turn.content, new, language=language))
            if turn.role == "assistant"
            else turn
            for turn in dialogue.messages
        ),
        extra={**dialogue.extra, "truth": [_retold(row, new) for row in dialogue.extra["truth"]]},
    )


def _another_value(kind: Kind, rng: random.Random, *, but_not: tuple[str | None, ...]) -> str:
    pool = kind.unseen if but_not[0] in kind.unseen else kind.seen
    return rng.choice([value for value in pool if value not in but_not])


def _retold(row: Mapping[str, Any], new: Mapping[str, str]) -> dict[str, Any]:
    return {**row, "value": new.get(row["value"])}


def _under(dialogue: Dialogue, persona: tuple[str, ...]) -> Dialogue:
    oracle = SyntheticOracle(_language(dialogue))
    replies = [dialogue.messages[index].content for index in dialogue.reply_indices()]
    relevant = tuple(
        tuple(index for index, line in enumerate(persona) if oracle.is_right(reply, line=line))
        for reply in replies
    )
    return dataclasses.replace(dialogue, persona=persona, relevant=relevant)


def _language(dialogue: Dialogue) -> str:
    language = dialogue.extra.get("language")
    if language is None or "truth" not in dialogue.extra:
        raise PersonalignError(
            f"dialogue {dialogue.id} has no language and truth, so it is not of the synthetic corpus; "
            "give dialogues that the corpus generator made"
        )
    return str(language)
