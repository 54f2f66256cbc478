"""The models of a run: made, opened, saved and published, each in a folder that transformers can load."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from personalign._files import whole_folder, write_json
from personalign._ranks import ALONE, Ranks
from personalign.data.dialogue import Dialogue
from personalign.data.formats import write_dialogues
from personalign.errors import PersonalignError
from personalign.methods.pretraining import (
    copying,
    pretrain,
    pretraining_examples,
)
from personalign.methods.recipe import (
    Backbone,
    Decoding,
    Language,
    RunRecipe,
    Scratch,
    Section,
    Selector,
    Stage,
)
from personalign.methods.selecting import Calibration
from personalign.methods.steps import Reporter
from personalign.methods.trained_selector import SELECTOR_FILES
from personalign.models import (
    LoadedModel,
    LoraSettings,
    build_backbone,
    check_attention,
    choose_device,
    load_model,
    load_tokenizer,
    lora_parameter_groups,
    prepare,
    train_bpe,
    with_lora,
    word_tokenizer,
)
from personalign.models.precision import Dtype, bf16_obstacle
from personalign.prompts import Prompter, PromptSettings, structure_texts

CARD = "personalign.json"
PUBLISHED = "model"
"""In a run's folder, the model that it publishes."""

PRECISION, PROMPT_HASH = "precision", "prompt_hash"
SESSIONS = "sessions.jsonl"
"""In a model's folder, what it is told of its person before a chat."""

BESIDE = (CARD, SESSIONS, *SELECTOR_FILES)
"""What a run lays beside its model for the chat, where it has it."""


class ModelStore:
    """Models by stage name, under one folder."""

    def __init__(
        self,
        recipe: RunRecipe,
        folder: Path,
        *,
        reporter: Reporter,
        ranks: Ranks = ALONE,
        begun: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """`begun` tells what `make_backbone` recorded, by which a run goes on; nothing where there is no backbone yet."""
        self._ranks = ranks
        self._begun = begun
        self._recipe = recipe
        self._folder = folder
        self._reporter = reporter
        self._prompter: Prompter | None = None
        self._opened: tuple[str, LoadedModel] | None = None

    def make_backbone(
        self,
        texts: Callable[[], tuple[list[Dialogue], dict[str, int]]],
        *,
        journal: Path,
        checkpoints: Path,
        resume: bool,
        check: Callable[[Prompter], dict[str, Any]],
    ) -> dict[str, Any]:
        """From scratch: tokenizer, copy warm-up, pretraining. A named backbone is only checked.

        `texts` gives the dialogues that one from scratch may read, and counts of what was left out. `resume` goes on
        with the pretraining that has a checkpoint. `check` is asked, before
        anything is trained, whether the dialogues suit the prompts that the tokenizer makes of them.
        """
        scratch = self._recipe.backbone.scratch
        if scratch is None:
            loaded = self._load(self._source("backbone"), trainable=False)
            self._reporter.say(f"Backbone {self._recipe.backbone.name}: {loaded.plan.reason}")
            prompter = Prompter(loaded.tokenizer, prompt_settings(self._recipe))
            check_room(loaded, prompter)
            return {
                "parameters": _count(loaded.model),
                "plan": asdict(loaded.plan),
                **_begins_with(loaded, prompter),
                "prompts": check(prompter),
            }
        read, counts = texts()
        loaded = build_from_scratch(
            self._recipe.backbone, read, language=self._recipe.language, seed=self._recipe.seed
        )
        record: dict[str, Any] = {
            "parameters": _count(loaded.model),
            "vocabulary": len(loaded.tokenizer),
            "pretraining": counts,
        }
        prompter = Prompter(loaded.tokenizer, prompt_settings(self._recipe))
        check_room(loaded, prompter)
        record |= _begins_with(loaded, prompter)
        record["prompts"] = check(prompter)
        stages, seed = self._recipe.stages, self._recipe.seed
        if stages.copying is not None:
            record["copying"] = copying(
                loaded,
                stages.copying,
                seed=seed,
                reporter=self._reporter,
                checkpoints=checkpoints,
                resume=resume,
            )
        if stages.pretrain is not None:
            dropped: Counter[str] = Counter()
            examples = pretraining_examples(read, prompter, stages.pretrain, seed=seed, dropped=dropped)
            record["pretrain"] = pretrain(
                loaded,
                examples,
                stages.pretrain,
                seed=seed,
                checkpoints=checkpoints,
                journal=journal,
                reporter=self._reporter,
                resume=resume,
            ) | {"dropped": dict(dropped)}
        self.save("backbone", loaded)
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
        if self._ranks.main:
            with whole_folder(self._folder / stage, replace=True) as folder:
                write_model(loaded, folder)
        self._ranks.wait()

    def publish(
        self,
        stage: str,
        folder: Path,
        *,
        calibration: Calibration,
        chosen_by: Selector,
        examples: Sequence[Sequence[str]] = (),
        selector: Path | None = None,
        sessions: Sequence[Dialogue] = (),
        remembers: Section | None = None,
    ) -> None:
        """The run's own model, with what inference needs beside it: its card, the files of a trained
        selector, and the sessions of its person. `examples` are personas to begin a chat with;
        `remembers`: how a model of IDL is told sessions."""
        if not self._ranks.main:
            return
        loaded = self.open(stage)
        recipe = self._recipe
        with whole_folder(folder, replace=True) as part:
            write_model(loaded, part)
            if selector is not None:
                for file in SELECTOR_FILES:
                    shutil.copyfile(selector / file, part / file)
            if sessions:
                write_dialogues(part / SESSIONS, sessions)
            write_json(
                part / CARD,
                published_card(
                    self.prompter(),
                    calibration=calibration,
                    selector=chosen_by,
                    decoding=recipe.decoding,
                    examples=examples,
                    remembers=remembers,
                ),
            )

    def prompter(self) -> Prompter:
        if self._prompter is None:
            made = Prompter(load_tokenizer(self._source("backbone")), prompt_settings(self._recipe))
            if self._begun().get(PROMPT_HASH, made.hash) != made.hash:
                raise PersonalignError(
                    f"{self._folder.parent}: this run was begun with other prompts, as another version of personalign or "
                    "another chat template of the tokenizer makes them; go on with what it was begun with, or begin anew "
                    "in another folder with --out"
                )
            self._prompter = made
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
            dtype=self._dtype(),
            attention=backbone.attention,
            device=backbone.device,
            seed=self._recipe.seed,
            trainable=trainable,
        )
        if trainable and backbone.lora is not None:
            return with_lora(loaded, LoraSettings(**backbone.lora.model_dump()), seed=self._recipe.seed)
        return loaded

    def _dtype(self) -> Dtype:
        """What the run computes in; `auto` is decided once, by the machine that it is begun on."""
        backbone = self._recipe.backbone
        begun: Dtype | None = self._begun().get(PRECISION)
        if backbone.dtype != "auto" or begun is None:
            return backbone.dtype
        if begun == "bfloat16" and (obstacle := bf16_obstacle(choose_device(backbone.device))):
            raise PersonalignError(
                f"{self._folder.parent}: this run was begun in bfloat16, but {obstacle}; go on with a machine like the "
                "one that it was begun on, or begin anew in another folder with --out"
            )
        return begun


def _begins_with(loaded: LoadedModel, prompter: Prompter) -> dict[str, str]:
    """What may not change from one step to the next, wherever and with whatever version a run goes on."""
    return {PRECISION: loaded.precision.dtype, PROMPT_HASH: prompter.hash}


def published_card(
    prompter: Prompter,
    *,
    calibration: Calibration,
    selector: Selector,
    decoding: Decoding,
    examples: Sequence[Sequence[str]],
    remembers: Section | None = None,
) -> dict[str, Any]:
    """What stands in `personalign.json` beside a model: all that inference needs to know."""
    return {
        "prompts": asdict(prompter.settings),
        "prompt_hash": prompter.hash,
        **asdict(calibration),
        "selector": selector.model_dump(),
        "decoding": decoding.model_dump(),
        "examples": examples,
        **({} if remembers is None else {"remembers": remembers.model_dump()}),
    }


def build_from_scratch(
    backbone: Backbone, texts: Sequence[Dialogue], *, language: Language, seed: int
) -> LoadedModel:
    """An untrained backbone with a tokenizer made for these dialogues, on the recipe's device."""
    scratch = backbone.scratch
    assert scratch is not None
    tokenizer = _make_tokenizer(scratch, texts, language=language)
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
        seed=seed,
    )
    device = choose_device(backbone.device)
    # It is trained to copy under sdpa; what its stages will run under is refused before that, not after.
    check_attention(model.config, attention=backbone.attention, device=device)
    return prepare(model, tokenizer, dtype=backbone.dtype, device=device, seed=seed)


def untrained_backbone(recipe: RunRecipe, texts: Sequence[Dialogue]) -> tuple[LoadedModel, Prompter]:
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
        loaded = build_from_scratch(backbone, texts, language=recipe.language, seed=recipe.seed)
    if backbone.lora is not None:
        loaded = with_lora(loaded, LoraSettings(**backbone.lora.model_dump()), seed=recipe.seed)
    prompter = Prompter(loaded.tokenizer, prompt_settings(recipe))
    check_room(loaded, prompter)
    return loaded, prompter


def check_room(loaded: LoadedModel, prompter: Prompter) -> None:
    """Raise PersonalignError where prompts may be longer than the model takes: now, not at the first such batch."""
    longest, wanted = loaded.plan.longest, prompter.settings.max_tokens
    if longest is not None and wanted > longest:
        raise PersonalignError(
            f"prompts.max_tokens is {wanted}, but the model takes {longest} tokens at most (of one from scratch, "
            f"backbone.scratch.max_positions); write {longest} or fewer"
        )


def prompt_settings(recipe: RunRecipe) -> PromptSettings:
    return PromptSettings(language=recipe.language, **recipe.prompts.model_dump())


def _make_tokenizer(scratch: Scratch, dialogues: Sequence[Dialogue], *, language: Language) -> Any:
    structure = structure_texts(language)
    if scratch.tokenizer == "word":
        from personalign.data.synthetic import vocabulary

        return word_tokenizer(vocabulary(language), structure=structure, language=language)
    texts = [
        text for item in dialogues for text in (*item.persona, *(turn.content for turn in item.messages))
    ]
    return train_bpe([*texts, *structure], vocab_size=scratch.vocabulary, lowercase=scratch.lowercase)


def write_model(loaded: LoadedModel, folder: Path) -> None:
    """The model, or its adapters alone, and its tokenizer, as transformers and PEFT load them."""
    if loaded.adapted:
        # Adapters alone: vLLM refuses whole modules, and tied embeddings would be lost.
        loaded.model.save_pretrained(folder, save_embedding_layers=False)
        # PEFT's card is an empty form that names a path of this machine.
        (folder / "README.md").unlink(missing_ok=True)
    else:
        loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
