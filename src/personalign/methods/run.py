"""A run of PAL, from data to a table: every stage of the method as a step that can be resumed.

data -> backbone -> finetuning
                 -> stage1 -> rejected -> stage2
                                       -> predictions of every system -> results
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from personalign._files import whole_folder, write_json, write_jsonl, write_text
from personalign._mini import is_mini, mini_fingerprint
from personalign._ranks import ALONE, Ranks
from personalign.data.dialogue import Dialogue
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Selection, SelectionScorer, without_persona
from personalign.decoding.served import ServedModel, open_served
from personalign.errors import PersonalignError
from personalign.evaluation.judge import Judge, SharedJudge
from personalign.methods import pal
from personalign.methods.cards import model_card
from personalign.methods.judges import find_judge, open_judge, with_cache
from personalign.methods.labelling import label_parts, label_settings
from personalign.methods.lineup import aligned_from, compared_systems, final_stage
from personalign.methods.measured import measured
from personalign.methods.models import ModelStore
from personalign.methods.parts import (
    TRIMMED,
    Parts,
    fingerprint,
    load_parts,
    read_parts,
    source_fingerprint,
    trimmed_turns,
    write_parts,
)
from personalign.methods.recipe import Recipe, Stage, recipe_yaml
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
    warmup_remark,
)
from personalign.methods.steps import (
    Interrupted,
    Planned,
    Reporter,
    Step,
    alone_in,
    checkpoint_folder,
    plan,
    run_steps,
)
from personalign.methods.systems import Row, System, predict
from personalign.methods.tables import results_table
from personalign.methods.trained_selector import SelectorLearner
from personalign.models import LoadedModel
from personalign.models.encoder import load_encoder
from personalign.prompts import Prompter
from personalign.training.examples import Example, GrownTree, grow, statistics
from personalign.training.trainer import total_steps, train_stage

# Batches of decoding and of scoring without gradients, in padded tokens.
INFERENCE_BUDGET = 8192
TITLES = {
    "finetuning": "Fine-tuning",
    "finetuning_longer": "Fine-tuning, longer",
    "stage1": "PAL stage 1",
    "stage2": "PAL stage 2",
}


class PalRun:
    """One run in one folder. Models and dialogues are loaded when a step needs them."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        reporter: Reporter,
        resume: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self._ranks = ranks
        self._reporter = reporter
        self._resume = resume
        self._parts: Parts | None = None
        self._held_out: list[GrownTree] = []
        self._biases: dict[str, Calibration] = {}
        self._models = ModelStore(recipe, folder / "models", reporter=reporter, ranks=ranks)

    def plan(self, *, until: str | None = None) -> list[Planned]:
        """What each step would do, in order, as far as `until`. Raises PersonalignError where that is no step."""
        return plan(self._wanted(until), self.folder)

    def run(self, *, until: str | None = None) -> dict[str, Any]:
        """Do every step that is not done; returns the results, or the records so far when `until` ends it earlier."""
        wanted = self._wanted(until)
        undone = {item.step.name for item in plan(wanted, self.folder) if item.state != "done"}
        if not undone:
            # Nothing is computed and nothing written: the folder would claim versions that made none of it.
            return self._run_steps(wanted)
        if undone & {"stage2", "results"}:
            # Hours before one is opened.
            for name in self.recipe.evaluation.judges:
                find_judge(name)
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone_in(self.folder, ranks=self._ranks):
            if self._ranks.main:
                write_text(self.folder / "recipe.yaml", recipe_yaml(self.recipe))
                write_json(self.folder / "versions.json", _versions())
            return self._run_steps(wanted)

    def _run_steps(self, wanted: Sequence[Step]) -> dict[str, Any]:
        return run_steps(wanted, self.folder, reporter=self._reporter, ranks=self._ranks)

    def _wanted(self, until: str | None) -> list[Step]:
        steps = self.steps()
        names = [step.name for step in steps]
        if until is not None and until not in names:
            raise PersonalignError(f"--until {until}: there is no such step; write one of {', '.join(names)}")
        return steps[: len(steps) if until is None else names.index(until) + 1]

    def steps(self) -> list[Step]:
        recipe, stages = self.recipe, self.recipe.stages
        common = {"prompts": recipe.prompts.model_dump(), "seed": recipe.seed}
        backbone = {
            "backbone": recipe.backbone.model_dump(),
            "seed": recipe.seed,
            "language": recipe.language,
        }
        if is_mini(recipe.backbone.name):
            backbone["weights"] = mini_fingerprint()
        made = {
            **backbone,
            "copying": _dump(stages.copying),
            "pretrain": _dump(stages.pretrain),
        }
        if recipe.backbone.scratch is not None and stages.pretrain is not None:
            made["prompts"] = recipe.prompts.model_dump()
        steps = [
            Step(
                "data",
                "Dialogues",
                (),
                source_fingerprint(recipe) | {"language": recipe.language} | label_settings(recipe),
                self._data,
            ),
            Step("backbone", "Backbone", ("data",), made, self._backbone),
        ]
        if recipe.selector.kind == "trained":
            asked = {
                "selector": recipe.selector.model_dump(),
                "seed": recipe.seed,
                "language": recipe.language,
            }
            steps.append(Step("selector", "Selector", ("data",), asked, self._trained_selector))
        for name, stage in trained_stages(recipe).items():
            steps += self._stage_steps(name, stage, common)
        settings = {"decoding": recipe.decoding.model_dump(), "selector": recipe.selector.model_dump()}
        systems = compared_systems(recipe)
        for system in systems:
            chosen = {**settings, "strategy": system.strategy, "part": system.part}
            title = f"Predictions of {system.title}"
            needed = (system.stage, *(self._selector_step() if system.strategy == "predicted" else ()))
            steps.append(
                Step(f"predict:{system.name}", title, needed, chosen, partial(self._predict, system))
            )
        after = tuple(f"predict:{system.name}" for system in systems)
        steps.append(Step("results", "Results", after, recipe.evaluation.model_dump(), self._results))
        return steps

    def _stage_steps(self, name: str, stage: Stage, common: dict[str, Any]) -> list[Step]:
        """Training a stage, behind the rejected replies where it aligns with pairs."""
        recipe, steps = self.recipe, []
        settings: dict[str, Any] = dict(common)
        if name in ("stage1", "stage2"):
            settings["ablation"] = recipe.ablation
        start = {"finetuning_longer": "finetuning", "stage2": aligned_from(recipe)}.get(name, "backbone")
        after: tuple[str, ...] = (start,)
        if name == "stage2":
            settings["decoding"] = recipe.decoding.model_dump()
            if recipe.ablation != "without_pairs":
                steps.append(Step("rejected", "Rejected replies", after, dict(settings), self._rejected))
                after = (start, "rejected")
            if stage.evaluate_every is not None:
                settings["judge"] = [*recipe.evaluation.judges[:1], recipe.evaluation.judge_dtype]
                settings["selector"] = recipe.selector.model_dump()
                after = (*after, *self._selector_step())
        settings["stage"] = stage.model_dump()
        return [*steps, Step(name, TITLES[name], after, settings, partial(self._trained, name, start))]

    def _selector_step(self) -> tuple[str, ...]:
        """The step that makes the selector, where there is one."""
        return ("selector",) if self.recipe.selector.kind == "trained" else ()

    def parts(self) -> Parts:
        if self._parts is None:
            self._parts = read_parts(self.folder / "data")
        return self._parts

    def prompter(self) -> Prompter:
        return self._models.prompter()

    def sample_dialogue(self) -> dict[str, Any]:
        """The first test dialogue with the final model's own selections and replies."""
        rows = _read_rows(self.folder / "predictions" / "pal_predicted.jsonl")
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

    def _data(self) -> dict[str, Any]:
        self._parts = None
        return self._ranks.from_main(self._written_data)

    def _written_data(self) -> dict[str, Any]:
        loaded = load_parts(self.recipe, say=self._reporter.say)
        parts = label_parts(loaded, self.recipe, reporter=self._reporter)
        with whole_folder(self.folder / "data", replace=True) as folder:
            write_parts(folder, parts)
        self._parts = parts
        return {
            name: {
                "dialogues": len(dialogues),
                "examples": sum(len(dialogue.reply_indices()) for dialogue in dialogues),
                "fingerprint": fingerprint(dialogues),
            }
            for name, dialogues in parts.items()
        }

    def _backbone(self) -> dict[str, Any]:
        checkpoints = self._checkpoints("backbone")
        record = self._models.make_backbone(
            self.parts(),
            journal=self._journal,
            checkpoints=checkpoints,
            resume=self._resume,
            check=self._check_lengths,
        )
        self._remove(checkpoints)
        return record

    def _check_lengths(self, prompter: Prompter) -> dict[str, Any]:
        # The stages of `train` count what they lose.
        parts = {name: dialogues for name, dialogues in self.parts().items() if name != "train"}
        counts = trimmed_turns(parts, prompter)
        for name, part in counts.items():
            if part[TRIMMED]:
                self._reporter.say(
                    f"{part[TRIMMED]} of {part['turns']} turns of part '{name}' lose their oldest messages to "
                    "prompts.max_tokens"
                )
        return counts

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
        with self._reporter.task("Rejected replies", _turns(mine)) as advance:
            replies = without_persona(
                loaded,
                self.prompter(),
                mine,
                decoding=self._decoding(),
                budget=INFERENCE_BUDGET,
                progress=_steps(advance),
                served=served,
            )
        rows = self._ranks.merged(
            [
                {"dialogue": dialogue.id, "replies": texts}
                for dialogue, texts in zip(mine, replies, strict=True)
            ]
        )
        if self._ranks.main:
            write_jsonl(self.folder / "rejected.jsonl", rows)
        self._forget(served)
        return {"replies": _turns(dialogues)}

    def _predict(self, system: System) -> dict[str, Any]:
        loaded = self._models.open(system.stage)
        mine = self._ranks.share(self.parts()[system.part])
        selection, record = self._selection(system, loaded)
        served = self._served(system.stage, f"predict:{system.name}")
        with self._reporter.task(f"Replies of {system.title}", _turns(mine)) as advance:
            answered = predict(
                system,
                loaded,
                self.prompter(),
                mine,
                selection=selection,
                decoding=self._decoding(),
                budget=INFERENCE_BUDGET,
                progress=_steps(advance),
                served=served,
            )
        of_dialogue: dict[str, list[Row]] = {dialogue.id: [] for dialogue in mine}
        for row in answered:
            of_dialogue[row["dialogue"]].append(row)
        rows = list(chain.from_iterable(self._ranks.merged(list(of_dialogue.values()))))
        if self._ranks.main:
            write_jsonl(self._predictions(system.name), rows)
        self._forget(served)
        return {"turns": len(rows), **record}

    def _results(self) -> dict[str, Any]:
        recipe = self.recipe
        judges = {name: self._judge(name) for name in recipe.evaluation.judges}
        results = measured(
            recipe,
            lambda name: _read_rows(self._predictions(name)),
            self.parts()["test"],
            judges,
            reporter=self._reporter,
        )
        if self._ranks.main:
            write_json(self.folder / "results.json", results)
            write_text(self.folder / "table.md", results_table(results))
        self._models.publish(
            final_stage(recipe),
            self.folder / "model",
            calibration=self._calibration(final_stage(recipe)),
            selector=self._selector_folder if self._selector_step() else None,
        )
        if self._ranks.main:
            write_text(self.folder / "README.md", model_card(recipe, results))
        return {"systems": list(results)}

    # What the steps share -------------------------------------------------------------------------------

    @property
    def _journal(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def _selector_folder(self) -> Path:
        return self.folder / "selector"

    def _predictions(self, name: str) -> Path:
        return self.folder / "predictions" / f"{name}.jsonl"

    def _decoding(self) -> DecodingSettings:
        return DecodingSettings(**self.recipe.decoding.model_dump(exclude={"engine"}), seed=self.recipe.seed)

    def _served(self, stage: str, step: str) -> ServedModel | None:
        """The stage's model where a server has it, with what it answered before the step was interrupted."""
        if self.recipe.decoding.engine == "local":
            return None
        name = f"{step.replace(':', '-')}-{self._fingerprint(step)[:12]}-{self._ranks.rank}.jsonl"
        return open_served(
            stage,
            decoding=self._decoding(),
            end_ids=self.prompter().end_ids,
            store=self.folder / "served" / name,
        )

    def _forget(self, served: ServedModel | None) -> None:
        """What a server answered stands in the step's own file by now."""
        if served is not None:
            served.store.unlink(missing_ok=True)

    def _fingerprint(self, step: str) -> str:
        return next(item.fingerprint for item in self.plan() if item.step.name == step)

    def _rejected_replies(self) -> list[list[str]]:
        rows = {row["dialogue"]: row["replies"] for row in _read_rows(self.folder / "rejected.jsonl")}
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
        settings = stage_settings(stage, seed=self.recipe.seed, loaded=loaded, ablation=self.recipe.ablation)
        trees = stage_trees(examples, stage)
        record: dict[str, Any] = {"trees": asdict(statistics(trees)), "dropped": dict(dropped.counts)}
        if settings.objective == "dpo":
            mine = pal.with_reference(loaded, self._ranks.share(trees), budget=INFERENCE_BUDGET)
            trees = self._ranks.merged(mine)
            record["largest_log_ratio"] = pal.check_reference(loaded, trees, budget=stage.token_budget)
            self._say_log_ratio(record["largest_log_ratio"], loaded)
            self._held_out = self._held_out_trees(loaded)
            record["start"] = self._held_out_pairs(loaded)
        checkpoints = self._checkpoints(name)
        steps = total_steps(trees, settings)
        if remark := warmup_remark(name, stage, steps):
            self._reporter.say(remark)
        with self._reporter.task(TITLES[name], steps) as advance:
            result = train_stage(
                loaded.model,
                trees,
                settings=settings,
                folder=checkpoints,
                stage=name,
                plan=loaded.plan,
                optimizer=self._models.optimizer(loaded, stage),
                journal=self._journal,
                progress=lambda step, total, values: advance(1),
                validate=self._validation(loaded) if validate and stage.evaluate_every else None,
                resume=self._resume,
            )
        if result.interrupted:
            raise Interrupted(name)
        record |= {
            "steps": result.steps,
            "training_seconds": round(result.seconds, 2),
            "best_step": result.best_step,
        }
        if settings.objective == "dpo":
            record["end"] = self._held_out_pairs(loaded)
        self._models.save(name, loaded)
        self._remove(checkpoints)
        return record

    def _remove(self, checkpoints: Path) -> None:
        # No process may still read from there, as one does that puts back the best weights.
        self._ranks.wait()
        if self._ranks.main:
            shutil.rmtree(checkpoints, ignore_errors=True)

    def _checkpoints(self, stage: str) -> Path:
        return checkpoint_folder(
            self.folder,
            stage,
            self._fingerprint(stage),
            resume=self._resume,
            say=self._reporter.say,
            ranks=self._ranks,
        )

    def _say_log_ratio(self, largest: float, loaded: LoadedModel) -> None:
        if loaded.precision.autocast:
            bound = pal.LARGEST_LOG_RATIO[loaded.precision.dtype]
            self._reporter.say(
                f"Log-ratios before the first step: {largest:.2g} per token at most (bound {bound:g})"
            )

    def _selection(self, system: System, loaded: LoadedModel) -> tuple[Selection, dict[str, Any]]:
        if system.strategy == "predicted":
            scorer = open_scorer(self.recipe.selector, self._selector_folder)
            found = self._calibrated(system.stage, loaded, scorer)
            return Selection("predicted", scorer=scorer, none_bias=found.none_bias), asdict(found)
        if system.strategy == "random":
            share = labelled_share_of_none(self.parts()["stop"])
            selection = Selection("random", share_of_none=share, seed=self.recipe.seed)
            return selection, {"share_of_none": share}
        return Selection(system.strategy), {}

    def _calibrated(self, stage: str, loaded: LoadedModel, scorer: SelectionScorer | None) -> Calibration:
        """Once per model: every part that it answers for is answered at the same bias."""
        if stage not in self._biases:
            stop = self.parts()["stop"]
            found = calibrated(loaded, self.prompter(), stop, scorer=scorer, budget=INFERENCE_BUDGET)
            if self._ranks.main:
                write_json(self.folder / "calibration" / f"{stage}.json", asdict(found))
            self._biases[stage] = found
        return self._biases[stage]

    def _calibration(self, stage: str) -> Calibration:
        path = self.folder / "calibration" / f"{stage}.json"
        return Calibration(**json.loads(path.read_text(encoding="utf-8")))

    def _validation(self, loaded: LoadedModel) -> Callable[[object], float]:
        recipe = self.recipe
        return c_score_on(
            self.parts()["stop"],
            loaded,
            self.prompter(),
            judge=self._judge(recipe.evaluation.judges[0]),
            scorer=open_scorer(recipe.selector, self._selector_folder),
            decoding=self._decoding(),
            budget=INFERENCE_BUDGET,
        )

    def _judge(self, name: str) -> Judge:
        recipe = self.recipe
        judge = open_judge(name, language=recipe.language, dtype=recipe.evaluation.judge_dtype)
        # Kept verdicts are those that a report on the run asks for next.
        return with_cache(judge) if self._ranks.count == 1 else SharedJudge(judge, self._ranks)

    def _held_out_pairs(self, loaded: LoadedModel) -> dict[str, float]:
        """DPO's loss and pair accuracy on pairs of the stopping part, against the model that stage 2 began from."""
        beta = self.recipe.stages.stage2.beta
        return pal.measure_pairs(loaded, self._held_out, beta=beta, budget=INFERENCE_BUDGET)

    def _held_out_trees(self, reference: LoadedModel) -> list[GrownTree]:
        stop = self.parts()["stop"]
        replies = without_persona(
            reference, self.prompter(), stop, decoding=self._decoding(), budget=INFERENCE_BUDGET
        )
        examples = pal.alignment_pairs(
            stop, replies, self.prompter(), dropped=pal.Dropped(), only_labelled=True
        )
        return pal.with_reference(reference, grow(examples, budget=INFERENCE_BUDGET), budget=INFERENCE_BUDGET)


def _turns(dialogues: Sequence[Dialogue]) -> int:
    return sum(len(dialogue.reply_indices()) for dialogue in dialogues)


def _steps(advance: Any) -> Any:
    """Turn (done, total) calls into advances."""
    seen = 0

    def progress(done: int, total: int) -> None:
        nonlocal seen
        advance(done - seen)
        seen = done

    return progress


def _dump(section: Any) -> Any:
    return None if section is None else section.model_dump()


def _read_rows(path: Path) -> list[Row]:
    with open(path, encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    packages = ("personalign", "torch", "transformers", "peft", "accelerate", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
