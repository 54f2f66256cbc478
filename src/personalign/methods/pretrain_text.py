"""The text of a backbone that is dialogue of its own making, or has to be put in order before it is read."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.synthetic import foreign_values, generate, vocabulary
from personalign.methods.pretrain_recipe import SyntheticText

# What may stand for a value: long enough to be no function word, short enough to be said.
_WORD = re.compile(r"(?<![a-z'])[a-z]{4,12}(?![a-z'])")
_SPACED_MARK = re.compile(r" +(?=[.,?!;:])")


def synthetic_text(
    settings: SyntheticText, files: Sequence[Dialogue], *, language: str, seed: int
) -> list[Dialogue]:
    """The dialogues that a recipe's `data.synthetic` asks for; `files` are where its words come from."""
    people = {"train": settings.people}
    made = list(generate(language, seed=settings.seed, people=people, exchanges=settings.exchanges).train)
    # Drawn apart, so that there are all four kinds of dialogue.
    rng = random.Random(f"{seed}/synthetic text")
    if settings.words:
        words = words_of(files, but_not=vocabulary(language))
        chosen = [at for at in range(len(made)) if rng.random() < settings.words]
        for at, item in zip(
            chosen, foreign_values([made[at] for at in chosen], words, seed=seed), strict=True
        ):
            made[at] = item
    return [unspaced(item) if rng.random() < settings.unspaced else item for item in made]


def words_of(dialogues: Sequence[Dialogue], *, but_not: Sequence[str]) -> list[str]:
    """The distinct words of four to twelve letters that the messages hold, lowercased and sorted, without some."""
    found = {
        word for item in dialogues for turn in item.messages for word in _WORD.findall(turn.content.lower())
    }
    return sorted(found - set(but_not))


def unspaced(dialogue: Dialogue) -> Dialogue:
    """As people write, with no space before a punctuation mark."""
    return _rewritten(dialogue, lambda text: _SPACED_MARK.sub("", text))


def filled_in(
    dialogues: Sequence[Dialogue], choices: Mapping[str, Sequence[str]], *, seed: int
) -> list[Dialogue]:
    """What matches a pattern replaced by one of its choices, by the same one wherever a dialogue has it again."""
    rng = random.Random(f"{seed}/fill in")
    return [_filled_in(item, choices, rng) for item in dialogues]


def _filled_in(dialogue: Dialogue, choices: Mapping[str, Sequence[str]], rng: random.Random) -> Dialogue:
    for pattern, words in choices.items():
        chosen: dict[str, str] = {}

        def fill(match: re.Match[str], words: Sequence[str] = words, chosen: dict[str, str] = chosen) -> str:
            return chosen.setdefault(match.group(), rng.choice(words))

        dialogue = _rewritten(dialogue, lambda text, pattern=pattern, fill=fill: re.sub(pattern, fill, text))  # type: ignore[misc]
    return dialogue


def _rewritten(dialogue: Dialogue, rewrite: Callable[[str], str]) -> Dialogue:
    return replace(
        dialogue,
        persona=tuple(map(rewrite, dialogue.persona)),
        partner_persona=tuple(map(rewrite, dialogue.partner_persona)),
        messages=tuple(Turn(turn.role, rewrite(turn.content)) for turn in dialogue.messages),
    )
