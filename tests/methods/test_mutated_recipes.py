"""Thousands of damaged recipes: each is read right, or refused with the file and the key."""

import random
from pathlib import Path

from tests.mutating import mutated

from personalign.errors import PersonalignError
from personalign.methods.recipe import Recipe, parse_recipe, read_recipe, recipe_yaml

RECIPE = b"""name: mine
seed: 3
language: en
data:
  synthetic: {train: 40, test: 10}
backbone:
  scratch: {shape: qwen2, width: 64, layers: 2, heads: 4, tokenizer: word}
  dtype: float32
prompts: {template: trunk-first, history: 3, max_tokens: 512}
stages:
  copying: {learning_rate: 3.0e-3, accuracy: 0.95}
  finetuning: {learning_rate: 5.0e-3, steps: 10}
  stage1:
    learning_rate: 5.0e-3
    steps: 100
    schedule: linear
  stage2:
    learning_rate: 1.0e-4
    beta: 0.1
selector: {kind: lm}
decoding: {strategy: greedy, max_new_tokens: 24}
evaluation:
  judges: [oracle]
"""


def read_or_refused(path: Path) -> tuple[Recipe | None, str]:
    try:
        return parse_recipe(read_recipe(path), source=str(path)), ""
    except PersonalignError as error:
        return None, str(error)


def test_four_thousand_mutated_recipes_are_read_or_refused(tmp_path: Path) -> None:
    generator = random.Random(5)
    path, again = tmp_path / "mine.yaml", tmp_path / "again.yaml"
    read = refused = 0
    for _ in range(4000):
        path.write_bytes(mutated(RECIPE, generator))
        recipe, refusal = read_or_refused(path)
        if recipe is None:
            assert "mine.yaml" in refusal
            refused += 1
            continue
        read += 1
        again.write_text(recipe_yaml(recipe), encoding="utf-8")
        assert parse_recipe(read_recipe(again), source="again") == recipe
    assert read > 300
    assert refused > 1500
