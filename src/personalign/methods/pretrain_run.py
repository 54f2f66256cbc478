"""Training a backbone of one's own: from dialogue text to a model folder that chats, with its card and loss curve."""

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from personalign._files import read_whole_lines, whole_folder, write_json, write_text
from personalign._ranks import ALONE, Ranks
from personalign._version import __version__
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import read_dialogues
from personalign.data.split import split_by_persona
from personalign.data.synthetic.corpus import CORPUS_VERSION
from personalign.decoding.respond import selection_scores
from personalign.decoding.selection import labelled_line
from personalign.evaluation.report.charts import Line, standalone_chart
from personalign.labels.labeller import IdfOverlapLabeller
from personalign.methods import pal
from personalign.methods.cards import credit_lines
from personalign.methods.models import CARD, build_from_scratch, published_card, write_model
from personalign.methods.parts import bytes_of, locate
from personalign.methods.pretrain_recipe import PretrainRecipe
from personalign.methods.pretrain_text import filled_in, synthetic_text
from personalign.methods.pretraining import (
    copy_examples,
    copying,
    pairs_as_dialogues,
    pretrain,
    pretraining_examples,
    untested,
)
from personalign.methods.recipe import Selector, recipe_yaml
from personalign.methods.selecting import Calibration, calibrated
from personalign.methods.steps import (
    Planned,
    Reporter,
    Step,
    alone_in,
    checkpoint_folder,
    plan,
    run_steps,
    write_plan,
)
from personalign.models import LoadedModel
from personalign.prompts import Prompter, PromptSettings
from personalign.prompts.wording import VERSION
from personalign.training.examples import Example, grow

# Padded tokens of a batch without gradients.
_BUDGET = 8192
MODEL = "model"
LOSSES = "losses.csv"
CURVE = "loss.svg"
# Not recipe.yaml, which would make the folder a run.
RECIPE = "pretrain.yaml"
LOSS = "loss_"
"""How the journal names the losses of the kinds of targets."""


class PretrainRun:
    """One backbone in one folder; `model/` in it is what loads."""

    def __init__(
        self,
        recipe: PretrainRecipe,
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

    def plan(self) -> list[Planned]:
        return plan([self._step()], self.folder)

    def run(self) -> dict[str, Any]:
        """Train unless that is done; returns the record. Raises Interrupted after Ctrl-C."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone_in(self.folder, ranks=self._ranks):
            if self._ranks.main:
                # Beside `model/`, so that the folder opens like a run's.
                write_text(self.folder / "recipe.yaml", recipe_yaml(self.recipe))
                write_plan(self.folder, self.plan())
            steps = [self._step()]
            return run_steps(steps, self.folder, reporter=self._reporter, ranks=self._ranks)[MODEL]

    def _step(self) -> Step:
        # Not what is only said of it.
        recipe = self.recipe
        settings = recipe.model_dump(exclude={"description", "measured", "credits", "examples"})
        data = recipe.data
        keys = (*data.files, *data.tested, *filter(None, [data.persona_pairs]))
        settings |= bytes_of(data.hub, keys)
        settings["wording"] = VERSION
        if data.synthetic is not None:
            settings["corpus version"] = CORPUS_VERSION
        return Step(MODEL, "Backbone", (), settings, self._train)

    def _train(self) -> dict[str, Any]:
        recipe, reporter = self.recipe, self._reporter
        kept, counts = self._dialogues()
        shares = {"train": 1 - recipe.data.held_out, "held_out": recipe.data.held_out}
        parts = split_by_persona(kept, shares, seed=recipe.seed)
        reporter.say(f"{len(parts['train'])} dialogues to learn from, {len(parts['held_out'])} held out")
        loaded = build_from_scratch(
            recipe.backbone, parts["train"], language=recipe.language, seed=recipe.seed
        )
        prompter = Prompter(
            loaded.tokenizer, PromptSettings(language=recipe.language, **recipe.prompts.model_dump())
        )
        dropped = pal.Dropped()
        examples = self._examples(parts["train"], prompter, dropped)
        record: dict[str, Any] = {
            "parameters": sum(item.numel() for item in loaded.model.parameters()),
            "vocabulary": len(loaded.tokenizer),
            "data": counts | {name: len(part) for name, part in parts.items()},
            "dropped": dict(dropped.counts),
        }
        checkpoints = checkpoint_folder(
            self.folder,
            MODEL,
            self.plan()[0].fingerprint,
            resume=self._resume,
            say=reporter.say,
            ranks=self._ranks,
        )
        if recipe.copying is not None:
            record["copying"] = copying(
                loaded,
                recipe.copying,
                seed=recipe.seed,
                reporter=reporter,
                checkpoints=checkpoints,
                resume=self._resume,
            )
        record["pretrain"] = pretrain(
            loaded,
            examples,
            recipe.pretrain,
            seed=recipe.seed,
            checkpoints=checkpoints,
            journal=self.folder / "metrics.jsonl",
            reporter=reporter,
            resume=self._resume,
        )
        if recipe.weights == "bfloat16":
            # What is measured is what is stored.
            for tensor in loaded.model.parameters():
                tensor.data = tensor.data.bfloat16().float()
        record["held_out"] = self._measure(loaded, prompter, parts["held_out"])
        if self._ranks.main:
            self._publish(loaded, prompter, record, parts["held_out"])
        return record

    def _dialogues(self) -> tuple[list[Dialogue], dict[str, int]]:
        data = self.recipe.data
        tested = [item for key in data.tested for item in read_dialogues(locate(key, data.hub))]
        left_out: Counter[str] = Counter()
        sources = []
        for key in data.files:
            read = read_dialogues(locate(key, data.hub))
            if tested:
                # As it was written: a placeholder that is filled in would hide what is tested.
                read, counts = untested([read], tested)
                left_out.update(counts)
            source = filled_in(read, data.fill_in, seed=self.recipe.seed)
            if data.both_sides:
                bound = [_bound(item, key) for item in source]
                source = [*bound, *(_other_side(item) for item in bound if item.partner_persona)]
            sources.append(source)
        if data.persona_pairs is not None:
            sources.append(pairs_as_dialogues(locate(data.persona_pairs, data.hub)))
        if data.synthetic is not None:
            files = [dialogue for source in sources for dialogue in source]
            language = self.recipe.language
            sources.append(synthetic_text(data.synthetic, files, language=language, seed=self.recipe.seed))
        kept, counts = untested(sources, tested)
        left_out.update(counts)
        labelled = self._labelled(kept) if self.recipe.tasks == "persona" else kept
        return labelled, {**left_out, "dialogues": len(kept)}

    def _labelled(self, dialogues: Sequence[Dialogue]) -> list[Dialogue]:
        """Labels by idf overlap for those that bring none; idf counts over all of them."""
        labels = IdfOverlapLabeller(language=self.recipe.language).label(dialogues)
        return [
            replace(dialogue, relevant=found) if dialogue.relevant is None else dialogue
            for dialogue, found in zip(dialogues, labels, strict=True)
        ]

    def _examples(
        self, dialogues: Sequence[Dialogue], prompter: Prompter, dropped: pal.Dropped
    ) -> list[Example]:
        stage, seed = self.recipe.pretrain, self.recipe.seed
        if self.recipe.tasks == "text":
            return pretraining_examples(dialogues, prompter, stage, seed=seed, dropped=dropped.counts)
        examples = pal.persona_aware_learning(
            dialogues, prompter, dropped=dropped, trunk_weight=self.recipe.text_weight
        )
        copies = copy_examples(
            dialogues, prompter, stage, rows=len(dialogues), seed=seed, dropped=dropped.counts
        )
        return [*examples, *copies]

    def _measure(
        self, loaded: LoadedModel, prompter: Prompter, held_out: Sequence[Dialogue]
    ) -> dict[str, float]:
        """Perplexity per token of the held-out text; of a model that learnt to select, how often it finds the line."""
        examples = pretraining_examples(
            held_out,
            prompter,
            self.recipe.pretrain.model_copy(update={"copy_every": None}),
            seed=self.recipe.seed,
            dropped=Counter(),
        )
        found = {"ppl/token": math.exp(_mean_nll(loaded, examples))}
        if self.recipe.tasks == "persona":
            scores = selection_scores(loaded, prompter, held_out, scorer=None, budget=_BUDGET)
            right = [
                labelled_line(dialogue, turn) == int(item[:-1].argmax())
                for dialogue, row in zip(held_out, scores, strict=True)
                for turn, item in zip(dialogue.reply_indices(), row, strict=True)
                if labelled_line(dialogue, turn) is not None
            ]
            found["selection/recall@1"] = sum(right) / max(1, len(right))
        return found

    def _publish(
        self, loaded: LoadedModel, prompter: Prompter, record: dict[str, Any], held_out: Sequence[Dialogue]
    ) -> None:
        recipe = self.recipe
        curve = _losses(self.folder / "metrics.jsonl")
        calibration = Calibration(0.0, 0.0)
        if recipe.tasks == "persona":
            calibration = calibrated(loaded, prompter, held_out, scorer=None, budget=_BUDGET)
        if recipe.weights == "bfloat16":
            loaded.model.to(torch.bfloat16)
        with whole_folder(self.folder / MODEL, replace=True) as folder:
            write_model(loaded, folder)
            found = [item.persona for item in held_out if item.persona][:3]
            examples = [list(persona) for persona in recipe.examples or found]
            write_json(
                folder / CARD,
                published_card(
                    prompter,
                    calibration=calibration,
                    selector=Selector(),
                    decoding=recipe.decoding,
                    examples=examples,
                ),
            )
            write_text(folder / LOSSES, _table(curve))
            write_text(folder / CURVE, _drawn(curve))
            write_text(folder / RECIPE, recipe_yaml(recipe))
            write_text(folder / "README.md", _model_card(recipe, record))


def _bound(dialogue: Dialogue, key: str) -> Dialogue:
    """With a mark that its other side has too: what is held out of one must not be learnt from the other."""
    return replace(dialogue, extra={"conversation": f"{key}/{dialogue.id}", **dialogue.extra})


def _other_side(dialogue: Dialogue) -> Dialogue:
    """The dialogue with the partner as the assistant."""
    roles = {"user": "assistant", "assistant": "user"}
    return Dialogue(
        dialogue.id,
        dialogue.partner_persona,
        tuple(Turn(roles[turn.role], turn.content) for turn in dialogue.messages),  # type: ignore[arg-type]
        partner_persona=dialogue.persona,
        person=dialogue.person,
        extra={"conversation": dialogue.extra["conversation"]},
    )


def _mean_nll(loaded: LoadedModel, examples: Sequence[Example]) -> float:
    """Nats per target token."""
    scores = pal.branch_scores(loaded, grow(examples, budget=_BUDGET), budget=_BUDGET)
    total = -sum(float(sums.sum()) for sums, _ in scores)
    return total / max(1, sum(int(lengths.sum()) for _, lengths in scores))


def _losses(journal: Path) -> list[dict[str, float]]:
    rows = read_whole_lines(journal)
    return [
        {name: value for name, value in row.items() if isinstance(value, int | float)}
        for row in rows
        if row.get("stage") == "pretrain" and any(name.startswith(LOSS) for name in row)
    ]


def _table(curve: Sequence[dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in curve for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(curve)
    return text.getvalue()


def _drawn(curve: Sequence[dict[str, float]]) -> str:
    names = [name for name in dict.fromkeys(name for row in curve for name in row) if name.startswith(LOSS)]
    lines = [
        Line(name.removeprefix(LOSS), [(row["step"], row[name]) for row in curve if name in row])
        for name in names
    ]
    return standalone_chart(lines, title="Training loss", x="update", y="nats per token")


def _model_card(recipe: PretrainRecipe, record: dict[str, Any]) -> str:
    data = recipe.data
    synthetic = (
        []
        if data.synthetic is None
        else [f"{data.synthetic.people} dialogues of personalign's synthetic corpus"]
    )
    sources = ", ".join([*data.files, *filter(None, [data.persona_pairs]), *synthetic])
    figures = [f"| {name} | {value:.3f} |" for name, value in record["held_out"].items()]
    left_out = [f"| {name} | {count} |" for name, count in record["data"].items()]
    minutes = record["pretrain"]["seconds"] / 60
    return "\n".join(
        [
            "---",
            "library_name: personalign",
            f"language: {recipe.language}",
            "tags: [persona, dialogue]",
            "---",
            "",
            f"# {recipe.name}",
            "",
            recipe.description,
            "",
            f"A causal language model of {record['parameters'] / 1e6:.1f}M parameters and {record['vocabulary']} tokens, "
            f"trained from random weights by personalign {__version__}, seed {recipe.seed}, on: {sources}. "
            f"{record['pretrain']['tokens']} tokens an epoch, {record['pretrain']['steps']} updates, "
            f"{minutes:.0f} minutes. "
            "It is a start for further training and for trying things out; what it says of the world is not to be "
            "relied on.",
            "",
            "    personalign chat THIS_FOLDER --line 'I have a dog.'",
            "",
            *credit_lines("Of the data:", recipe.credits),
            "| held-out text | |",
            "|---|---|",
            *figures,
            "",
            "| data | count |",
            "|---|---|",
            *left_out,
            "",
            f"The loss over training is in `{LOSSES}` and drawn in `{CURVE}`; `{RECIPE}` beside it made the model:",
            "",
            f"    personalign pretrain {RECIPE}",
            "",
        ]
    )
