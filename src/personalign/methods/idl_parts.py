"""The people of a run of IDL, by part: those it learns from, and those it is tested on."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from personalign.data.dialogue import Dialogue
from personalign.data.people import Person, people_of, without_lines_of
from personalign.data.split import conversation_of
from personalign.data.synthetic.corpus import CORPUS_VERSION
from personalign.errors import PersonalignError
from personalign.methods.idl_recipe import TEST, IdlRecipe, PeopleFiles, SyntheticPeople, TestPeople
from personalign.methods.parts import Parts, bytes_of, read_key
from personalign.methods.pretraining import pretraining_texts

# A person of fewer sessions has none that others could be told before.
FEWEST = 2


def load_people(recipe: IdlRecipe, *, say: Callable[[str], None]) -> Parts:
    """The sessions of each part's people, each with `person`; those of one person stand together, in their order.

    `train` holds people of one session, too: fine-tuning on each conversation alone learns from them. Raises
    PersonalignError where nobody is left to learn from or to test on.
    """
    if recipe.data.synthetic is not None:
        return _synthetic(recipe.data.synthetic, recipe.language)
    files = recipe.data.files
    assert files is not None
    tested = {name: _tested(files, test, say=say) for name, test in files.test.items()}
    everybody = [person for people in tested.values() for person in people]
    known = [session for key in files.train for session in _named(files, key)]
    people = people_of(_usable(known, "what is learnt from", say=say))
    unshared = without_lines_of(people, everybody)
    kept = unshared[: files.limit]
    shared = len(people) - len(unshared)
    say(f"{shared} of {len(people)} people left out of training, who share something with tested ones")
    # By person alone: of chats in which everybody meets others, whoever has met would be one group.
    drawn = list(kept)
    random.Random(f"{recipe.data.split_seed}/align").shuffle(drawn)
    aligned = {person.name for person in drawn[: round(files.align_share * len(drawn))]}
    parts = {
        "train": _sessions([person for person in kept if person.name not in aligned]),
        "align": _sessions([person for person in kept if person.name in aligned]),
    }
    for name, sessions in parts.items():
        if not people_of(sessions, least=FEWEST):
            raise PersonalignError(
                f"data: nobody of the part '{name}' has two sessions, which IDL learns from; give files of more people, "
                "or another data.files.align_share"
            )
    return parts | {name: _sessions(people) for name, people in tested.items()}


def people_fingerprint(recipe: IdlRecipe) -> dict[str, Any]:
    """What decides the parts: the recipe's section, the version of the synthetic corpus, and the bytes of files."""
    values: dict[str, Any] = recipe.data.model_dump(mode="json")
    files = recipe.data.files
    if files is None:
        return values | {"corpus version": CORPUS_VERSION}
    return values | bytes_of(
        files.hub, [*files.train, *(test.file for test in files.test.values()), *files.pretrain]
    )


def tested_parts(recipe: IdlRecipe) -> dict[str, TestPeople]:
    """The parts that are tested on, the report's first."""
    if recipe.data.files is None:
        return {TEST: TestPeople(file="")}
    return dict(sorted(recipe.data.files.test.items(), key=lambda item: item[0] != TEST))


def people_texts(recipe: IdlRecipe, parts: Parts) -> tuple[list[Dialogue], dict[str, int]]:
    """What a backbone from scratch may read, without what is tested, and counts of what was left out."""
    files = recipe.data.files
    if files is None:
        return parts["train"], {"dialogues": len(parts["train"])}
    tested = [session for name in tested_parts(recipe) for session in parts[name]]
    return pretraining_texts(files, files.pretrain, parts["train"], tested)


def _synthetic(sizes: SyntheticPeople, language: str) -> Parts:
    from personalign.data.synthetic import generate

    corpus = generate(
        language,
        seed=sizes.seed,
        people={"train": sizes.train, "align": sizes.align, "test": sizes.test},
        sessions_per_person=sizes.sessions,
        exchanges=sizes.exchanges,
    )
    return {"train": list(corpus.train), "align": list(corpus.align), TEST: list(corpus.test)}


def _usable(sessions: Sequence[Dialogue], where: str, *, say: Callable[[str], None]) -> list[Dialogue]:
    """Without sessions in which the person says nothing, and without the other side of one that the person has.

    The latter, told before that one, would tell it every reply. What is left out is said.
    """
    kept: list[Dialogue] = []
    silent = mirrored = 0
    for person in people_of(sessions):
        heard: set[str] = set()
        for session in person.sessions:
            conversation = conversation_of(session)
            if not session.reply_indices():
                silent += 1
            elif conversation is not None and conversation in heard:
                mirrored += 1
            else:
                kept.append(session)
                heard |= {conversation} if conversation is not None else set()
    if silent or mirrored:
        say(
            f"{where}: {silent + mirrored} of {len(sessions)} sessions left out: in {silent} the person says nothing, "
            f"{mirrored} are the other side of one of the same person's"
        )
    return kept


def _tested(files: PeopleFiles, test: TestPeople, *, say: Callable[[str], None]) -> list[Person]:
    usable = _usable(read_key(files, test.file), test.file, say=say)
    people = people_of(usable, least=max(FEWEST, test.least))[: test.limit]
    if not people:
        raise PersonalignError(
            f"data: nobody in '{test.file}' has {max(FEWEST, test.least)} sessions; give another file, or a smaller "
            "`least`"
        )
    return people


def _named(files: PeopleFiles, key: str) -> list[Dialogue]:
    """With ids that the files do not share."""
    return [replace(session, id=f"{key}/{session.id}") for session in read_key(files, key)]


def _sessions(people: Sequence[Person]) -> list[Dialogue]:
    return [replace(session, person=person.name) for person in people for session in person.sessions]
