"""A run of PAL, from data to a table: every stage of the method as a step that can be resumed.

data -> backbone -> finetuning
                 -> stage1 -> rejected -> stage2
                                       -> predictions of every system -> results
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

from personalign._files import read_json, whole_folder, write_json, write_jsonl, write_text
from personalign.data.dialogue import Dialogue
from personalign.decoding.respond import Selection, SelectionScorer, without_persona
from personalign.decoding.served import ServedModel, open_served
from personalign.methods import pal
from personalign.methods.cards import model_card
from personalign.methods.judges import judges_asked
from personalign.methods.labelling import label_parts, label_settings
from personalign.methods.lineup import REVISED, aligned_from, compared_systems, final_stage
from personalign.methods.measured import measured
from personalign.methods.models import PUBLISHED
from personalign.methods.parts import Parts, contents_of, load_parts, revised, source_fingerprint
from personalign.methods.pretraining import pretraining_dialogues
from personalign.methods.recipe import Recipe, Stage
from personalign.methods.selecting import (
    Calibration,
    c_score_on,
    calibrated,
    labelled_share_of_none,
)
from personalign.methods.selectors import open_scorer
from personalign.methods.stages import (
    stage_examples,
    stage_settings,
    stage_trees,
    trained_stages,
)
from personalign.methods.step_run import INFERENCE_BUDGET, StepRun, turns_in
from personalign.methods.steps import Step, step_again, steps_of, unfinished
from personalign.methods.systems import Row, System, predict
from personalign.methods.tables import results_table
from personalign.methods.trained_selector import SelectorLearner
from personalign.models import LoadedModel
from personalign.models.encoder import load_encoder
from personalign.training.examples import Example, GrownTree, grow, statistics
from personalign.training.journal import Validate

TITLES = {
    "finetuning": "Fine-tuning",
    "finetuning_longer": "Fine-tuning, longer",
    "stage1": "PAL stage 1",
    "stage2": "PAL stage 2",
}


class PalRun(StepRun[Recipe]):
    """PAL in one folder."""

    judging = frozenset({"stage2", "results"})
    _held_out: Sequence[GrownTree] = ()

    def steps(self) -> list[Step]:
        recipe = self.recipe
        common = {"prompts": self._prompt_settings(), "seed": recipe.seed}
        read = source_fingerprint(recipe) | {"language": recipe.language} | label_settings(recipe)
        steps = [
            Step("data", "Dialogues", (), read, self._data),
            Step("backbone", "Backbone", ("data",), self._backbone_settings(), self._backbone),
        ]
        if recipe.selector.kind == "trained":
            asked = {
                "selector": self._selecting(),
                "seed": recipe.seed,
                "language": recipe.language,
            }
            steps.append(Step("selector", "Selector", ("data",), asked, self._trained_selector))
        for name, stage in trained_stages(recipe).items():
            steps += self._stage_steps(name, stage, common)
        decoding = {"decoding": recipe.decoding.model_dump()}
        systems = compared_systems(recipe)
        for system in systems:
            chosen: dict[str, Any] = {**decoding, "strategy": system.strategy, "part": system.part}
            if system.strategy == "predicted":
                chosen["selector"] = self._selecting()
            title = f"Predictions of {system.title}"
            needed = (system.stage, *(self._selector_step() if system.strategy == "predicted" else ()))
            steps.append(
                Step(f"predict:{system.name}", title, needed, chosen, partial(self._predict, system))
            )
        after = tuple(f"predict:{system.name}" for system in systems)
        steps.append(Step("results", "Results", after, self._judging_settings(), self._results))
        return steps

    def _stage_steps(self, name: str, stage: Stage, common: dict[str, Any]) -> list[Step]:
        """Training a stage, behind the rejected replies where it aligns with pairs."""
        recipe, steps = self.recipe, []
        settings: dict[str, Any] = dict(common)
        if name == "stage1":
            # The other ablations leave it as it is.
            of_one_task = recipe.ablation in ("only_selection", "only_generation")
            settings["ablation"] = recipe.ablation if of_one_task else "none"
        elif name == "stage2":
            settings["ablation"] = recipe.ablation
        start = {"finetuning_longer": "finetuning", "stage2": aligned_from(recipe)}.get(name, "backbone")
        after: tuple[str, ...] = (start,)
        if name == "stage2":
            settings["decoding"] = recipe.decoding.model_dump()
            if recipe.ablation != "without_pairs":
                steps.append(Step("rejected", "Rejected replies", after, dict(settings), self._rejected))
                after = (start, "rejected")
            if stage.evaluate_every is not None:
                first = recipe.evaluation.judges[:1]
                settings["judge"] = [*first, recipe.evaluation.judge_dtype, *judges_asked(first).values()]
                settings["selector"] = self._selecting()
                after = (*after, *self._selector_step())
        settings["stage"] = stage.model_dump()
        return [*steps, Step(name, TITLES[name], after, settings, partial(self._trained, name, start))]

    def _selecting(self) -> dict[str, Any]:
        selector = self.recipe.selector
        return {**selector.model_dump(), "encoder": contents_of(selector.encoder)}

    def _selector_step(self) -> tuple[str, ...]:
        """The step that makes the selector, where there is one."""
        return ("selector",) if self.recipe.selector.kind == "trained" else ()

    def sample_dialogue(self) -> dict[str, Any]:
        """The first test dialogue with the final model's own selections and replies."""
        rows = self._answers("pal_predicted")
        dialogue = self.parts()["test"][0]
        turns = [row for row in rows if row["dialogue"] == dialogue.id]
        return {
            "persona": list(dialogue.persona),
            "turns": [
                {
                    "user": dialogue.messages[row["turn"] - 1].content if row["turn"] else "",
                    "selected": None if row["selected"] is None else dialogue.persona[row["selected"]],
                    "reply": row["response"],
                }
                for row in turns
            ],
        }

    # Steps, in order -----------------------------------------------------------------------------------

    def _made_parts(self) -> Parts:
        loaded = load_parts(self.recipe, say=self._reporter.say)
        if self.recipe.evaluation.revised:
            revised(loaded["test"])  # refused now rather than after training
        return label_parts(loaded, self.recipe, reporter=self._reporter)

    def _answered(self) -> Parts:
        parts = self.parts()
        return parts | {REVISED: revised(parts["test"])} if self.recipe.evaluation.revised else parts

    def _backbone_texts(self) -> tuple[list[Dialogue], dict[str, int]]:
        return pretraining_dialogues(self.recipe, self.parts())

    def _trained_selector(self) -> dict[str, Any]:
        return self._ranks.from_main(self._written_selector)

    def _written_selector(self) -> dict[str, Any]:
        recipe, parts = self.recipe, self.parts()
        encoder = load_encoder(recipe.selector.encoder)
        # The stopping part is left out: it sets the bias of "none".
        dialogues = [*parts["train"], *parts["align"]]
        with self._reporter.task("Encoding messages", 1) as advance:
            learner = SelectorLearner(dialogues, encoder, language=recipe.language)
            advance(1)
        with self._reporter.task("Training the selector", learner.steps) as advance:
            scorer = learner.train(seed=recipe.seed, progress=lambda: advance(1))
        with whole_folder(self._selector_folder, replace=True) as folder:
            scorer.save(folder)
        return {"turns": learner.turns, "labelled": learner.labelled}

    def _trained(self, name: str, start: str) -> dict[str, Any]:
        """Train a stage from the model of the stage `start`."""
        dropped = pal.Dropped()
        aligns = name == "stage2"
        rejected = None
        if aligns and self.recipe.ablation != "without_pairs":
            rejected = self._rejected_replies()
        examples = stage_examples(
            name, self.recipe, self.parts(), self.prompter(), rejected=rejected, dropped=dropped
        )
        loaded = self._models.open(start, trainable=True)
        stage = trained_stages(self.recipe)[name]
        return self._train(name, loaded, examples, stage, dropped, validate=aligns)

    def _rejected(self) -> dict[str, Any]:
        dialogues = self.parts()["align"]
        mine = self._ranks.share(dialogues)
        loaded = self._models.open(aligned_from(self.recipe))
        served = self._served(aligned_from(self.recipe), "rejected")
        with self._reporter.task("Rejected replies", turns_in(mine)) as advance:
            replies = without_persona(
                loaded,
                self.prompter(),
                mine,
                decoding=self._decoding(),
                budget=INFERENCE_BUDGET,
                progress=steps_of(advance),
                served=served,
            )
        rows = self._ranks.merged(
            [
                {
                    "dialogue": dialogue.id,
                    "replies": [reply.text for reply in of_dialogue],
                    "ended": [reply.ended for reply in of_dialogue],
                }
                for dialogue, of_dialogue in zip(mine, replies, strict=True)
            ]
        )
        if self._ranks.main:
            write_jsonl(self.folder / "rejected.jsonl", rows)
        cut = sum(not ended for row in rows for ended in row["ended"])
        if cut:
            self._reporter.say(
                f"{cut} of {turns_in(dialogues)} rejected replies were cut at decoding.max_new_tokens; stage 2 reads "
                "them as if they ended there"
            )
        return {"replies": turns_in(dialogues), "cut": cut}

    def _predict(self, system: System) -> dict[str, Any]:
        loaded = self._models.open(system.stage)
        mine = self._ranks.share(self._answered()[system.part])
        selection, record = self._selection(system, loaded)
        served = self._served(system.stage, f"predict:{system.name}")
        with self._reporter.task(f"Replies of {system.title}", turns_in(mine)) as advance:
            answered = predict(
                system,
                loaded,
                self.prompter(),
                mine,
                selection=selection,
                decoding=self._decoding(),
                budget=INFERENCE_BUDGET,
                progress=steps_of(advance),
                served=served,
            )
        of_dialogue: dict[str, list[Row]] = {dialogue.id: [] for dialogue in mine}
        for row in answered:
            of_dialogue[row["dialogue"]].append(row)
        rows = list(chain.from_iterable(self._ranks.merged(list(of_dialogue.values()))))
        if self._ranks.main:
            write_jsonl(self._predictions(system.name), rows)
        return {"turns": len(rows), **record}

    def _results(self) -> dict[str, Any]:
        recipe = self.recipe
        judges = {name: self._judge(name) for name in recipe.evaluation.judges}
        results = measured(
            recipe,
            self._answers,
            self.parts()["test"],
            judges,
            reporter=self._reporter,
        )
        if self._ranks.main:
            write_json(self.folder / "results.json", results)
            write_text(self.folder / "table.md", results_table(results))
        self._models.publish(
            final_stage(recipe),
            self.folder / PUBLISHED,
            calibration=self._calibration(final_stage(recipe)),
            chosen_by=recipe.selector,
            examples=[dialogue.persona for dialogue in self.parts()["test"][:3]],
            selector=self._selector_folder if self._selector_step() else None,
        )
        self._write_card(model_card(recipe, results))
        return {"systems": list(results)}

    # What the steps share -------------------------------------------------------------------------------

    def _answers(self, system: str) -> list[Row]:
        return self._rows(self._predictions(system), step=f"predict:{system}")

    @property
    def _selector_folder(self) -> Path:
        return self.folder / "selector"

    def _served(self, stage: str, step: str) -> ServedModel | None:
        """The stage's model where a server has it, with what it answered before the step was interrupted."""
        if self.recipe.decoding.engine == "local":
            return None
        answered = unfinished(self.folder, step)
        made_by = self._fingerprint(step)[:12]
        return open_served(
            # By its fingerprint, since a server may still have what the stage was before it was trained anew.
            f"{stage}-{self._fingerprint(stage)[:8]}",
            folder=self.folder / "models" / stage,
            decoding=self._decoding(),
            end_ids=self.prompter().end_ids,
            store=answered / f"{made_by}-{self._ranks.rank}.jsonl",
            # Of all processes, since there may be another number of them now.
            kept=sorted(answered.glob(f"{made_by}-*.jsonl")),
        )

    def _rejected_replies(self) -> list[list[str]]:
        made = self._rows(self.folder / "rejected.jsonl", step="rejected")
        rows = {row["dialogue"]: row["replies"] for row in made}
        return [rows[dialogue.id] for dialogue in self.parts()["align"]]

    def _train(
        self,
        name: str,
        loaded: LoadedModel,
        examples: Sequence[Example],
        stage: Stage,
        dropped: pal.Dropped,
        *,
        validate: bool = False,
    ) -> dict[str, Any]:
        pairs = name == "stage2" and self.recipe.ablation != "without_pairs"
        settings = stage_settings(
            stage, seed=self.recipe.seed, loaded=loaded, objective="dpo" if pairs else "nll"
        )
        trees = stage_trees(examples, stage)
        record: dict[str, Any] = {"trees": asdict(statistics(trees)), "dropped": dict(dropped.counts)}
        if settings.objective == "dpo":
            trees, record["largest_log_ratio"] = self._with_reference(loaded, trees, stage)
            self._held_out = self._held_out_trees(loaded)
            record["start"] = self._held_out_pairs(loaded)
        record |= self._fit(
            name,
            TITLES[name],
            loaded,
            trees,
            stage,
            settings,
            validate=self._validation(loaded) if validate and stage.evaluate_every else None,
        )
        if settings.objective == "dpo":
            record["end"] = self._held_out_pairs(loaded)
        self._models.save(name, loaded)
        return record

    def _selection(self, system: System, loaded: LoadedModel) -> tuple[Selection, dict[str, Any]]:
        if system.strategy == "predicted":
            scorer = open_scorer(self.recipe.selector, self._selector_folder)
            found = self._calibrated(system.stage, loaded, scorer)
            return Selection("predicted", scorer=scorer, none_bias=found.none_bias), asdict(found)
        if system.strategy == "random":
            # A turn without persona lines is none in any case: the rate is that of the others.
            share = labelled_share_of_none([item for item in self.parts()["stop"] if item.persona])
            selection = Selection("random", share_of_none=share, seed=self.recipe.seed)
            return selection, {"share_of_none": share}
        return Selection(system.strategy), {}

    @cached_property
    def _biases(self) -> dict[str, Calibration]:
        return {}

    def _calibrated(self, stage: str, loaded: LoadedModel, scorer: SelectionScorer | None) -> Calibration:
        """Once per model: every part that it answers for is answered at the same bias."""
        if stage not in self._biases:
            stop = self.parts()["stop"]
            found = calibrated(
                loaded, self.prompter(), stop, scorer=scorer, budget=INFERENCE_BUDGET, ranks=self._ranks
            )
            if self._ranks.main:
                write_json(self.folder / "calibration" / f"{stage}.json", asdict(found))
            self._biases[stage] = found
        return self._biases[stage]

    def _calibration(self, stage: str) -> Calibration:
        [made_by, *_] = (
            system.name
            for system in compared_systems(self.recipe)
            if (system.stage, system.strategy) == (stage, "predicted")
        )
        advice = step_again(self.folder, f"predict:{made_by}")
        return Calibration(**read_json(self.folder / "calibration" / f"{stage}.json", advice=advice))

    def _validation(self, loaded: LoadedModel) -> Validate:
        recipe = self.recipe
        return c_score_on(
            self.parts()["stop"],
            loaded,
            self.prompter(),
            judge=self._judge(recipe.evaluation.judges[0]),
            scorer=open_scorer(recipe.selector, self._selector_folder),
            decoding=self._decoding(),
            budget=INFERENCE_BUDGET,
            language=recipe.language,
            ranks=self._ranks,
        )

    def _held_out_pairs(self, loaded: LoadedModel) -> dict[str, float]:
        """DPO's loss and pair accuracy on pairs of the stopping part, against the model that stage 2 began from."""
        beta = self.recipe.stages.stage2.beta
        return pal.measure_pairs(loaded, self._held_out, beta=beta, budget=INFERENCE_BUDGET)

    def _held_out_trees(self, reference: LoadedModel) -> list[GrownTree]:
        stop = self.parts()["stop"]
        replies = without_persona(
            reference, self.prompter(), stop, decoding=self._decoding(), budget=INFERENCE_BUDGET
        )
        texts = [[reply.text for reply in of_dialogue] for of_dialogue in replies]
        examples = pal.alignment_pairs(
            stop, texts, self.prompter(), dropped=pal.Dropped(), only_labelled=True
        )
        return pal.with_reference(reference, grow(examples, budget=INFERENCE_BUDGET), budget=INFERENCE_BUDGET)
