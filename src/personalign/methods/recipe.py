"""A recipe: everything that decides what a run computes, in one YAML file."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from personalign.errors import PersonalignError

Language = Literal["en", "zh"]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Above0 = Annotated[float, Field(gt=0.0)]
AtLeast0 = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of a recipe; a key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnySection = TypeVar("AnySection", bound=Section)

PRETRAIN = "pretrain"
"""The method of recipes that train a backbone, which are a kind of their own."""
LEARN = "learn"
"""The method of what `personalign learn` writes."""
ORACLE = "oracle"
"""The judge, and the extractor, that know the synthetic corpus alone."""
IDL = "idl"
"""The method of recipes that learn people from their sessions."""


class SyntheticData(Section):
    """The synthetic corpus; numbers of people per split.

    In a share of `made_up` of the training dialogues (English only) made-up words stand for values: they can only be
    copied, and copying is then not forgotten over values that return.
    """

    train: Positive = 1200
    align: Positive = 150
    stop: Positive = 60
    test: Positive = 100
    unseen: Positive = 40
    exchanges: Positive = 7
    seed: Count = 1
    made_up: Share = 0.0


class Files(Section):
    """Files by key; `hub` maps keys to hub ids, `columns` the names of fields to those of other data."""

    hub: dict[str, str] = {}
    columns: dict[str, str] = {}


class FileData(Files):
    """Dialogue files, each given by key, path or Hugging Face hub id.

    A key names a file of the folder that the environment variable PERSONALIGN_DATA names; where that is unset or has no
    such file, `hub` maps keys to hub ids. Alignment and stopping parts are carved out of `align`, or of `train` where
    `align` is null, by persona set. `pretrain` names further dialogue files, and `pretrain_persona_pairs` a file of
    (persona, response) rows, that a backbone from scratch reads; what coincides with the test part is dropped from them
    and counted. Dialogues of `train` and `align` whose persona set or person is tested are refused, or left out where
    `shared` is `drop`, which the run says.
    """

    train: str
    test: str
    align: str | None = None
    pretrain: tuple[str, ...] = ()
    pretrain_persona_pairs: str | None = None
    align_share: Share = 0.15
    stop_share: Share = 0.04
    shared: Literal["refuse", "drop"] = "refuse"
    limit: Positive | None = None
    test_limit: Positive | None = None


class Labels(Section):
    """Where relevance labels of training dialogues come from; `given` takes those in the files."""

    method: Literal["given", "nli", "idf", "cosine", "cosine-idf"] = "given"
    threshold: float | None = None


class Data(Section):
    synthetic: SyntheticData | None = None
    files: FileData | None = None
    labels: Labels = Labels()
    split_seed: Count = 1


class Lora(Section):
    """LoRA as in the paper's release; `plus_ratio` is LoRA+'s lr_B / lr_A."""

    r: Positive = 16
    alpha: Positive = 32
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    plus_ratio: float | None = 16.0


class Scratch(Section):
    """A backbone made from nothing."""

    shape: Literal["llama", "gpt2", "qwen2"] = "qwen2"
    look_back: float = 3.0
    width: Positive = 128
    layers: Positive = 3
    heads: Positive = 4
    max_positions: Positive = 1024
    tokenizer: Literal["word", "bpe"] = "word"
    vocabulary: Positive = 6000
    lowercase: bool = False


class Backbone(Section):
    """Either `name` (hub id or folder) or `scratch`."""

    name: str | None = None
    scratch: Scratch | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: Literal["auto", "sdpa", "eager", "flex_attention"] = "auto"
    device: str = "auto"
    lora: Lora | None = None


class Prompts(Section):
    template: Literal["trunk-first", "paper"] = "trunk-first"
    history: Positive | None = None
    max_tokens: Positive = 1024
    reserve: Positive = 64
    numbered: bool = False


class CopyStage(Section):
    """The copy warm-up of a backbone from scratch."""

    learning_rate: Above0 = 3e-3
    batch: Positive = 16
    copies: Positive = 2
    accuracy: Share = 0.95
    max_steps: Positive = 1500


class Stage(Section):
    """One training stage. `batch_examples` counts turns; `steps` null trains for `epochs` epochs.

    `reply_weight` is that of a reply's tokens against a selection's in stage 1; the paper weighs them alike.
    """

    learning_rate: Above0
    batch_examples: Positive = 128
    epochs: Above0 = 1.0
    steps: Positive | None = None
    warmup_steps: Count = 100
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: Above0 = 10.0
    weight_decay: AtLeast0 = 0.0
    adam_beta2: Share = 0.999
    token_budget: Positive = 8192
    trunk_weight: AtLeast0 = 0.0
    reply_weight: Above0 = 1.0
    evaluate_every: Positive | None = None
    patience: Positive | None = None
    save_every: Positive | None = None
    batches: Literal["dialogues", "shuffled"] = "dialogues"


class PretrainStage(Stage):
    """Language modelling on dialogue text; for every `copy_every` rows one more is a copy exercise on persona lines."""

    copy_every: Positive | None = 8


class AlignStage(Stage):
    """DPO; with `only_labelled`, pairs of turns that need a line alone."""

    beta: Above0 = 0.1
    sft_weight: AtLeast0 = 0.0
    only_labelled: bool = False


class CriterionStage(AlignStage):
    """DPOC. `penalty` 2 outside the sigmoid is the paper's (IDL), 0.5 inside it the release's."""

    penalty: AtLeast0 = 2.0
    penalty_in: Literal["outside", "inside"] = "outside"


class BackboneStages(Section):
    """How a backbone from scratch is made."""

    copying: CopyStage | None = None
    pretrain: PretrainStage | None = None


class Stages(BackboneStages):
    """`finetuning_longer` goes on from `finetuning`, with an optimizer and a schedule of its own."""

    finetuning: Stage | None = None
    finetuning_longer: Stage | None = None
    stage1: Stage
    stage2: AlignStage


class Selector(Section):
    """Who selects at inference: the LM (the paper), an encoder, one that discounts lines already told, or one with a
    network over it that was trained on the run's own labels."""

    kind: Literal["lm", "encoder", "encoder-untold", "trained"] = "lm"
    encoder: str | None = None
    discount: float = 1.0


class Decoding(Section):
    """`engine`: `openai` has a server continue the prompts, which knows each stage's model by the stage's name."""

    engine: Literal["local", "openai"] = "local"
    strategy: Literal["greedy", "sample", "beam"] = "greedy"
    max_new_tokens: Positive = 40
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    beams: Positive = 3
    length_penalty: float = 1.0


class Evaluation(Section):
    """`judges`: `oracle` (synthetic corpus), or folders / hub ids of NLI judges; the first one stops stage 2.

    A recipe on files must name its judges, or none: the oracle knows the synthetic corpus alone. `judge_dtype` is what
    NLI judges compute in. `strategies` are the ways of selecting (PAL, Figure 3) that the final model answers by.
    With `revised`, fine-tuning and PAL answer the test dialogues under their rewritten personas too.
    """

    strategies: tuple[Literal["predicted", "random", "unselected", "oracle"], ...] = (
        "predicted",
        "random",
        "unselected",
        "oracle",
    )
    revised: bool = False

    judges: tuple[str, ...] = ("oracle",)
    judge_dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    bootstrap: Positive = 1000


# Table 5 of the paper. `without_mix` skips stage 1, `without_alignment` stage 2; `only_selection` and
# `only_generation` keep one task of stage 1; `without_pairs` trains stage 2 on the gold replies alone.
Ablation = Literal[
    "none", "without_mix", "without_alignment", "only_selection", "only_generation", "without_pairs"
]


class RunRecipe(Section):
    """What the recipes of all methods have in common."""

    name: str
    description: str = ""
    measured: str = "untested"
    seed: Count = 1
    language: Language = "en"
    backbone: Backbone
    stages: BackboneStages
    prompts: Prompts = Prompts()
    decoding: Decoding = Decoding()
    evaluation: Evaluation = Evaluation()


class Recipe(RunRecipe):
    """PAL."""

    method: Literal["pal"] = "pal"
    data: Data
    stages: Stages
    ablation: Ablation = "none"
    selector: Selector = Selector()


def parse_recipe(values: Mapping[str, Any], *, source: str) -> Recipe:
    """Check a recipe's values. An unknown key is fatal, and the message names the nearest right one."""
    if values.get("method") == PRETRAIN:
        raise PersonalignError(
            f"{source}: this recipe trains a backbone; give it to `personalign pretrain` instead of `personalign run`"
        )
    recipe = validated(Recipe, values, source=source)
    # Here, because the checks need the settings of prompts and decoding, whose import takes seconds.
    from personalign.methods.recipe_checks import check_recipe

    check_recipe(recipe, source)
    return recipe


def validated(model: type[AnySection], values: Mapping[str, Any], *, source: str) -> AnySection:
    """The values as a section; PersonalignError tells of every fault, and of the nearest right key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise PersonalignError(_explain(error, source, model)) from None


def read_recipe(path: Path | str) -> dict[str, Any]:
    """The raw values of a recipe file."""
    path = Path(path)
    try:
        values = _load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PersonalignError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise PersonalignError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        place, problem = _yaml_problem(error)
        raise PersonalignError(f"{path}{place}: is not YAML: {problem}") from None
    if not isinstance(values, dict):
        raise PersonalignError(
            f"{path}: a recipe is a mapping of keys to values; start from `personalign recipes copy`"
        )
    return values


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `--set a.b=c` to raw values; c is read as YAML, so `null`, `3` and `[a, b]` mean what they say."""
    try:
        result: dict[str, Any] = _copied(values)
    except RecursionError:
        raise PersonalignError("a section of the recipe holds itself; write it out") from None
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise PersonalignError(
                f"--set {assignment}: write --set key.key=value, as in --set stages.stage1.epochs=2"
            )
        *parents, last = key.split(".")
        section = result
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                section[parent] = {}
            section = section[parent]
        section[last] = _read_value(text, assignment)
    return result


def _copied(value: Any) -> Any:
    """Every section a copy of its own, also where YAML's anchors make one section of two."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _read_value(text: str, assignment: str) -> Any:
    try:
        return _load_yaml(text)
    except yaml.YAMLError as error:
        problem = _yaml_problem(error)[1]
        raise PersonalignError(
            f"--set {assignment}: the value is not YAML: {problem}; quote it if it is text"
        ) from None


def _load_yaml(text: str) -> Any:
    """Raises YAMLError for whatever is no YAML, values that only look like a date or a number among it."""
    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from None


def _yaml_problem(error: yaml.YAMLError) -> tuple[str, str]:
    """`, line 3, column 5` where the place is known, and what is wrong there."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        context = f" {error.context}" if error.context else ""
        return f", line {mark.line + 1}, column {mark.column + 1}", f"{error.problem}{context}"
    return "", " ".join(str(error).split())


def recipe_yaml(recipe: BaseModel) -> str:
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _explain(error: ValidationError, source: str, root: type[BaseModel]) -> str:
    problems = []
    meant = {
        _place(item): _nearest_key(item["loc"], root)
        for item in error.errors()
        if item["type"] == "extra_forbidden"
    }
    for item in error.errors():
        place = _place(item)
        if item["type"] == "extra_forbidden":
            hint = f"; did you mean `{meant[place]}`?" if meant[place] else ""
            problems.append(f"{source}: there is no key `{place}`{hint}")
        elif item["type"] == "missing":
            # A key that is there under a misspelt name is told of once.
            if place not in meant.values():
                problems.append(f"{source}: the key `{place}` is missing")
        else:
            problems.append(f"{source}: `{place}` is {_written(item['input'])}; {_remedy(item)}")
    return "\n".join(problems)


def _place(item: Any) -> str:
    return ".".join(str(part) for part in item["loc"])


def _nearest_key(location: Sequence[int | str], root: type[BaseModel]) -> str | None:
    """The key that one which is not there is most like, with the sections that it stands in."""
    close = difflib.get_close_matches(
        str(location[-1]), sorted(_keys_beside(location, root)), n=1, cutoff=0.0
    )
    return ".".join([*map(str, location[:-1]), close[0]]) if close else None


def _written(value: Any) -> str:
    """A value as a recipe may hold it: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False, default=str)


# pydantic names Python's types here, which a recipe does not have.
_INSTEAD = {
    "tuple_type": "a list such as [a, b]",
    "dict_type": "a section of keys and values",
    "model_type": "a section of keys and values",
    "model_attributes_type": "a section of keys and values",
}


def _remedy(item: Any) -> str:
    """What to write instead, in the words of a recipe: pydantic says `Input should be ...`."""
    message = str(item["msg"]).partition(", unable to parse")[0].removeprefix("Input should be ")
    if item["type"] == "literal_error":
        return f"write {message}"
    if item["type"] in _INSTEAD:
        return f"write {_INSTEAD[item['type']]}"
    if not str(item["msg"]).startswith("Input should be "):
        return f"{message[:1].lower()}{message[1:]}"
    return f"it should be {message}"


def _keys_beside(location: Sequence[int | str], root: type[BaseModel]) -> set[str]:
    section = root
    for part in location[:-1]:
        field = section.model_fields.get(str(part))
        found = _section_of(field.annotation) if field is not None else None
        if found is None:
            break
        section = found
    return set(section.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_of(argument)
        if found is not None:
            return found
    return None
