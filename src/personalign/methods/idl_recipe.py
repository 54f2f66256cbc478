"""The recipe of IDL: whose sessions are learnt from, what is told before what, and what it is compared with."""

from collections.abc import Mapping
from typing import Any, Literal

from personalign.errors import PersonalignError
from personalign.methods.recipe import (
    ORACLE,
    BackboneStages,
    Count,
    CriterionStage,
    Evaluation,
    Files,
    Positive,
    RunRecipe,
    Section,
    Share,
    Stage,
    validated,
)
from personalign.methods.recipe_checks import check_common, check_mini
from personalign.personas.criteria import SIMILAR
from personalign.personas.identification import CLUSTERS, NEIGHBOURS, Clusterer, Identification
from personalign.personas.ordering import Ordering

TEST = "test"
UNTESTED = ("train", "align")
"""Parts that are learnt from."""


class SyntheticPeople(Section):
    """People of the synthetic corpus, by split, each with as many sessions of as many exchanges."""

    train: Positive = 400
    align: Positive = 100
    test: Positive = 60
    sessions: Positive = 6
    exchanges: Positive = 4
    seed: Count = 1


class TestPeople(Section):
    """A file of people to test on: those with `least` sessions or more, the first `limit` of them.

    `answer`: every session after the person's others, or only the last one after those before it.
    """

    file: str
    least: Positive = 2
    limit: Positive | None = None
    answer: Literal["each", "last"] = "each"
    sessions: Positive | None = None


class PeopleFiles(Files):
    """Files of sessions, each given by key, path or hub id, as in PAL's recipes.

    People of `train` who share a persona line, a name or a conversation with a tested person are left out and counted.
    A share of `align_share` of them, drawn by name, is what stage 2 learns from. `pretrain` names dialogues that a
    backbone from scratch reads besides.
    """

    train: tuple[str, ...]
    test: dict[str, TestPeople]
    pretrain: tuple[str, ...] = ()
    align_share: Share = 0.15
    limit: Positive | None = None


class PeopleData(Section):
    synthetic: SyntheticPeople | None = None
    files: PeopleFiles | None = None
    split_seed: Count = 1


class Sessions(Section):
    """What is told before what (IDL, section 3.2).

    `extractor`: the folder of a fact extractor, `oracle` for the synthetic corpus, null to take every message for
    persona-intensive. `references`: how many sessions are told at most. `supervise`: the last reply of a session (the
    paper), or every one of the person's.
    """

    extractor: str | None = None
    encoder: str | None = None
    clusterer: Clusterer = "kmeans"
    clusters: Positive = CLUSTERS
    identification: Identification = "paper"
    ordering: Ordering = "exact"
    references: Positive = NEIGHBOURS
    supervise: Literal["last", "every"] = "last"
    similar: Positive = SIMILAR


class IdlStages(BackboneStages):
    """`finetuning`: each session alone; `gold`: each with its person's profile; `stage1`: MSL; `stage2`: DPA."""

    finetuning: Stage | None = None
    gold: Stage | None = None
    stage1: Stage
    stage2: CriterionStage


# What is trained or asked beside IDL itself. The last four are Table 3's, each without what the one before lacks:
# `without_criterion` aligns by plain DPO, `without_dpa` not at all, `without_spi` is told other sessions of the person at
# random, `without_dpi` those in any order.
Comparison = Literal["icl", "system", "without_criterion", "without_dpa", "without_spi", "without_dpi"]


class Compared(Section):
    """`sessions`: numbers of sessions that IDL and ICL are told (Figure 4); `out_of_cluster`: sessions of the other
    clusters than the tested one's (Table 5); `attention`: of how many tested sessions it is measured what ICL and IDL
    look at while they reply (Figure 5)."""

    systems: tuple[Comparison, ...] = (
        "icl",
        "system",
        "without_criterion",
        "without_dpa",
        "without_spi",
        "without_dpi",
    )
    sessions: tuple[Count, ...] = ()
    out_of_cluster: bool = False
    attention: Count = 0


class IdlRecipe(RunRecipe):
    method: Literal["idl"]
    data: PeopleData
    stages: IdlStages
    sessions: Sessions = Sessions()
    compared: Compared = Compared()


def parse_idl_recipe(values: Mapping[str, Any], *, source: str) -> IdlRecipe:
    """Check a recipe's values; the messages are those of `parse_recipe`."""
    recipe = validated(IdlRecipe, values, source=source)
    _check(recipe, source)
    return recipe


def _check(recipe: IdlRecipe, source: str) -> None:
    """Raise PersonalignError for the first mistake; keys that would be read by nothing count as mistakes."""
    data = recipe.data
    if (data.synthetic is None) == (data.files is None):
        raise PersonalignError(f"{source}: data: give either `synthetic` or `files`, and not both")
    check_common(recipe, source)
    if data.files is not None:
        _check_files(recipe, data.files, source)
    elif data.split_seed != PeopleData.model_fields["split_seed"].default:
        raise PersonalignError(
            f"{source}: data.split_seed decides which people of files are aligned with; the synthetic corpus has "
            "people of its own for that, so leave it out"
        )
    _check_sessions(recipe, source)
    _check_stages(recipe, source)


def _check_files(recipe: IdlRecipe, files: PeopleFiles, source: str) -> None:
    check_mini(
        recipe, [(f"data.files.test.{name}.file", test.file) for name, test in files.test.items()], source
    )
    if TEST not in files.test:
        raise PersonalignError(
            f"{source}: data.files.test: name the people that the report is on `{TEST}`, further ones as you like"
        )
    if wrong := [name for name in files.test if not name.replace("-", "").isalnum() or name in UNTESTED]:
        raise PersonalignError(
            f"{source}: data.files.test: '{wrong[0]}' cannot name people that are tested; write letters, digits and -, "
            f"and not {' or '.join(UNTESTED)}"
        )
    if not 0 < files.align_share < 1:
        raise PersonalignError(
            f"{source}: data.files.align_share is {files.align_share:g}, which leaves a stage without people; write a "
            "share between 0 and 1"
        )
    if ORACLE in (*recipe.evaluation.judges, recipe.sessions.extractor):
        raise PersonalignError(
            f"{source}: the oracle knows the synthetic corpus alone; name judges and an extractor of your own, or write "
            "evaluation.judges: [] and sessions.extractor: null"
        )


def _check_sessions(recipe: IdlRecipe, source: str) -> None:
    sessions = recipe.sessions
    asked = sessions.clusters != CLUSTERS
    if sessions.clusterer in ("dbscan", "mean-shift") and asked and sessions.clusters > 1:
        raise PersonalignError(
            f"{source}: sessions.clusters: {sessions.clusterer} finds the number of clusters itself; leave it out"
        )
    if (
        sessions.identification == "release"
        and not recipe.compared.out_of_cluster
        and (asked or sessions.clusterer != "kmeans")
    ):
        raise PersonalignError(
            f"{source}: sessions: the release tells all sessions, whatever their cluster; leave clusterer and clusters "
            "out"
        )


def _check_stages(recipe: IdlRecipe, source: str) -> None:
    stages = recipe.stages
    for name, stage in (
        ("finetuning", stages.finetuning),
        ("gold", stages.gold),
        ("stage1", stages.stage1),
        ("stage2", stages.stage2),
    ):
        for key in ("evaluate_every", "patience", "trunk_weight", "reply_weight"):
            if stage is not None and getattr(stage, key) != Stage.model_fields[key].default:
                raise PersonalignError(f"{source}: stages.{name}.{key} has no meaning in IDL; leave it out")
    if stages.stage2.only_labelled:
        raise PersonalignError(
            f"{source}: stages.stage2.only_labelled has no meaning in IDL, which reads no labels; leave it out"
        )
    if recipe.prompts.template != "trunk-first" or recipe.prompts.history is not None:
        raise PersonalignError(
            f"{source}: prompts: IDL tells sessions before a conversation, for which template is trunk-first and history "
            "null; leave both out"
        )
    if recipe.evaluation.strategies != Evaluation.model_fields["strategies"].default:
        raise PersonalignError(
            f"{source}: evaluation.strategies are ways of selecting, which IDL does not; leave it out"
        )
    if recipe.evaluation.revised:
        raise PersonalignError(
            f"{source}: evaluation.revised is for PAL, which is told a persona; leave it out"
        )
    numbers = recipe.compared.sessions
    if len(set(numbers)) < len(numbers):
        raise PersonalignError(f"{source}: compared.sessions: each number once, not {list(numbers)}")
    if recipe.decoding.engine != "local":
        raise PersonalignError(f"{source}: decoding.engine: IDL decodes here; write local")
    scratch = recipe.backbone.scratch
    if recipe.data.files is not None and scratch is not None and scratch.tokenizer == "word":
        raise PersonalignError(
            f"{source}: backbone.scratch.tokenizer is 'word', which knows the words of the synthetic corpus alone; "
            "write bpe"
        )
