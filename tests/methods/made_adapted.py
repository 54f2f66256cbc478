"""A small run of PAL on files, with adapters, for tests of what runs do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from personalign.data.formats import write_dialogues
from personalign.data.synthetic import generate, vocabulary
from personalign.methods.recipe import Recipe, override, parse_recipe
from personalign.models import build_backbone, word_tokenizer
from personalign.prompts import structure_texts


def write_sources(folder: Path) -> None:
    """A backbone, and dialogue files without labels."""
    people = {"train": 12, "align": 2, "stop": 2, "test": 3, "unseen": 2}
    splits = generate("en", seed=5, people=people, exchanges=3).splits()
    for name, part in (("train", "train"), ("test", "test")):
        write_dialogues(folder / f"{name}.jsonl", [replace(item, relevant=None) for item in splits[part]])
    tokens = word_tokenizer(vocabulary("en"), structure=structure_texts("en"), language="en")
    model = build_backbone(
        "llama",
        vocab_size=len(tokens),
        width=16,
        layers=1,
        heads=2,
        max_positions=512,
        bos_id=tokens.bos_token_id,
        eos_id=tokens.eos_token_id,
        pad_id=tokens.pad_token_id,
        seed=1,
    )
    model.save_pretrained(folder / "backbone")
    tokens.save_pretrained(folder / "backbone")


def recipe(sources: Path, *assignments: str) -> Recipe:
    stage = {"learning_rate": 0.01, "batch_examples": 8, "steps": 3, "warmup_steps": 0}
    values: dict[str, Any] = {
        "name": "adapted",
        "data": {
            "files": {
                "train": str(sources / "train.jsonl"),
                "test": str(sources / "test.jsonl"),
                "align_share": 0.3,
                "stop_share": 0.2,
            },
            "labels": {"method": "idf"},
        },
        "backbone": {
            "name": str(sources / "backbone"),
            "dtype": "float32",
            "device": "cpu",
            "lora": {"r": 2, "alpha": 4},
        },
        "prompts": {"max_tokens": 400, "reserve": 20},
        "stages": {
            "stage1": {**stage, "trunk_weight": 0.1},
            "stage2": {**stage, "learning_rate": 0.0005, "sft_weight": 0.5},
        },
        "decoding": {"max_new_tokens": 5},
        "evaluation": {"judges": ["oracle"], "bootstrap": 10},
    }
    return parse_recipe(override(values, assignments), source="adapted.yaml")


def rows_of(folder: Path, system: str) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (folder / "predictions" / f"{system}.jsonl").read_text().splitlines()
    ]
