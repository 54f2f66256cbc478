"""Recipes: every shipped one parses, a mistake is fatal and names what to write, `--set` changes one value."""

import copy
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.methods.made_runs import minimal_values

from personalign.errors import PersonalignError
from personalign.methods.pretrain_recipe import parse_pretrain_recipe
from personalign.methods.recipe import override, parse_recipe, read_recipe, recipe_yaml
from personalign.methods.shipped import load_pretrain_recipe, parse_run_recipe

SHIPPED = sorted(
    item.name.removesuffix(".yaml")
    for item in (files("personalign") / "recipes").iterdir()
    if item.name.endswith(".yaml")
)


def shipped(name: str) -> dict[str, Any]:
    text = (files("personalign") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def mistake(values: dict[str, Any]) -> str:
    with pytest.raises(PersonalignError) as error:
        parse_recipe(values, source="mine.yaml")
    return str(error.value)


def changed(*assignments: str) -> dict[str, Any]:
    return override(minimal_values(), assignments)


def test_the_recipes_of_the_paper_and_of_small_machines_are_shipped() -> None:
    assert {
        "quickstart",
        "pal-personachat-small",
        "pal-gpt2",
        "pal-dialogpt",
        "pal-llama-3.1-8b-lora",
    } <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_parse_and_come_back_as_they_were(name: str) -> None:
    parse: Any = parse_run_recipe
    if shipped(name)["method"] == "pretrain":
        parse = parse_pretrain_recipe
    recipe = parse(shipped(name), source=name)
    assert recipe.name == name
    assert recipe.description
    assert recipe.measured
    assert parse(yaml.safe_load(recipe_yaml(recipe)), source="again") == recipe


@pytest.mark.parametrize("name", ["pal-gpt2", "pal-dialogpt", "pal-llama-3.1-8b-lora"])
def test_the_papers_settings(name: str) -> None:
    """Section 3.4 of the paper and its release (methods notes: lr, beta, clip, warm-up, constant schedule)."""
    recipe = parse_recipe(shipped(name), source=name)
    stage1, stage2 = recipe.stages.stage1, recipe.stages.stage2
    assert (stage1.learning_rate, stage2.learning_rate, stage2.beta) == (2e-5, 1e-6, 0.1)
    assert (stage1.schedule, stage1.warmup_steps, stage1.max_grad_norm, stage1.weight_decay) == (
        "constant",
        100,
        10.0,
        0,
    )
    assert stage1.batch_examples == (256 if recipe.backbone.lora else 128)
    assert stage2.sft_weight == 0.0
    assert (recipe.decoding.strategy, recipe.decoding.max_new_tokens) == ("greedy", 40)
    assert recipe.selector.kind == "lm"
    assert "untested" in recipe.measured
    if recipe.backbone.lora:
        lora = recipe.backbone.lora
        assert (lora.r, lora.alpha, lora.dropout, lora.plus_ratio) == (16, 32, 0.0, 16.0)


@pytest.mark.parametrize(
    ("place", "right"),
    [
        ("sed", "seed"),
        ("data.synthetic.tran", "train"),
        ("data.label", "labels"),
        ("data.labels.treshold", "threshold"),
        ("backbone.scratch.with", "width"),
        ("backbone.atention", "attention"),
        ("prompts.max_token", "max_tokens"),
        ("stages.stage_1", "stage1"),
        ("stages.stage1.learningrate", "learning_rate"),
        ("stages.stage2.bta", "beta"),
        ("stages.copying.max_step", "max_steps"),
        ("stages.pretrain.copyevery", "copy_every"),
        ("decoding.beam", "beams"),
        ("evaluation.judge", "judges"),
        ("selector.knd", "kind"),
    ],
)
def test_an_unknown_key_is_fatal_and_the_nearest_right_one_is_named(place: str, right: str) -> None:
    message = mistake(changed(f"{place}=3"))
    *parents, _ = place.split(".")
    nearest = ".".join([*parents, right])
    assert f"mine.yaml: there is no key `{place}`; did you mean `{nearest}`?" in message


def test_keys_of_optional_sections_are_checked_too() -> None:
    values = minimal_values() | {"data": {"files": {"train": "a", "test": "b", "pretran": []}}}
    assert "no key `data.files.pretran`; did you mean `data.files.pretrain`?" in mistake(values)
    values = minimal_values() | {"backbone": {"name": "x", "lora": {"ranks": 3}}}
    assert "no key `backbone.lora.ranks`" in mistake(values)


def test_every_mistake_is_named_at_once() -> None:
    message = mistake(changed("sed=1", "stages.stage2.beta=much", "stages.stage1.epochs=null"))
    assert message.count("mine.yaml: ") == 3
    assert "stages.stage2.beta" in message
    assert '"much"' in message


def test_a_word_that_is_no_choice_is_told_the_choices() -> None:
    assert "`decoding.strategy` is \"gredy\"; write 'greedy', 'sample' or 'beam'" in mistake(
        changed("decoding.strategy=gredy")
    )


def test_the_backbone_that_comes_along_is_not_asked_for_what_it_cannot_do() -> None:
    mini = minimal_values() | {"backbone": {"name": "personalign-mini"}, "evaluation": {"judges": ["a"]}}
    assert "personalign-mini knows English alone, and language is zh" in mistake(mini | {"language": "zh"})
    for test in (
        "convai2_valid",
        "DATA/convai2_wild_bot_human.jsonl.gz",
        "msc_valid_persona_extraction",
        *load_pretrain_recipe("personalign-mini").data.files,
    ):
        files = {"files": {"train": "mine", "test": test}}
        assert f"data.files.test: {test} has personas that personalign-mini was trained on" in mistake(
            mini | {"data": files}
        )
    others = {"files": {"train": "mine", "test": "theirs"}}
    assert parse_recipe(mini | {"data": others}, source="mine.yaml").backbone.name == "personalign-mini"


def test_missing_keys_are_named() -> None:
    values = minimal_values()
    del values["stages"]["stage2"]
    del values["name"]
    message = mistake(values)
    assert "the key `stages.stage2` is missing" in message
    assert "the key `name` is missing" in message


def test_a_misspelt_key_is_told_of_once() -> None:
    values = minimal_values()
    values["stages"]["stage_2"] = values["stages"].pop("stage2")
    message = mistake(values)
    assert "there is no key `stages.stage_2`; did you mean `stages.stage2`?" in message
    assert "missing" not in message


def test_a_number_that_is_none_is_told_so_once() -> None:
    assert (
        mistake(changed("stages.stage1.epochs=two")).partition(": ")[2].strip()
        == '`stages.stage1.epochs` is "two"; it should be a valid number'
    )


@pytest.mark.parametrize(
    "assignment",
    [
        "data.synthetic.train=0",
        "evaluation.judges=[1, 2]",
        "evaluation.judges.0=oracle",
        "stages=3",
        "ablation=without_everything",
        "language=fr",
        "data.labels.method=guess",
        "seed=",
    ],
)
def test_impossible_values_are_refused(assignment: str) -> None:
    assert assignment.split("=")[0].removesuffix(".0") in mistake(changed(assignment))


@pytest.mark.parametrize("section", ["data", "backbone"])
def test_of_two_sources_exactly_one_is_given(section: str) -> None:
    both = {
        "data": {"synthetic": {}, "files": {"train": "a", "test": "b"}},
        "backbone": {"scratch": {}, "name": "x"},
    }
    for values in (both[section], {}):
        message = mistake(minimal_values() | {section: values})
        assert f"{section}: give either `" in message


def test_set_reads_values_as_yaml() -> None:
    values = changed(
        "name=a=b",
        "seed=7",
        "stages.stage1.epochs=2.5",
        "stages.stage1.learning_rate=1e-5",
        "evaluation.judges=[one, two]",
        "prompts.history=null",
        "stages.copying.max_steps=3",
        "stages.stage2.only_labelled=true",
    )
    recipe = parse_recipe(values, source="mine.yaml")
    assert (recipe.name, recipe.seed, recipe.stages.stage1.epochs) == ("a=b", 7, 2.5)
    assert recipe.stages.stage1.learning_rate == 1e-5
    assert recipe.evaluation.judges == ("one", "two")
    assert recipe.prompts.history is None
    # A section that was not there is made.
    assert recipe.stages.copying is not None
    assert recipe.stages.copying.max_steps == 3
    assert recipe.stages.stage2.only_labelled is True


def test_the_last_assignment_wins_and_the_values_stay_as_they_were() -> None:
    values = minimal_values()
    before = copy.deepcopy(values)
    assert override(values, ["seed=1", "seed=2", "stages.stage1.epochs=9"])["seed"] == 2
    assert values == before


def test_an_assignment_changes_one_of_two_sections_that_an_anchor_shares() -> None:
    values = yaml.safe_load("stages: {stage1: &both {epochs: 1}, stage2: *both}")
    assert override(values, ["stages.stage1.epochs=2"]) == {
        "stages": {"stage1": {"epochs": 2}, "stage2": {"epochs": 1}}
    }
    with pytest.raises(PersonalignError, match="holds itself"):
        override(yaml.safe_load("stages: &all {stage1: *all}"), ["seed=2"])


@pytest.mark.parametrize("assignment", ["seed", "=3", "seed=[1", "name='x"])
def test_assignments_that_cannot_be_read(assignment: str) -> None:
    with pytest.raises(PersonalignError, match="--set") as error:
        override(minimal_values(), [assignment])
    assert assignment in str(error.value)


KEYS = st.text("abcxyz_", min_size=1, max_size=6)


@given(
    path=st.lists(KEYS, min_size=1, max_size=4),
    value=st.one_of(st.integers(), st.booleans(), st.none(), st.lists(st.integers())),
)
def test_set_puts_any_value_at_any_place(path: list[str], value: object) -> None:
    result: Any = override(
        {"abc": 1},
        [
            f"{'.'.join(path)}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}"
        ],
    )
    for key in path:
        result = result[key]
    assert result == value


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: [1", "line 1, column 6: is not YAML: expected ',' or"),
        (b"- a\n- b\n", "a recipe is a mapping"),
        (b"", "a recipe is a mapping"),
        ("name: größe".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(PersonalignError, match=problem) as error:
        read_recipe(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("assignments", "problem"),
    [
        (["seed=-1"], "`seed` is -1; it should be greater than or equal to 0"),
        (["stages.stage2.beta=0"], "`stages.stage2.beta` is 0; it should be greater than 0"),
        (
            ["stages.stage1.learning_rate=-1"],
            "`stages.stage1.learning_rate` is -1; it should be greater than 0",
        ),
        (["evaluation.judges=judge-a"], '`evaluation.judges` is "judge-a"; write a list such as [a, b]'),
        (["stages.stage1=7"], "`stages.stage1` is 7; write a section of keys and values"),
        (
            ["backbone.scratch.shape=gpt2", "backbone.attention=flex_attention"],
            "backbone.attention: a gpt2 cannot run flex_attention",
        ),
        (["decoding.temperature=0"], "mine.yaml: decoding: temperature is 0"),
        (["prompts.reserve=2000"], "mine.yaml: prompts: reserve is 2000"),
        (["prompts.reserve=30"], "decoding.max_new_tokens is 40, but prompts.reserve keeps only 30"),
        (["stages.stage2.patience=3"], "stages.stage2.patience counts evaluations"),
        (
            [
                "stages.finetuning={learning_rate: 1}",
                "stages.finetuning_longer={learning_rate: 1, patience: 2}",
            ],
            "stages.finetuning_longer: evaluate_every and patience belong to stage2",
        ),
        (
            ["stages.finetuning={learning_rate: 1, reply_weight: 0.5}"],
            "stages.finetuning.reply_weight has a meaning in stage 1 alone",
        ),
        (["stages.stage2.reply_weight=0.5"], "stages.stage2.reply_weight has a meaning in stage 1 alone"),
        (
            ["data.synthetic.made_up=0.5", "language=zh"],
            "data.synthetic.made_up is for English and for tokenizers that can write any word",
        ),
        (
            ["data.synthetic.made_up=0.5", "backbone.scratch={tokenizer: word}"],
            "data.synthetic.made_up is for English and for tokenizers that can write any word",
        ),
        (
            ["stages.pretrain={learning_rate: 1, trunk_weight: 1}"],
            "stages.pretrain: trunk_weight and batches",
        ),
        (
            ["stages.pretrain={learning_rate: 1, batches: shuffled}"],
            "stages.pretrain: trunk_weight and batches",
        ),
        (["data.labels.method=nli", "evaluation.judges=[]"], "data.labels.method is nli"),
        (["data={files: {train: a, test: b}}"], "evaluation.judges is missing; name NLI judges"),
    ],
)
def test_values_that_cannot_work_together_are_found_at_once(assignments: list[str], problem: str) -> None:
    assert problem in mistake(changed(*assignments))
