"""What a run of IDL trains and compares."""

from dataclasses import dataclass
from typing import Literal

from personalign.methods.idl_parts import tested_parts
from personalign.methods.idl_recipe import TEST, IdlRecipe
from personalign.methods.recipe import Stage
from personalign.training.step import Objective

Sees = Literal["sessions", "profile", "nothing"]


@dataclass(frozen=True, slots=True)
class TrainedStage:
    """A stage, and the one whose model it goes on from; `static` and `dynamic`: what identification it keeps.

    `sees`: what stands before the session that is learnt from.
    """

    name: str
    title: str
    start: str
    settings: Stage
    objective: Objective
    sees: Sees = "sessions"
    static: bool = True
    dynamic: bool = True


@dataclass(frozen=True, slots=True)
class IdlSystem:
    """`stage` names the stage whose model answers, `part` whom it answers as.

    `sees`: what stands before the session that is answered; of sessions the latest `most` (None: as many as in
    training), or those of its own or of other clusters.
    """

    name: str
    title: str
    stage: str
    part: str
    sees: Sees = "sessions"
    most: int | None = None
    clusters: Literal["in", "out"] | None = None


_ABLATED: dict[str, tuple[str, str]] = {
    "without_dpi": ("stage1_without_dpi", "IDL w/o DPA, SPI, DPI"),
    "without_spi": ("stage1_without_spi", "IDL w/o DPA, SPI"),
    "without_dpa": ("stage1", "IDL w/o DPA"),
    "without_criterion": ("stage2_dpo", "IDL w/o criterion"),
}
"""As the paper's Table 3 names them: deep personalised alignment, static and dynamic persona identification."""


def trained_stages(recipe: IdlRecipe) -> list[TrainedStage]:
    """In order; every alignment goes on from the one stage 1 (IDL, Table 3)."""
    stages, compared = recipe.stages, recipe.compared.systems
    found = []
    if stages.finetuning is not None:
        found.append(
            TrainedStage("finetuning", "Fine-tuning", "backbone", stages.finetuning, "nll", "nothing")
        )
    if stages.gold is not None:
        found.append(
            TrainedStage("gold", "Fine-tuning with profiles", "backbone", stages.gold, "nll", "profile")
        )
    found.append(TrainedStage("stage1", "Mutual supervised learning", "backbone", stages.stage1, "nll"))
    if "without_spi" in compared:
        title = "Stage 1 without static identification"
        found.append(
            TrainedStage("stage1_without_spi", title, "backbone", stages.stage1, "nll", static=False)
        )
    if "without_dpi" in compared:
        title = "Stage 1 without any identification"
        found.append(
            TrainedStage(
                "stage1_without_dpi", title, "backbone", stages.stage1, "nll", static=False, dynamic=False
            )
        )
    if "without_criterion" in compared:
        found.append(TrainedStage("stage2_dpo", "Alignment by plain DPO", "stage1", stages.stage2, "dpo"))
    return [*found, TrainedStage("stage2", "Deep personalised alignment", "stage1", stages.stage2, "dpoc")]


def idl_systems(recipe: IdlRecipe) -> list[IdlSystem]:
    """What is compared, on the people of every tested part; numbers of sessions and clusters on the report's alone."""
    return [system for part in tested_parts(recipe) for system in _systems(recipe, part)]


def _systems(recipe: IdlRecipe, part: str) -> list[IdlSystem]:
    compared = recipe.compared
    found: list[IdlSystem] = []

    def add(name: str, title: str, stage: str, sees: Sees = "sessions", **values: object) -> None:
        at = "" if part == TEST else f"@{part}"
        found.append(IdlSystem(f"{name}{at}", title, stage, part, sees, **values))  # type: ignore[arg-type]

    if "icl" in compared.systems:
        add("icl", "in-context learning", "backbone")
    if "system" in compared.systems:
        add("system", "profile in the prompt", "backbone", "profile")
    if recipe.stages.finetuning is not None:
        add("finetuning", "fine-tuning", "finetuning", "nothing")
    if recipe.stages.gold is not None:
        add("gold", "fine-tuning with profiles", "gold", "profile")
    for name, (stage, title) in _ABLATED.items():
        if name in compared.systems:
            add(name, title, stage)
    add("idl", "IDL", "stage2")
    if part != TEST:
        return found
    for most in compared.sessions:
        if "icl" in compared.systems:
            add(f"icl_{most}", f"in-context learning, {counted(most)}", "backbone", most=most)
        add(f"idl_{most}", f"IDL, {counted(most)}", "stage2", most=most)
    if compared.out_of_cluster:
        add("idl_in_cluster", "IDL, sessions of the same cluster", "stage2", clusters="in")
        add("idl_out_of_cluster", "IDL, sessions of other clusters", "stage2", clusters="out")
    return found


def counted(sessions: int) -> str:
    return "1 session" if sessions == 1 else f"{sessions:,} sessions"
