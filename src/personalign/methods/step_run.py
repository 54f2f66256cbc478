"""What the runs of all methods share: steps in a folder, stages that are trained, models that are kept."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from personalign._files import read_jsonl, whole_folder, write_json, write_text
from personalign._mini import is_mini, mini_fingerprint
from personalign._ranks import ALONE, Ranks
from personalign.data.dialogue import Dialogue
from personalign.decoding.generation import DecodingSettings
from personalign.errors import PersonalignError
from personalign.evaluation.judge import Judge, SharedJudge
from personalign.methods import pal
from personalign.methods.judges import find_judge, judges_asked, open_judge, with_cache
from personalign.methods.models import PUBLISHED, ModelStore
from personalign.methods.parts import (
    TRIMMED,
    Parts,
    contents_of,
    fingerprint,
    read_parts,
    trimmed_turns,
    write_parts,
)
from personalign.methods.recipe import RunRecipe, Stage, recipe_yaml
from personalign.methods.stages import warmup_remark
from personalign.methods.steps import (
    Interrupted,
    Planned,
    Reporter,
    Step,
    alone_in,
    checkpoint_folder,
    plan,
    read_record,
    run_steps,
    step_again,
    steps_of,
    undone,
    write_plan,
)
from personalign.methods.systems import Row
from personalign.models import LoadedModel
from personalign.prompts import Prompter
from personalign.prompts.wording import VERSION
from personalign.training.examples import GrownTree
from personalign.training.journal import Validate
from personalign.training.step import StageSettings
from personalign.training.trainer import total_steps, train_stage

# Batches of decoding and of scoring without gradients, in padded tokens.
INFERENCE_BUDGET = 8192

AnyRecipe = TypeVar("AnyRecipe", bound=RunRecipe)


class StepRun(ABC, Generic[AnyRecipe]):
    """One run in one folder. Models and dialogues are loaded when a step needs them."""

    # Steps before which the judges have to be there: hours may lie between the first step and these.
    judging: frozenset[str] = frozenset({"results"})

    def __init__(
        self,
        recipe: AnyRecipe,
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
        self._models = ModelStore(
            recipe, folder / "models", reporter=reporter, ranks=ranks, begun=self._begun
        )

    @abstractmethod
    def steps(self) -> list[Step]:
        """Every step, in order."""

    def plan(self, *, until: str | None = None) -> list[Planned]:
        """What each step would do, in order, as far as `until`. Raises PersonalignError where that is no step."""
        return plan(self._wanted(until), self.folder)

    def run(self, *, until: str | None = None) -> dict[str, Any]:
        """Do every step that is not done; returns the results, or the records so far when `until` ends it earlier."""
        wanted = self._wanted(until)
        planned = self.plan()
        left = {item.step.name for item in planned[: len(wanted)] if item.state != "done"}
        if left & self.judging:
            for name in self.recipe.evaluation.judges:
                find_judge(name)
        if not left and not undone(self.folder):
            return self._run_steps(wanted)
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone_in(self.folder, ranks=self._ranks):
            if self._ranks.main:
                write_text(self.folder / "recipe.yaml", recipe_yaml(self.recipe))
                write_plan(self.folder, planned)
                if left:
                    # Else nothing is computed, and the folder would claim versions that made none of it.
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

    def _fingerprint(self, step: str) -> str:
        return next(item.fingerprint for item in self.plan() if item.step.name == step)

    # Dialogues --------------------------------------------------------------------------------------------

    def parts(self) -> Parts:
        if self._parts is None:
            self._parts = read_parts(self.folder / "data")
        return self._parts

    def _data(self) -> dict[str, Any]:
        self._parts = None
        return self._ranks.from_main(self._written_data)

    def _written_data(self) -> dict[str, Any]:
        parts = self._made_parts()
        with whole_folder(self.folder / "data", replace=True) as folder:
            write_parts(folder, parts)
        self._parts = parts
        return {
            name: {
                "dialogues": len(dialogues),
                "examples": turns_in(dialogues),
                "fingerprint": fingerprint(dialogues),
            }
            for name, dialogues in parts.items()
        }

    def _judging_settings(self) -> dict[str, Any]:
        """What decides the figures of the results."""
        asked = judges_asked(self.recipe.evaluation.judges)
        return self.recipe.evaluation.model_dump() | ({"verdicts": asked} if asked else {})

    @abstractmethod
    def _made_parts(self) -> Parts:
        """The dialogues of each part, as the recipe asks for them."""

    def _answered(self) -> Parts:
        """The parts, and what else is answered."""
        return self.parts()

    # Models -----------------------------------------------------------------------------------------------

    def prompter(self) -> Prompter:
        return self._models.prompter()

    def _begun(self) -> Mapping[str, Any]:
        """What the backbone's step recorded; nothing before it is done."""
        record = read_record(self.folder, "backbone")
        return {} if record is None else record["record"]

    def _prompt_settings(self) -> dict[str, Any]:
        """What of the recipe and of this version decides the prompts."""
        return {**self.recipe.prompts.model_dump(), "wording": VERSION}

    def _backbone_settings(self) -> dict[str, Any]:
        """What decides the backbone besides the data."""
        recipe = self.recipe
        # A backbone of a name is taken as it is.
        made = recipe.backbone.scratch is not None
        settings = {
            "backbone": recipe.backbone.model_dump(),
            "seed": recipe.seed,
            "language": recipe.language,
            "copying": _dump(recipe.stages.copying) if made else None,
            "pretrain": _dump(recipe.stages.pretrain) if made else None,
        }
        if is_mini(recipe.backbone.name):
            settings["weights"] = mini_fingerprint()
        elif (weights := contents_of(recipe.backbone.name)) != recipe.backbone.name:
            settings["weights"] = weights
        # What it says of the lengths of prompts, and the hash that the stages' own must have, are theirs.
        settings["prompts"] = self._prompt_settings()
        return settings

    def _backbone(self) -> dict[str, Any]:
        return self._models.make_backbone(
            self._backbone_texts,
            journal=self._journal,
            checkpoints=self._checkpoints("backbone"),
            resume=self._resume,
            check=self._check_lengths,
        )

    @abstractmethod
    def _backbone_texts(self) -> tuple[list[Dialogue], dict[str, int]]:
        """What a backbone from scratch may read, and counts of what was left out."""

    def _check_lengths(self, prompter: Prompter) -> dict[str, Any]:
        # The stages of `train` count what they lose.
        parts = {name: dialogues for name, dialogues in self._answered().items() if name != "train"}
        counts = trimmed_turns(parts, prompter)
        for name, part in counts.items():
            if part[TRIMMED]:
                self._reporter.say(
                    f"{part[TRIMMED]} of {part['turns']} turns of part '{name}' lose their oldest messages to "
                    "prompts.max_tokens"
                )
        return counts

    def _fit(
        self,
        name: str,
        title: str,
        loaded: LoadedModel,
        trees: Sequence[GrownTree],
        stage: Stage,
        settings: StageSettings,
        *,
        validate: Validate | None = None,
    ) -> dict[str, Any]:
        """Train the model in place on the trees; the caller keeps it.

        Raises Interrupted after Ctrl-C.
        """
        steps = total_steps(trees, settings)
        if remark := warmup_remark(name, stage, steps):
            self._reporter.say(remark)
        with self._reporter.task(title, steps) as advance:
            result = train_stage(
                loaded.model,
                trees,
                settings=settings,
                folder=self._checkpoints(name),
                stage=name,
                plan=loaded.plan,
                optimizer=self._models.optimizer(loaded, stage),
                journal=self._journal,
                progress=steps_of(advance),
                validate=validate,
                resume=self._resume,
            )
        if result.interrupted:
            raise Interrupted(name)
        return {
            "steps": result.steps,
            "training_seconds": round(result.seconds, 2),
            "best_step": result.best_step,
        }

    def _with_reference(
        self, loaded: LoadedModel, trees: Sequence[GrownTree], stage: Stage
    ) -> tuple[list[GrownTree], float]:
        """The trees under the model as it is now, which alignment starts from, and how far a second look is off."""
        mine = pal.with_reference(loaded, self._ranks.share(trees), budget=INFERENCE_BUDGET)
        scored = self._ranks.merged(mine)
        largest = pal.check_reference(loaded, scored, budget=stage.token_budget)
        if loaded.precision.autocast:
            bound = pal.LARGEST_LOG_RATIO[loaded.precision.dtype]
            self._reporter.say(
                f"Log-ratios before the first step: {largest:.2g} per token at most (bound {bound:g})"
            )
        return scored, largest

    def _checkpoints(self, stage: str) -> Path:
        return checkpoint_folder(
            self.folder,
            stage,
            self._fingerprint(stage),
            resume=self._resume,
            say=self._reporter.say,
            ranks=self._ranks,
        )

    def _write_card(self, text: str) -> None:
        """Beside the run, and beside its model, which may go elsewhere without it."""
        if self._ranks.main:
            for folder in (self.folder, self.folder / PUBLISHED):
                write_text(folder / "README.md", text)

    # Answers ----------------------------------------------------------------------------------------------

    @property
    def _journal(self) -> Path:
        return self.folder / "metrics.jsonl"

    def _predictions(self, name: str) -> Path:
        return self.folder / "predictions" / f"{name}.jsonl"

    def _rows(self, path: Path, *, step: str) -> list[Row]:
        """Rows that the step wrote."""
        return read_jsonl(path, advice=step_again(self.folder, step))

    def _decoding(self) -> DecodingSettings:
        return DecodingSettings(**self.recipe.decoding.model_dump(exclude={"engine"}), seed=self.recipe.seed)

    def _judge(self, name: str) -> Judge:
        recipe = self.recipe
        judge = open_judge(name, language=recipe.language, dtype=recipe.evaluation.judge_dtype)
        # Kept verdicts are those that a report on the run asks for next.
        kept = with_cache(judge)
        return kept if self._ranks.count == 1 else SharedJudge(kept, self._ranks)


def turns_in(dialogues: Sequence[Dialogue]) -> int:
    return sum(len(dialogue.reply_indices()) for dialogue in dialogues)


def _dump(section: Any) -> Any:
    return None if section is None else section.model_dump()


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    packages = ("personalign", "torch", "transformers", "peft", "accelerate", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
