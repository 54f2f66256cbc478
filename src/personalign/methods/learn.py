"""Learning one person: from their sessions to an adapter, with the sessions that it is told beside it.

sessions.jsonl -> data -> backbone -> stage1 -> model
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from personalign.data.dialogue import Dialogue
from personalign.data.formats import read_dialogues
from personalign.data.people import Person, people_of
from personalign.errors import PersonalignError
from personalign.methods import pal
from personalign.methods.extractors import open_extractor
from personalign.methods.idl import mutual_supervised_learning
from personalign.methods.idl_recipe import Sessions
from personalign.methods.idl_sessions import People, Told, read_people, summary, told_in_training, told_to
from personalign.methods.models import PUBLISHED, SESSIONS
from personalign.methods.parts import Parts, contents_of, fingerprint
from personalign.methods.recipe import BackboneStages, RunRecipe, Selector, Stage, validated
from personalign.methods.recipe_checks import check_common, check_mini
from personalign.methods.selecting import Calibration
from personalign.methods.stages import stage_settings, stage_trees
from personalign.methods.step_run import INFERENCE_BUDGET, StepRun
from personalign.methods.steps import Step
from personalign.models import LoadedModel
from personalign.models.encoder import load_encoder
from personalign.personas.extraction import Extractor, Triple
from personalign.personas.statements import content_words, has_word
from personalign.prompts import Prompter
from personalign.training.examples import Example, grow, statistics
from personalign.training.journal import Validate, Validated

# Of a chat's prompts a third is for the chat itself, before the oldest of what is told is left out.
CHAT_SHARE = 3
ENOUGH_TO_HOLD_OUT = 5


class LearnStages(BackboneStages):
    stage1: Stage


class LearnRecipe(RunRecipe):
    """How one person is learnt; made by `personalign learn`."""

    method: Literal["learn"] = "learn"
    stages: LearnStages
    sessions: Sessions = Sessions()


@dataclass(frozen=True, slots=True)
class FoundFact:
    """A fact, and where it was said: session and message, from 0."""

    fact: Triple
    text: str
    session: int
    message: int


def facts_of(sessions: Sequence[Dialogue], extractor: Extractor) -> list[FoundFact]:
    """What the person says of themselves, in order; a fact that was said again is named once, where it came first."""
    places = [
        (at, turn, session.messages[turn].content)
        for at, session in enumerate(sessions)
        for turn in session.reply_indices()
    ]
    found: dict[Triple, FoundFact] = {}
    for (at, turn, text), facts in zip(
        places, extractor.triples([text for _, _, text in places]), strict=True
    ):
        for fact in facts:
            found.setdefault(fact, FoundFact(fact, text, at, turn))
    return list(found.values())


def without_facts(
    sessions: Sequence[Dialogue],
    struck: Iterable[Triple],
    extractor: Extractor,
    *,
    words: Iterable[str] = (),
) -> tuple[list[Dialogue], int]:
    """The sessions without every message of the person that states a struck fact, and how many messages went.

    Of `words` every message goes that has one, whoever wrote it. A session in which one side says nothing any more goes,
    too.
    """
    unwanted, taboo = set(struck), list(words)
    kept: list[Dialogue] = []
    gone = 0
    for session in sessions:
        texts = [session.messages[turn].content for turn in session.reply_indices()]
        stating = {
            turn
            for turn, facts in zip(session.reply_indices(), extractor.triples(texts), strict=True)
            if unwanted & set(facts)
        }
        stating |= {
            at
            for at, said in enumerate(session.messages)
            if any(has_word(said.content, word) for word in taboo)
        }
        gone += len(stating)
        messages = tuple(said for at, said in enumerate(session.messages) if at not in stating)
        if {said.role for said in messages} == {"user", "assistant"}:
            kept.append(replace(session, messages=messages))
    return kept, gone


def mentions(sessions: Sequence[Dialogue], facts: Iterable[Triple]) -> dict[str, int]:
    """How many messages, of either side, have each of the telling words of these facts; words of none are left out."""
    wanted = [word for fact in facts for word in content_words(fact.object)]
    said = [turn.content for item in sessions for turn in item.messages]
    counts = {word: sum(has_word(text, word) for text in said) for word in dict.fromkeys(wanted)}
    return {word: count for word, count in counts.items() if count}


def told_before_chat(
    sessions: Sequence[Dialogue], prompter: Prompter, settings: Sessions, *, seed: int = 0
) -> tuple[Dialogue, ...]:
    """Of one person's sessions those that a chat begins with, the first told first.

    Raises PersonalignError for sessions of several people, or of nobody.
    """
    people = people_of(sessions)
    if len(people) != 1:
        names = ", ".join(person.name for person in people[:5])
        raise PersonalignError(
            f"the sessions are those of {len(people)} people{f': {names}' if names else ''}; give one person's, or name "
            "one with --person"
        )
    # The others are told to nobody; comparing each with each would take long.
    latest = [Person(people[0].name, people[0].sessions[-settings.references :])]
    read = read_people(latest, settings, encoder=load_encoder(settings.encoder), extractor=None, seed=seed)
    told = told_to(read, settings, Dialogue("chat", (), ()))
    return told.fitting(prompter, room=prompter.settings.budget // CHAT_SHARE).references


def learn_recipe(values: dict[str, Any]) -> LearnRecipe:
    """Raises PersonalignError for values that are not right."""
    recipe = validated(LearnRecipe, values, source="learn")
    check_common(recipe, "learn")
    check_mini(recipe, (), "learn")
    return recipe


class LearnRun(StepRun[LearnRecipe]):
    """One person in one folder, whose `sessions.jsonl` holds what they said."""

    def steps(self) -> list[Step]:
        recipe = self.recipe
        read = {"sessions": fingerprint(self._sessions())}
        asked = {
            "prompts": self._prompt_settings(),
            "seed": recipe.seed,
            "stage": recipe.stages.stage1.model_dump(),
            "sessions": recipe.sessions.model_dump(),
            "extractor": contents_of(recipe.sessions.extractor),
        }
        return [
            Step("data", "Sessions", (), read, self._data),
            Step("backbone", "Backbone", ("data",), self._backbone_settings(), self._backbone),
            Step("stage1", "Learning", ("backbone",), asked, self._trained),
            Step(
                "model",
                "Model",
                ("stage1",),
                {"decoding": recipe.decoding.model_dump(), "sessions": recipe.sessions.model_dump()},
                self._published,
            ),
        ]

    def _sessions(self) -> list[Dialogue]:
        return read_dialogues(str(self.folder / SESSIONS))

    def _made_parts(self) -> Parts:
        return {"train": self._sessions()}

    def _backbone_texts(self) -> tuple[list[Dialogue], dict[str, int]]:
        raise PersonalignError("one person's sessions are too few to make a backbone of; name one")

    def _trained(self) -> dict[str, Any]:
        dropped = pal.Dropped()
        prompter, stage = self.prompter(), self.recipe.stages.stage1
        people, asked = self._people, self.recipe.sessions
        told = told_in_training(people, asked, seed=self.recipe.seed) or _alone(people.people[0])
        told = [item.fitting(prompter) for item in told]
        latest = people.people[0].sessions[-1].id
        # The latest session says when to stop, where there are enough to spare it.
        kept = (
            [item for item in told if item.session.id != latest] if len(told) >= ENOUGH_TO_HOLD_OUT else told
        )
        examples = self._examples(kept, dropped)
        held_out = self._examples([item for item in told if item not in kept], pal.Dropped())
        if not examples:
            raise PersonalignError(
                f"nothing is left to learn from: {dict(dropped.counts) or 'no replies'}; give more sessions, or a model "
                "with longer prompts"
            )
        loaded = self._models.open("backbone", trainable=True)
        trees = stage_trees(examples, stage)
        settings = stage_settings(stage, seed=self.recipe.seed, loaded=loaded)
        record = {"trees": asdict(statistics(trees)), "dropped": dict(dropped.counts), **summary(kept)}
        record["held_out"] = len(told) - len(kept)
        validate = _likelihood(loaded, held_out) if held_out else None
        record |= self._fit("stage1", "Learning", loaded, trees, stage, settings, validate=validate)
        self._models.save("stage1", loaded)
        return record

    def _published(self) -> dict[str, Any]:
        told = told_before_chat(
            self.parts()["train"], self.prompter(), self.recipe.sessions, seed=self.recipe.seed
        )
        self._models.publish(
            "stage1",
            self.folder / PUBLISHED,
            calibration=Calibration(0.0, 0.0),
            chosen_by=Selector(),
            examples=(),
            sessions=told,
            remembers=self.recipe.sessions,
        )
        self._write_card(_card(self.recipe))
        return {"told": [session.id for session in told]}

    def _examples(self, told: Sequence[Told], dropped: pal.Dropped) -> list[Example]:
        sessions = [item.remembered() for item in told]
        every = self.recipe.sessions.supervise == "every"
        return mutual_supervised_learning(sessions, self.prompter(), dropped=dropped, every_turn=every)

    @cached_property
    def _people(self) -> People:
        settings = self.recipe.sessions
        [person] = people_of(self.parts()["train"])
        with self._reporter.task("Reading the sessions", len(person.sessions)) as advance:
            people = read_people(
                [person],
                settings,
                encoder=load_encoder(settings.encoder),
                extractor=open_extractor(settings.extractor, language=self.recipe.language),
                seed=self.recipe.seed,
            )
            advance(len(person.sessions))
        return people


def _likelihood(loaded: LoadedModel, examples: Sequence[Example]) -> Validate:
    """Mean log-likelihood per token of the examples' replies, under the model as it is when it is asked."""
    trees = grow(examples, budget=INFERENCE_BUDGET)

    def validate(model: object) -> Validated:
        scores = pal.branch_scores(loaded, trees, budget=INFERENCE_BUDGET)
        tokens = sum(int(lengths.sum()) for _, lengths in scores)
        return Validated(sum(float(sums.sum()) for sums, _ in scores) / tokens)

    return validate


def _alone(person: Person) -> list[Told]:
    """Of somebody of one session, that session."""
    return [Told(person.name, session, (), "nothing to order") for session in person.sessions]


def _card(recipe: LearnRecipe) -> str:
    return "\n".join(
        [
            f"# {recipe.name}",
            "",
            "A model that learnt to talk like one person, from their own conversations. It belongs to that person: the "
            f"folder holds what they said (`{SESSIONS}`), and the weights may give it away. Share neither without asking "
            "everybody who wrote.",
            "",
            "    personalign chat THIS_FOLDER",
            "",
        ]
    )
