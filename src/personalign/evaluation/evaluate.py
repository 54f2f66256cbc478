"""Score systems on the same turns: every metric with its interval, and systems against one of them with tests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers
from personalign.evaluation.metrics import METRICS, Metric, missing, printed_name
from personalign.evaluation.needs import NEEDS
from personalign.evaluation.significance import (
    Comparison,
    Estimate,
    SeedTest,
    compare,
    compare_over_seeds,
    estimate,
    holm,
    stars,
)
from personalign.evaluation.sums import Sums

Part = Literal["all", "needs_line", "needs_none"]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    samples: int = 1000
    seed: int = 0
    level: float = 0.95
    part: Part = "all"


@dataclass(frozen=True, slots=True)
class Score:
    """`per_seed`: the figure of each seed in the order in which they were given; `estimate` averages them."""

    estimate: Estimate
    per_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A system minus the one that it is held against.

    `p` is the t-test's over seeds where both have several, else the approximate randomisation's; `p_holm` corrects it
    for all tests of the evaluation. Stars come from `p_holm` alone.
    """

    comparison: Comparison
    over_seeds: SeedTest | None
    p: float
    p_holm: float

    @property
    def stars(self) -> str:
        return stars(self.p_holm)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures by system and metric; `left_out` says of each metric without figures what it lacked, and where."""

    turns: int
    dialogues: int
    scores: Mapping[str, Mapping[str, Score]]
    differences: Mapping[str, Mapping[str, Difference]]
    left_out: Mapping[str, str]
    against: str | None


def evaluate(
    systems: Mapping[str, Sequence[Answers]],
    *,
    metrics: Sequence[Metric] | None = None,
    against: str | None = None,
    settings: Settings = Settings(),
    tell: Tell | None = None,
) -> Evaluation:
    """Score every system, each given as its answers of one seed or several, all on the same turns.

    `metrics` None: all that are computed by default. A metric is left out for systems that lack what it needs.
    `tell` is called with what comes next, once per system and metric.

    Raises PersonalignError where systems answer different turns, or `against` is none of them.
    """
    if not systems:
        raise PersonalignError("there is nothing to evaluate; give at least one system's predictions")
    if against is not None and against not in systems:
        raise PersonalignError(f"'{against}' is none of the systems: {', '.join(systems)}")
    kept, groups = _turns_of(systems, part=settings.part)
    chosen = [metric for metric in METRICS.values() if metric.by_default] if metrics is None else metrics
    scores: dict[str, dict[str, Score]] = {name: {} for name in systems}
    measured: dict[str, dict[str, list[Sums]]] = {}
    left_out: dict[str, str] = {}
    for metric in chosen:
        for name, seeds in systems.items():
            if tell is not None:
                tell(f"{name}: {metric.name}")
            lacking = missing(seeds[0], metric) or next(filter(None, (missing(a, metric) for a in seeds)), [])
            if lacking:
                left_out.setdefault(metric.name, f"{name} lacks {NEEDS[lacking[0]]}")
                continue
            sums = [metric.measure(answers).of(kept) for answers in seeds]
            measured.setdefault(metric.name, {})[name] = sums
            scores[name][printed_name(metric, seeds[0].language)] = Score(
                estimate(
                    sums,
                    groups,
                    interval=metric.interval,
                    samples=settings.samples,
                    seed=settings.seed,
                    level=settings.level,
                ),
                tuple(one.figure() for one in sums),
            )
    differences = (
        {} if against is None else _differences(measured, groups, against, systems, chosen, settings)
    )
    # A metric that some system has a figure for is not left out of the evaluation, only of that system's column.
    unscored = {name: why for name, why in left_out.items() if name not in measured}
    return Evaluation(len(kept), len(set(groups)), scores, differences, unscored, against)


def _turns_of(systems: Mapping[str, Sequence[Answers]], *, part: Part) -> tuple[list[int], list[str]]:
    """The turns of the part that is asked for, and their dialogues; the same of all systems."""
    every = [(name, answers) for name, seeds in systems.items() for answers in seeds]
    first_name, first = every[0]
    keys = [question.key for question in first.questions]
    for name, answers in every[1:]:
        if [question.key for question in answers.questions] != keys:
            raise PersonalignError(
                f"{name} answers other turns than {first_name}; systems are compared on the same turns of one --data"
            )
    kept = list(range(len(first)))
    if part != "all":
        if any(question.relevant is None for question in first.questions):
            raise PersonalignError(f"the part {part} needs {NEEDS['labels']}")
        wanted = part == "needs_line"
        kept = [i for i, question in enumerate(first.questions) if bool(question.relevant) == wanted]
        if not kept:
            raise PersonalignError(f"no turn of the data belongs to the part {part}")
    return kept, [first.questions[index].dialogue for index in kept]


def _differences(
    measured: Mapping[str, Mapping[str, Sequence[Sums]]],
    groups: Sequence[str],
    against: str,
    systems: Mapping[str, Sequence[Answers]],
    metrics: Sequence[Metric],
    settings: Settings,
) -> dict[str, dict[str, Difference]]:
    compared: list[tuple[str, str, Comparison, SeedTest | None, float]] = []
    for metric in metrics:
        sums = measured.get(metric.name, {})
        if against not in sums:
            continue
        for name in systems:
            if name == against or name not in sums:
                continue
            comparison = compare(
                sums[name],
                sums[against],
                groups,
                interval=metric.interval,
                samples=settings.samples,
                seed=settings.seed,
                level=settings.level,
            )
            test = None
            if len(sums[name]) > 1 and len(sums[against]) > 1:
                test = compare_over_seeds(
                    [one.figure() for one in sums[name]],
                    [one.figure() for one in sums[against]],
                    level=settings.level,
                )
            p = comparison.p_randomisation if test is None else test.p
            printed = printed_name(metric, systems[name][0].language)
            compared.append((name, printed, comparison, test, p))
    corrected = holm([p for *_, p in compared])
    differences: dict[str, dict[str, Difference]] = {name: {} for name in systems if name != against}
    for (name, printed, comparison, test, p), adjusted in zip(compared, corrected, strict=True):
        differences[name][printed] = Difference(comparison, test, p, adjusted)
    return differences
