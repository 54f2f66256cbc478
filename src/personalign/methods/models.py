"""The models of a run: made, opened, saved and published, each in a folder that transformers can load."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from personalign._files import whole_folder, write_json
from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError
from personalign.methods.backbone import CopyWarmup, copy_warmup
from personalign.methods.parts import Parts
from personalign.methods.pretraining import pretrain, pretraining_dialogues
from personalign.methods.recipe import Recipe, Stage
from personalign.methods.selecting import Calibration
from personalign.methods.steps import Reporter
from personalign.methods.trained_selector import SELECTOR_FILES
from personalign.models import (
    LoadedModel,
    LoraSettings,
    add_lora,
    build_backbone,
    check_attention,
    choose_device,
    load_model,
    load_tokenizer,
    lora_parameter_groups,
    prepare,
    train_bpe,
    word_tokenizer,
)
from personalign.prompts import Prompter, PromptSettings, structure_texts

CARD = "personalign.json"


class ModelStore:
    """Models by stage name, under one folder."""

    def __init__(self, recipe: Recipe, folder: Path, *, reporter: Reporter) -> None:
        self._recipe = recipe
        self._folder = folder
        self._reporter = reporter
        self._prompter: Prompter | None = None
        self._opened: tuple[str, LoadedModel] | None = None

    def make_backbone(
        self,
        parts: Parts,
        *,
        journal: Path,
        checkpoints: Path,
        resume: bool,
        check: Callable[[Prompter], dict[str, Any]],
    ) -> dict[str, Any]:
        """From scratch: tokenizer, copy warm-up, pretraining. A named backbone is only checked.

        `resume` goes on with the pretraining that has a checkpoint; the short warm-up before it is done again. `check`
        is asked, before anything is trained, whether the dialogues suit the prompts that the tokenizer makes of them.
        """
        scratch = self._recipe.backbone.scratch
        if scratch is None:
            loaded = self._load(self._source("backbone"), trainable=False)
            self._reporter.say(f"Backbone {self._recipe.backbone.name}: {loaded.plan.reason}")
            prompter = Prompter(loaded.tokenizer, prompt_settings(self._recipe))
            return {
                "parameters": _count(loaded.model),
                "plan": asdict(loaded.plan),
                "prompts": check(prompter),
            }
        texts, counts = pretraining_dialogues(self._recipe, parts)
        loaded = build_from_scratch(self._recipe, texts)
        record: dict[str, Any] = {
            "parameters": _count(loaded.model),
            "vocabulary": len(loaded.tokenizer),
            "pretraining": counts,
        }
        prompter = Prompter(loaded.tokenizer, prompt_settings(self._recipe))
        record["prompts"] = check(prompter)
        copying = self._recipe.stages.copying
        if copying is not None:
            settings = CopyWarmup(**copying.model_dump())
            with self._reporter.task("Learning to copy (ends early)", settings.max_steps) as advance:
                result = copy_warmup(
                    loaded.model,
                    settings,
                    token_ids=plain_tokens(loaded.tokenizer),
                    seed=self._recipe.seed,
                    progress=lambda step, total, values: advance(1),
                )
            record["copying"] = {
                "steps": result.steps,
                "accuracy": result.accuracy,
                "seconds": result.seconds,
            }
            if result.accuracy < settings.accuracy:
                self._reporter.say(
                    f"Copying was not learnt: {result.accuracy:.2f} of the tokens after {result.steps} steps, "
                    f"{settings.accuracy:g} were wanted. Personas will hardly be kept; try another "
                    "stages.copying.learning_rate, lower for a wider model, or more max_steps"
                )
        if self._recipe.stages.pretrain is not None:
            record["pretrain"] = pretrain(
                loaded,
                texts,
                prompter,
                self._recipe,
                checkpoints=checkpoints,
                journal=journal,
                reporter=self._reporter,
                resume=resume,
            )
        with whole_folder(self._folder / "backbone", replace=True) as folder:
            _write(loaded, folder)
        return record

    def open(self, stage: str, *, trainable: bool = False) -> LoadedModel:
        """The model of a stage; the one opened last is kept, unless it was opened to be trained."""
        if not trainable and self._opened is not None and self._opened[0] == stage:
            return self._opened[1]
        self._opened = None
        loaded = self._load(self._source(stage), trainable=trainable)
        if not trainable:
            self._opened = (stage, loaded)
        return loaded

    def save(self, stage: str, loaded: LoadedModel) -> None:
        self._opened = None
        with whole_folder(self._folder / stage, replace=True) as folder:
            _write(loaded, folder)

    def publish(
        self, stage: str, folder: Path, *, calibration: Calibration, selector: Path | None = None
    ) -> None:
        """The run's own model, with what inference needs beside it: its card, and the folder of a trained selector."""
        loaded = self.open(stage)
        recipe = self._recipe
        with whole_folder(folder, replace=True) as part:
            _write(loaded, part)
            if selector is not None:
                for file in SELECTOR_FILES:
                    shutil.copyfile(selector / file, part / file)
            write_json(
                part / CARD,
                {
                    "prompts": asdict(prompt_settings(self._recipe)),
                    "prompt_hash": self.prompter().hash,
                    **asdict(calibration),
                    "selector": recipe.selector.model_dump(),
                    "decoding": recipe.decoding.model_dump(),
                    "examples": _personas(self._folder.parent / "data"),
                },
            )

    def prompter(self) -> Prompter:
        if self._prompter is None:
            self._prompter = Prompter(load_tokenizer(self._source("backbone")), prompt_settings(self._recipe))
        return self._prompter

    def optimizer(self, loaded: LoadedModel, stage: Stage) -> torch.optim.Optimizer | None:
        """LoRA+ needs groups of its own; everything else is the Trainer's default Adam."""
        lora = self._recipe.backbone.lora
        if lora is None or lora.plus_ratio is None:
            return None
        groups = lora_parameter_groups(loaded.model, learning_rate=stage.learning_rate, ratio=lora.plus_ratio)
        return torch.optim.AdamW(
            groups,
            lr=stage.learning_rate,
            betas=(0.9, stage.adam_beta2),
            weight_decay=stage.weight_decay,
        )

    def _source(self, stage: str) -> str:
        if stage == "backbone" and self._recipe.backbone.name is not None:
            return self._recipe.backbone.name
        return str(self._folder / stage)

    def _load(self, source: str, *, trainable: bool) -> LoadedModel:
        backbone = self._recipe.backbone
        loaded = load_model(
            source,
            dtype=backbone.dtype,
            attention=backbone.attention,
            device=backbone.device,
            seed=self._recipe.seed,
            trainable=trainable,
        )
        if trainable and backbone.lora is not None and not loaded.adapted:
            return add_lora(loaded, LoraSettings(**backbone.lora.model_dump()), seed=self._recipe.seed)
        return loaded


def build_from_scratch(recipe: Recipe, dialogues: Sequence[Dialogue]) -> LoadedModel:
    """An untrained backbone with a tokenizer made for these dialogues, on the recipe's device."""
    scratch = recipe.backbone.scratch
    assert scratch is not None
    tokenizer = _make_tokenizer(recipe, dialogues)
    model = build_backbone(
        scratch.shape,
        vocab_size=len(tokenizer),
        width=scratch.width,
        layers=scratch.layers,
        heads=scratch.heads,
        look_back=scratch.look_back if scratch.shape == "qwen2" else 0.0,
        max_positions=scratch.max_positions,
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        seed=recipe.seed,
    )
    device = choose_device(recipe.backbone.device)
    # It is trained to copy under sdpa; what its stages will run under is refused before that, not after.
    check_attention(model.config, attention=recipe.backbone.attention, device=device)
    return prepare(model, tokenizer, dtype=recipe.backbone.dtype, device=device, seed=recipe.seed)


def untrained_backbone(recipe: Recipe, texts: Sequence[Dialogue]) -> tuple[LoadedModel, Prompter]:
    """What a run would train, before any training, `texts` making a tokenizer: to estimate sizes and times with."""
    backbone = recipe.backbone
    if backbone.name is not None:
        loaded = load_model(
            backbone.name,
            dtype=backbone.dtype,
            attention=backbone.attention,
            device=backbone.device,
            seed=recipe.seed,
            trainable=True,
        )
    else:
        loaded = build_from_scratch(recipe, texts)
    if backbone.lora is not None:
        loaded = add_lora(loaded, LoraSettings(**backbone.lora.model_dump()), seed=recipe.seed)
    return loaded, Prompter(loaded.tokenizer, prompt_settings(recipe))


def prompt_settings(recipe: Recipe) -> PromptSettings:
    return PromptSettings(language=recipe.language, **recipe.prompts.model_dump())


def _make_tokenizer(recipe: Recipe, dialogues: Sequence[Dialogue]) -> Any:
    scratch = recipe.backbone.scratch
    assert scratch is not None
    structure = structure_texts(recipe.language)
    if scratch.tokenizer == "word":
        if recipe.data.synthetic is None:
            raise PersonalignError(
                "backbone.scratch.tokenizer is 'word', which knows the words of the synthetic corpus alone; write bpe"
            )
        from personalign.data.synthetic import vocabulary

        return word_tokenizer(vocabulary(recipe.language), structure=structure, language=recipe.language)
    texts = [
        text for item in dialogues for text in (*item.persona, *(turn.content for turn in item.messages))
    ]
    return train_bpe([*texts, *structure], vocab_size=scratch.vocabulary)


def _write(loaded: LoadedModel, folder: Path) -> None:
    if loaded.adapted:
        # Adapters alone: vLLM refuses whole modules, and tied embeddings would be lost.
        loaded.model.save_pretrained(folder, save_embedding_layers=False)
    else:
        loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def plain_tokens(tokenizer: Any) -> list[int]:
    """The ids of a tokenizer that stand for text."""
    special = set(tokenizer.all_special_ids)
    return [index for index in range(len(tokenizer)) if index not in special]


def _personas(data: Path) -> list[list[str]]:
    """A few personas of the test part, so that a chat can begin without one."""
    from personalign.data.formats import read_dialogues

    return [list(dialogue.persona) for dialogue in read_dialogues(str(data / "test.jsonl.gz"))[:3]]
