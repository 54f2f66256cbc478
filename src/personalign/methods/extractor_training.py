"""Training a generative extractor: a language model learns to write the facts of stacked sentences, a line each."""

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import Any

from personalign._files import whole_folder, write_json, write_text
from personalign._version import __version__
from personalign.errors import PersonalignError
from personalign.evaluation.nli_triples import Fact, read_facts
from personalign.methods.models import write_model
from personalign.models import load_model
from personalign.models.precision import Dtype
from personalign.personas.extraction import gold_triples, split_facts
from personalign.personas.generative import KIND, STACKED, FactPrompter, GenerativeExtractor
from personalign.personas.tagger import RECORD
from personalign.personas.tagger_training import evaluate_extractor, texts_without_facts
from personalign.training.examples import Example, Path, grow
from personalign.training.step import StageSettings
from personalign.training.trainer import train_stage

_TOKENS_A_BATCH = 8192


def fact_examples(
    facts: Sequence[Fact],
    prompter: FactPrompter,
    *,
    others: Sequence[str] = (),
    stacked: int = STACKED,
    seed: int = 0,
) -> list[Example]:
    """Random stacks of sentences as prompts, their facts as targets (IDL, appendix A.2); `others` state nothing."""
    gold = gold_triples(facts) | dict.fromkeys(others, ())
    texts = sorted(gold)
    random.Random(f"{seed}/stack").shuffle(texts)
    rows = [texts[start : start + stacked] for start in range(0, len(texts), stacked)]
    return [
        Example(
            f"stack {number}",
            0,
            (Path("facts", prompter.prompt(row), prompter.target([gold[text] for text in row])),),
        )
        for number, row in enumerate(rows)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerativeTraining:
    """What one training is made of; `facts`, `dialogues` and `others` are those of `TaggerTraining`.

    `model`: the causal language model that learns, a folder or hub id. Every epoch stacks the sentences anew.
    """

    facts: FilePath
    out: FilePath
    model: str
    dialogues: FilePath | None = None
    others: int = 20
    held_out: float = 0.1
    epochs: int = 3
    learning_rate: float = 1e-4
    batch_size: int = 16
    stacked: int = STACKED
    dtype: Dtype = "auto"
    device: str = "cpu"
    seed: int = 0


def train_generative(
    config: GenerativeTraining, *, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Train on nine sentences of ten, measure on the rest, save; returns what `extractor.json` holds.

    The folder `config.out` appears when all is done. Raises PersonalignError where it exists, and for files without
    facts.
    """
    if config.out.exists():
        raise PersonalignError(f"{config.out} exists; name another folder, or delete it first")
    learnt, held_out = split_facts(read_facts(config.facts), held_out=config.held_out, seed=config.seed)
    known = {fact.text for fact in learnt} | {fact.text for fact in held_out}
    others = texts_without_facts(
        config.dialogues, known, len(learnt) * config.others // 100, seed=config.seed
    )
    loaded = load_model(
        config.model, dtype=config.dtype, device=config.device, seed=config.seed, trainable=True
    )
    prompter = FactPrompter(loaded.tokenizer)
    examples = [
        example
        for epoch in range(config.epochs)
        for example in fact_examples(
            learnt, prompter, others=others, stacked=config.stacked, seed=config.seed * config.epochs + epoch
        )
    ]
    settings = StageSettings(
        learning_rate=config.learning_rate,
        epochs=1,
        batch_examples=config.batch_size,
        warmup_steps=min(50, len(examples) // (10 * config.batch_size)),
        schedule="linear",
        max_grad_norm=1.0,
        seed=config.seed,
        bf16=loaded.precision.autocast,
        use_cpu=loaded.device.type == "cpu",
    )
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as checkpoints:
        train_stage(
            loaded.model,
            grow(examples, budget=_TOKENS_A_BATCH),
            settings=settings,
            folder=FilePath(checkpoints),
            stage="facts",
            plan=loaded.plan,
            progress=None if progress is None else lambda step, total, values: progress(step, total),
        )
    extractor = GenerativeExtractor(config.out.name, loaded, stacked=config.stacked)
    record = {
        "kind": KIND,
        "stacked": config.stacked,
        "held_out": evaluate_extractor(extractor, held_out),
        "rows": {
            "facts": len(learnt),
            "sentences without a fact": len(others),
            "held-out facts": len(held_out),
        },
        "seconds": round(time.monotonic() - start, 1),
        "settings": {
            name: value.name if isinstance(value, FilePath) else value
            for name, value in asdict(config).items()
        },
        "personalign": __version__,
    }
    with whole_folder(config.out) as folder:
        write_model(loaded, folder)
        write_json(folder / RECORD, record)
        write_text(folder / "README.md", _card(config, record))
    return record


def _card(config: GenerativeTraining, record: dict[str, Any]) -> str:
    scores = record["held_out"]
    return f"""---
library_name: personalign
tags: [persona, information-extraction]
---
# {config.out.name}: an extractor of facts about who speaks

A language model that writes the facts of {config.stacked} sentences, a line each, as `<subject, relation, object>`.

- Model: {config.model}, {config.epochs} epochs, learning rate {config.learning_rate}, seed {config.seed}.
- Data: `{config.facts.name}`, {record["rows"]["facts"]:,} facts.
- On {scores["gold"]:,} held-out facts: exact match {scores["exact_match"]:.3f}; F1 of subjects
  {scores["subject_f1"]:.3f}, relations {scores["relation_f1"]:.3f}, objects {scores["object_f1"]:.3f}.

Written by personalign {record["personalign"]}.
"""
