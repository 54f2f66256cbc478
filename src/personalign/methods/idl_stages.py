"""What the stages of IDL learn from, and what its systems answer: the people of each part, read once."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from personalign.data.people import Person, people_of
from personalign.methods import pal
from personalign.methods.extractors import open_extractor
from personalign.methods.idl import (
    alignment_triples,
    learnt_turns,
    mutual_supervised_learning,
    remember,
    without_criterion,
)
from personalign.methods.idl_criteria import MadeTriple
from personalign.methods.idl_lineup import IdlSystem, TrainedStage
from personalign.methods.idl_parts import FEWEST, tested_parts
from personalign.methods.idl_recipe import IdlRecipe
from personalign.methods.idl_sessions import People, Told, read_people, told_in_test, told_in_training
from personalign.methods.parts import Parts
from personalign.methods.steps import Reporter
from personalign.models.encoder import Encoder, load_encoder
from personalign.personas.extraction import Extractor
from personalign.prompts import Prompter
from personalign.training.examples import Example

TripleRows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Made triples by the id of their session."""


class SessionReader:
    """Tells whose sessions are told before which, for one recipe."""

    def __init__(self, recipe: IdlRecipe, parts: Callable[[], Parts], *, reporter: Reporter) -> None:
        self._recipe = recipe
        self._parts = parts
        self._reporter = reporter
        self._read: dict[str, People] = {}

    @cached_property
    def encoder(self) -> Encoder:
        return load_encoder(self._recipe.sessions.encoder)

    @cached_property
    def extractor(self) -> Extractor | None:
        return open_extractor(self._recipe.sessions.extractor, language=self._recipe.language)

    def people(self, part: str) -> People:
        """Those of a part who have sessions enough."""
        if part not in self._read:
            people: list[Person] = people_of(self._parts()[part], least=FEWEST)
            with self._reporter.task(f"Reading the sessions of '{part}'", len(people)) as advance:
                self._read[part] = read_people(
                    people,
                    self._recipe.sessions,
                    encoder=self.encoder,
                    extractor=self.extractor,
                    seed=self._recipe.seed,
                )
                advance(len(people))
        return self._read[part]

    def aligned(self) -> list[Told]:
        """What stage 2 learns from: sessions of its own people."""
        return told_in_training(self.people("align"), self._recipe.sessions, seed=self._recipe.seed)

    def answered(self, part: str, system: IdlSystem | None = None) -> list[Told]:
        """The sessions of a tested part, each behind those that the system is told; by default as many as in training."""
        test = tested_parts(self._recipe)[part]
        return told_in_test(
            self.people(part),
            self._recipe.sessions,
            answer=test.answer,
            most=test.sessions if system is None or system.most is None else system.most,
            cluster_of=None if system is None else system.clusters,
        )

    def examples(
        self, stage: TrainedStage, prompter: Prompter, *, triples: TripleRows, dropped: pal.Dropped
    ) -> list[Example]:
        """The examples of a stage; `triples` is what a stage that aligns learns from."""
        recipe = self._recipe
        # The baselines learn from all whom IDL learns from, in its two stages.
        learnt = [*self._parts()["train"], *self._parts()["align"]]
        if stage.sees == "profile":
            return pal.fine_tuning(learnt, prompter, dropped=dropped)
        if stage.sees == "nothing":
            alone = [remember(session, ()) for session in learnt]
            return mutual_supervised_learning(alone, prompter, dropped=dropped, every_turn=True)
        if stage.objective == "nll":
            told = told_in_training(
                self.people("train"),
                recipe.sessions,
                static=stage.static,
                dynamic=stage.dynamic,
                seed=recipe.seed,
            )
            return mutual_supervised_learning(
                [item.remembered() for item in _fitting(told, prompter, dropped)],
                prompter,
                dropped=dropped,
                every_turn=recipe.sessions.supervise == "every",
            )
        aligned = []
        for item in _fitting(self.aligned(), prompter, dropped):
            session = item.remembered()
            made = [MadeTriple(**row) for row in triples[item.session.id]]
            aligned.append((session, [triple.aligned(session.past) for triple in made]))
        examples = alignment_triples(aligned, prompter, dropped=dropped)
        return without_criterion(examples) if stage.objective == "dpo" else examples


def _fitting(told: Sequence[Told], prompter: Prompter, dropped: pal.Dropped) -> list[Told]:
    """As far as the prompts have room; what has none is counted."""
    kept = [item.fitting(prompter) for item in told]
    if gone := sum(len(item.references) for item in told) - sum(len(item.references) for item in kept):
        dropped.counts["earlier sessions, for want of room"] += gone
    return kept


def stand_in_triples(told: Sequence[Told], *, every_turn: bool) -> dict[str, list[dict[str, Any]]]:
    """Of the size that triples will have, before there are any: other things that people said."""
    rng = random.Random(0)
    said = [turn.content for item in told for turn in item.session.messages]
    return {
        item.session.id: [
            {
                "turn": turn,
                "gold": item.session.messages[turn].content,
                "kind": "inversion",
                "criterion": rng.choice(said),
                "rejected": rng.choice(said),
            }
            for turn in learnt_turns(item.session, every_turn=every_turn)
        ]
        for item in told
    }
