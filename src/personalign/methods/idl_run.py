"""A run of IDL, from sessions to a table.

data -> backbone -> finetuning, gold
                 -> stage1 (and its ablations) -> triples -> stage2, stage2_dpo
                                       -> predictions of every system -> results
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Any

from personalign._files import read_json, write_json, write_jsonl, write_text
from personalign.data.dialogue import Dialogue
from personalign.data.formats import write_dialogues
from personalign.decoding.respond import Selection, respond
from personalign.evaluation.judge import Judge
from personalign.evaluation.predictions import questions_of
from personalign.methods import pal
from personalign.methods.attention import attended, picture
from personalign.methods.cards import idl_card
from personalign.methods.idl import Remembered, remember
from personalign.methods.idl_criteria import MadeTriple, examples_by_kind, triple_maker, verified
from personalign.methods.idl_lineup import IdlSystem, TrainedStage, idl_systems, trained_stages
from personalign.methods.idl_parts import load_people, people_fingerprint, people_texts, tested_parts
from personalign.methods.idl_recipe import TEST, IdlRecipe
from personalign.methods.idl_sessions import Told, summary
from personalign.methods.idl_stages import SessionReader
from personalign.methods.idl_tables import IDL_CONSISTENCY, IDL_FIGURES, JUDGED_TURNS, idl_tables
from personalign.methods.lineup import GOLD
from personalign.methods.models import PUBLISHED
from personalign.methods.parts import Parts, contents_of
from personalign.methods.recipe import Selector
from personalign.methods.selecting import Calibration
from personalign.methods.stages import stage_settings, stage_trees
from personalign.methods.step_run import INFERENCE_BUDGET, StepRun
from personalign.methods.steps import Step, step_again, steps_of
from personalign.methods.systems import Row, evaluate, gold_rows, gold_scores, row_of
from personalign.training.examples import statistics

FINAL = "stage2"
_OF_DPOC = {"penalty", "penalty_in"}


class IdlRun(StepRun[IdlRecipe]):
    """IDL in one folder."""

    def steps(self) -> list[Step]:
        recipe = self.recipe
        common = {"prompts": self._prompt_settings(), "seed": recipe.seed}
        sessions = {
            "sessions": {**recipe.sessions.model_dump(), "encoder": contents_of(recipe.sessions.encoder)},
            "extractor": contents_of(recipe.sessions.extractor),
        }
        read = people_fingerprint(recipe) | {"language": recipe.language}
        steps = [
            Step("data", "Sessions", (), read, self._data),
            Step("backbone", "Backbone", ("data",), self._backbone_settings(), self._backbone),
        ]
        triples = Step(
            "triples", "Criterion and rejected replies", ("data",), {**common, **sessions}, self._triples
        )
        for stage in trained_stages(recipe):
            settings: dict[str, Any] = {
                **common,
                "objective": stage.objective,
                "stage": stage.settings.model_dump(exclude=_OF_DPOC if stage.objective != "dpoc" else None),
            }
            after: tuple[str, ...] = (stage.start,)
            if stage.sees == "sessions":
                settings |= sessions
            if stage.objective != "nll":
                after = (*after, "triples")
                steps += [] if triples in steps else [triples]
            steps.append(Step(stage.name, stage.title, after, settings, partial(self._trained, stage)))
        systems = idl_systems(recipe)
        for system in systems:
            asked = {**common, **sessions, "decoding": recipe.decoding.model_dump(), "system": asdict(system)}
            title = f"Replies of {_titled(system)}"
            steps.append(
                Step(f"predict:{system.name}", title, (system.stage,), asked, partial(self._predict, system))
            )
        after = tuple(f"predict:{system.name}" for system in systems)
        if recipe.compared.attention:
            looked = {**sessions, "sessions read": recipe.compared.attention}
            steps.append(Step("attention", "Attention", ("backbone", FINAL), looked, self._attention))
            after = (*after, "attention")
        return [*steps, Step("results", "Results", after, self._judging_settings(), self._results)]

    # Steps ------------------------------------------------------------------------------------------------

    def _made_parts(self) -> Parts:
        return load_people(self.recipe, say=self._reporter.say)

    def _backbone_texts(self) -> tuple[list[Dialogue], dict[str, int]]:
        return people_texts(self.recipe, self.parts())

    def _trained(self, stage: TrainedStage) -> dict[str, Any]:
        dropped = pal.Dropped()
        triples = {}
        if stage.objective != "nll":
            triples = {row["session"]: row["triples"] for row in self._made_triples()}
        examples = self._sessions.examples(stage, self.prompter(), triples=triples, dropped=dropped)
        loaded = self._models.open(stage.start, trainable=True)
        settings = stage_settings(
            stage.settings, seed=self.recipe.seed, loaded=loaded, objective=stage.objective
        )
        trees = stage_trees(examples, stage.settings)
        record: dict[str, Any] = {"trees": asdict(statistics(trees)), "dropped": dict(dropped.counts)}
        if stage.objective != "nll":
            trees, record["largest_log_ratio"] = self._with_reference(loaded, trees, stage.settings)
        record |= self._fit(stage.name, stage.title, loaded, trees, stage.settings, settings)
        self._models.save(stage.name, loaded)
        return record

    def _triples(self) -> dict[str, Any]:
        return self._ranks.from_main(self._written_triples)

    def _written_triples(self) -> dict[str, Any]:
        recipe = self.recipe
        told = self._sessions.aligned()
        maker = triple_maker(
            self._sessions.people("align").people,
            extractor=self._sessions.extractor,
            encoder=self._sessions.encoder,
            similar=recipe.sessions.similar,
            seed=recipe.seed,
        )
        every = recipe.sessions.supervise == "every"
        made = [maker.of(item, every_turn=every) for item in told]
        write_jsonl(
            self.folder / "triples.jsonl",
            [
                item.row() | {"triples": [asdict(triple) for triple in triples]}
                for item, triples in zip(told, made, strict=True)
            ],
        )
        record = summary(told) | {"counts": dict(maker.counts), "examples": examples_by_kind(made)}
        write_json(self.folder / "criteria.json", record)
        return {key: value for key, value in record.items() if key != "examples"}

    def _predict(self, system: IdlSystem) -> dict[str, Any]:
        loaded = self._models.open(system.stage)
        prompter = self.prompter()
        told = self._told(system)
        mine = self._ranks.share(told)
        shown = [_shown(item, system) for item in mine]
        first = {item.session.id: dialogue.past for item, dialogue in zip(mine, shown, strict=True)}
        turns = {item.dialogue.id: item.turns() for item in shown}
        dialogues = [item.dialogue for item in shown]
        with self._reporter.task(f"Replies of {_titled(system)}", sum(map(len, turns.values()))) as advance:
            responses = respond(
                loaded,
                prompter,
                dialogues,
                selection=Selection("unselected"),
                decoding=self._decoding(),
                turns=lambda dialogue: turns[dialogue.id],
                budget=INFERENCE_BUDGET,
                progress=steps_of(advance),
            )
        by_id = {dialogue.id: dialogue for dialogue in dialogues}
        gold = gold_scores(loaded, prompter, by_id, responses, budget=INFERENCE_BUDGET)
        of_session: dict[str, list[Row]] = {item.session.id: [] for item in mine}
        known = {item.id: item for item in self._tested(system.part)}
        before = {item.session.id: len(item.references) if system.sees == "sessions" else 0 for item in mine}
        for response in responses:
            name = response.dialogue
            row = row_of(
                system.name,
                response,
                known[name],
                response.turn - first[name],
                gold=gold[name, response.turn],
            )
            of_session[name].append(row | {"told": before[name]})
        merged = self._ranks.merged(list(of_session.values()))
        rows = [row for held in merged for row in held]
        if self._ranks.main:
            write_jsonl(self._predictions(system.name), rows)
        return {"turns": len(rows), **(summary(told) if system.sees == "sessions" else {})}

    def _told(self, system: IdlSystem) -> list[Told]:
        """What the system is told, as far as the prompts have room; of either clusters as much as of the other."""
        told = self._fitting(system.part, system)
        if system.clusters is None:
            return told
        other = replace(system, clusters="out" if system.clusters == "in" else "in")
        return [
            item.latest(min(len(item.references), len(opposite.references)))
            for item, opposite in zip(told, self._fitting(system.part, other), strict=True)
        ]

    def _fitting(self, part: str, system: IdlSystem | None = None) -> list[Told]:
        prompter = self.prompter()
        return [item.fitting(prompter) for item in self._sessions.answered(part, system)]

    def _attention(self) -> dict[str, Any]:
        """Of the last turn of some tested sessions, what ICL and IDL look at while they read the gold reply."""
        prompter, record = self.prompter(), dict[str, Any]()
        told = [item for item in self._fitting(TEST) if item.references and item.session.persona]
        told = told[:: max(1, len(told) // self.recipe.compared.attention)][: self.recipe.compared.attention]
        pictures = []
        for title, stage in (("in-context learning", "backbone"), ("IDL", FINAL)):
            loaded = self._models.open(stage)
            if loaded.plan.mode != "packed" or loaded.plan.window is not None:
                # Of what lies behind a window, or of states in place of attention, there are no weights to show.
                self._reporter.say(
                    "Attention is not looked at: not every layer of this model sees all tokens"
                )
                break
            shares = []
            for number, item in enumerate(told):
                turn = item.session.reply_indices()[-1]
                gold = item.session.messages[turn].content
                found = attended(loaded, prompter, item, turn=turn, reply=gold)
                shares.append(found.shares())
                if number == 0:
                    pictures.append(picture(found, title=title))
            if shares:
                near, everywhere = (sum(values) / len(values) for values in zip(*shares, strict=True))
                record[title] = {"sessions": len(shares), "top": near, "all": everywhere}
        if self._ranks.main:
            write_text(self.folder / "attention.html", "\n".join(pictures))
            write_json(self.folder / "attention.json", record)
        return record

    def _results(self) -> dict[str, Any]:
        recipe = self.recipe
        judges = {name: self._judge(name) for name in recipe.evaluation.judges}
        systems = idl_systems(recipe)
        results: dict[str, Any] = {}
        with self._reporter.task("Judging" if judges else "Measuring", len(systems)) as advance:
            for part in tested_parts(recipe):
                tested = self._tested(part)
                past = {question.dialogue: question.past for question in questions_of(self.parts()[part])}
                if self._ranks.main:
                    # The very turns that were answered, for a report.
                    write_dialogues(self.folder / "tested" / f"{part}.jsonl.gz", tested)
                results["gold_replies" if part == TEST else f"gold_replies_{part}"] = self._measured(
                    gold_rows(tested), GOLD, part, judges, past
                ) | {"people": len({item.person for item in tested})}
                for system in systems:
                    if system.part == part:
                        rows = self._rows(self._predictions(system.name), step=f"predict:{system.name}")
                        if system.clusters is not None:
                            # Elsewhere both are told nothing, and answer alike.
                            rows = [row for row in rows if row["told"]]
                        if not rows:
                            self._reporter.say(
                                f"{system.title}: nobody has sessions of more than one cluster"
                            )
                            continue
                        results[system.name] = self._measured(rows, system.title, part, judges, past)
                        advance(1)
        criteria = self._kept("criteria.json", step="triples") | {"judged": self._judged_criteria(judges)}
        attention = self._kept("attention.json", step="attention") if recipe.compared.attention else {}
        tables = idl_tables(results, criteria, attention)
        if self._ranks.main:
            write_json(self.folder / "results.json", results)
            write_text(self.folder / "table.md", tables)
        self._models.publish(
            FINAL,
            self.folder / PUBLISHED,
            calibration=Calibration(0.0, 0.0),
            chosen_by=Selector(),
            remembers=recipe.sessions,
        )
        self._write_card(idl_card(recipe, tables))
        return {"systems": list(results), "criteria": criteria["judged"]}

    def _judged_criteria(self, judges: Mapping[str, Judge]) -> dict[str, Any]:
        """What the first judge says of the criterion replies, where people have profiles."""
        persona = {session.id: session.persona for session in self.parts()["align"]}
        made = [
            (persona[row["session"]], MadeTriple(**triple))
            for row in self._made_triples()
            for triple in row["triples"]
        ]
        return {name: verified(made, judge) for name, judge in list(judges.items())[:1]}

    # What the steps share ---------------------------------------------------------------------------------

    @cached_property
    def _labelled(self) -> dict[str, list[Dialogue]]:
        """What `_tested` found, which every system's replies are kept beside."""
        return {}

    @cached_property
    def _sessions(self) -> SessionReader:
        return SessionReader(self.recipe, self.parts, reporter=self._reporter)

    def _measured(
        self,
        rows: Sequence[Row],
        title: str,
        part: str,
        judges: Mapping[str, Judge],
        past: Mapping[str, Sequence[str]],
    ) -> dict[str, Any]:
        recipe = self.recipe
        measure = partial(
            evaluate, language=recipe.language, bootstrap=recipe.evaluation.bootstrap, seed=recipe.seed
        )
        figures = measure(rows, {}, names=IDL_FIGURES, past=past)
        # Whether somebody without a profile contradicts it cannot be judged.
        profiled = [row for row in rows if row["persona"]]
        if judges and profiled:
            judged = measure(profiled, judges, names=(), judged_names=IDL_CONSISTENCY)
            figures = judged | figures | {JUDGED_TURNS: len(profiled)}
        told = [row["told"] for row in rows if "told" in row]
        return {"title": title, "part": part, **figures, **({"told": sum(told) / len(told)} if told else {})}

    def _tested(self, part: str) -> list[Dialogue]:
        """The sessions of a part that are answered, labelled with what the sessions that IDL is told express."""
        if part not in self._labelled:
            self._labelled[part] = [_with_told_labels(item) for item in self._fitting(part)]
        return self._labelled[part]

    def _made_triples(self) -> list[Row]:
        return self._rows(self.folder / "triples.jsonl", step="triples")

    def _kept(self, name: str, *, step: str) -> dict[str, Any]:
        """What a step kept."""
        found: dict[str, Any] = read_json(self.folder / name, advice=step_again(self.folder, step))
        return found


def _titled(system: IdlSystem) -> str:
    return system.title if system.part == TEST else f"{system.title} ({system.part})"


def _shown(told: Told, system: IdlSystem) -> Remembered:
    """The session as the system sees it: behind other sessions, behind the profile, or alone."""
    if system.sees == "sessions":
        return told.remembered()
    alone = remember(told.session, ())
    if system.sees == "nothing":
        return alone
    return replace(alone, dialogue=replace(alone.dialogue, persona=told.session.persona))


def _with_told_labels(told: Told) -> Dialogue:
    """The session, labelled with the lines alone that the person expressed in a session that is told before it.

    What was never said cannot be known. Sessions of one person have one profile, in one order, where they are labelled.
    """
    session = told.session
    if session.relevant is None:
        return session
    expressed = {
        reference.persona[line]
        for reference in told.references
        for lines in reference.relevant or ()
        for line in lines
    }
    relevant = tuple(
        tuple(line for line in lines if session.persona[line] in expressed) for lines in session.relevant
    )
    return replace(session, relevant=relevant)
