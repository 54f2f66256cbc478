"""Score systems on the same turns: every metric with its interval, and systems against one of them with tests."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, NamedTuple, Protocol

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
Test = Literal["t-test over seeds", "randomisation", "paired bootstrap"]


class ShowProgress(Protocol):
    """What shows a person how far work is: called with its name and size, it is told of every piece that is done."""

    def __call__(self, description: str, *, total: int) -> AbstractContextManager[Callable[[int], None]]: ...


def unseen(description: str, *, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Progress that nobody watches."""
    return nullcontext(lambda pieces: None)


@dataclass(frozen=True, slots=True)
class Settings:
    """`samples`: resamples of every interval, and of every test unless so many tests need more."""

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

    `p` is that of `test`: the t-test over seeds where both have several, else the approximate randomisation or, where
    one has more seeds than the other and nothing can be exchanged, the paired bootstrap. `p_holm` corrects it for all
    tests that were made together; NaN where there was nothing to test. Stars come from `p_holm` alone.
    """

    comparison: Comparison
    over_seeds: SeedTest | None
    test: Test
    p: float
    p_holm: float

    @property
    def stars(self) -> str:
        return stars(self.p_holm)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures by system and metric.

    `left_out` says of each metric what the systems without a figure of it lack. `reference` is scored, but no competitor;
    `bounds` are systems that read what no system may, such as the label: they take no place and are not tested either.
    `test_samples`: resamples of every test, 0 where nothing was tested.
    """

    turns: int
    dialogues: int
    scores: Mapping[str, Mapping[str, Score]]
    differences: Mapping[str, Mapping[str, Difference]]
    left_out: Mapping[str, str]
    against: str | None
    reference: str | None = None
    test_samples: int = 0
    bounds: frozenset[str] = frozenset()


def evaluate(
    systems: Mapping[str, Sequence[Answers]],
    *,
    metrics: Sequence[Metric] | None = None,
    against: str | None = None,
    reference: str | None = None,
    bounds: Collection[str] = (),
    settings: Settings = Settings(),
    progress: ShowProgress = unseen,
) -> Evaluation:
    """Score every system, each given as its answers of one seed or several, all on the same turns.

    `metrics` None: all that are computed by default. A metric is left out for systems that lack what it needs.
    `reference`: a system, such as the gold replies, that is scored and not tested; `bounds`: see `Evaluation`.
    `progress` is asked once for measuring, by system and metric, and once for testing, by difference.

    Raises PersonalignError where systems answer different turns, or `against` is none of them.
    """
    chosen = [metric for metric in METRICS.values() if metric.by_default] if metrics is None else metrics
    [found] = evaluate_together(
        [(systems, chosen)],
        against=against,
        reference=reference,
        bounds=bounds,
        settings=settings,
        progress=progress,
    )
    return found


def evaluate_together(
    parts: Sequence[tuple[Mapping[str, Sequence[Answers]], Sequence[Metric]]],
    *,
    against: str | None = None,
    reference: str | None = None,
    bounds: Collection[str] = (),
    settings: Settings = Settings(),
    progress: ShowProgress = unseen,
) -> list[Evaluation]:
    """The evaluations that make one report, such as one by each judge: Holm's correction is for the tests of all of them.

    `parts`: systems, as `evaluate` takes them, and metrics of each evaluation.
    """
    scored = [
        _scored(systems, metrics, against, reference, bounds, settings, progress)
        for systems, metrics in parts
    ]
    tested = [(place, pair) for place, (_, pairs) in enumerate(scored) for pair in pairs]
    if not tested:
        return [found for found, _ in scored]
    enough = replace(
        settings, samples=max(settings.samples, _samples_for_a_star([pair for _, pair in tested]))
    )
    outcomes: list[_Outcome] = []
    with progress("testing", total=len(tested)) as advance:
        for _, pair in tested:
            outcomes.append(_test(pair, enough))
            advance(1)
    corrected = holm([one.p for one in outcomes])
    differences: list[dict[str, dict[str, Difference]]] = [
        {name: {} for name in found.differences} for found, _ in scored
    ]
    for (place, pair), one, adjusted in zip(tested, outcomes, corrected, strict=True):
        differences[place][pair.name][pair.printed] = Difference(
            one.comparison, one.over_seeds, pair.test, one.p, adjusted
        )
    return [
        replace(found, differences=some, test_samples=enough.samples)
        for (found, _), some in zip(scored, differences, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Pair:
    """What one test is of: a system, called `name`, and the one that it is held against, each with its seeds."""

    name: str
    metric: Metric
    printed: str
    ours: Sequence[Sums]
    theirs: Sequence[Sums]
    groups: Sequence[str]

    @property
    def test(self) -> Test:
        if len(self.ours) > 1 and len(self.theirs) > 1:
            return "t-test over seeds"
        return "randomisation" if len(self.ours) == len(self.theirs) else "paired bootstrap"


def _samples_for_a_star(pairs: Sequence[_Pair]) -> int:
    """The least p is 1 / (samples + 1), of the bootstrap twice that: with fewer none of so many could reach .05."""
    return (40 if any(pair.test == "paired bootstrap" for pair in pairs) else 20) * len(pairs)


def _scored(
    systems: Mapping[str, Sequence[Answers]],
    metrics: Sequence[Metric],
    against: str | None,
    reference: str | None,
    bounds: Collection[str],
    settings: Settings,
    progress: ShowProgress,
) -> tuple[Evaluation, list[_Pair]]:
    """An evaluation without its tests, and what there is to test."""
    kept, groups = check_choices(systems, against=against, part=settings.part)
    scores, measured, lacks = _measured(systems, metrics, kept, groups, settings, progress)
    compared = {name: seeds for name, seeds in systems.items() if name != reference and name not in bounds}
    left_out = {
        metric: "; ".join(
            f"{_who_lacks(names, compared)} {need}"
            for need, names in _by_need(some, besides=reference).items()
        )
        for metric, some in lacks.items()
    }
    pairs = [] if against is None else _pairs(measured, groups, against, compared, metrics)
    found = Evaluation(
        len(kept),
        len(set(groups)),
        scores,
        {name: {} for name in compared if against is not None and name != against},
        {metric: why for metric, why in left_out.items() if why},
        against,
        reference,
        bounds=frozenset(bounds) & frozenset(systems),
    )
    return found, pairs


def _measured(
    systems: Mapping[str, Sequence[Answers]],
    metrics: Sequence[Metric],
    kept: Sequence[int],
    groups: Sequence[str],
    settings: Settings,
    progress: ShowProgress,
) -> tuple[dict[str, dict[str, Score]], dict[str, dict[str, list[Sums]]], dict[str, dict[str, str]]]:
    """Scores by system and printed name; their sums, and what is missing for a score, by metric and system."""
    scores: dict[str, dict[str, Score]] = {name: {} for name in systems}
    measured: dict[str, dict[str, list[Sums]]] = {}
    lacks: dict[str, dict[str, str]] = {}
    with progress("measuring", total=len(metrics) * len(systems)) as advance:
        for metric, (name, seeds) in product(metrics, systems.items()):
            lacking = next(filter(None, (missing(answers, metric) for answers in seeds)), [])
            if lacking:
                lacks.setdefault(metric.name, {})[name] = NEEDS[lacking[0]]
            else:
                sums = [metric.measure(answers).of(kept) for answers in seeds]
                measured.setdefault(metric.name, {})[name] = sums
                printed = printed_name(metric, seeds[0].language)
                scores[name][printed] = _score(sums, groups, metric, settings)
            advance(1)
    return scores, measured, lacks


def _score(sums: Sequence[Sums], groups: Sequence[str], metric: Metric, settings: Settings) -> Score:
    found = estimate(
        sums,
        groups,
        interval=metric.interval,
        samples=settings.samples,
        seed=settings.seed,
        level=settings.level,
    )
    # Few dialogues have a wide jackknife, which knows nothing of what a share can be.
    least, most = metric.limits
    within = replace(found, low=max(found.low, least), high=min(found.high, most))
    return Score(within, tuple(one.figure() for one in sums))


def _who_lacks(names: Sequence[str], every: Collection[str]) -> str:
    """Systems may have commas in their names."""
    if len(names) == len(every) > 1:
        return "every system lacks"
    return f"{'; '.join(names)} {'lacks' if len(names) == 1 else 'lack'}"


def _by_need(lacks: Mapping[str, str], *, besides: str | None) -> dict[str, list[str]]:
    """Systems by what they lack."""
    grouped: dict[str, list[str]] = {}
    for name, need in lacks.items():
        if name != besides:
            grouped.setdefault(need, []).append(name)
    return grouped


def too_few_to_test(found: Evaluation) -> str | None:
    """A remark where so few dialogues were tested that no difference, however great, could be significant."""
    over_dialogues = any(
        one.test == "randomisation" for some in found.differences.values() for one in some.values()
    )
    # Exchanging whole dialogues has 2 ** n outcomes, two of which are as extreme as the most extreme one.
    least = 2.0 ** (1 - found.dialogues)
    if not over_dialogues or least < 0.05:
        return None
    return (
        f"{found.dialogues} dialogues are too few to test: whatever they hold, no p is below {least:.3f}; the least that "
        "can be tested at .05 is 6, and Holm's correction wants more"
    )


def check_choices(
    systems: Mapping[str, Sequence[Answers]], *, against: str | None, part: Part
) -> tuple[list[int], list[str]]:
    """The turns of the part that is asked for, and their dialogues; to be called before a judge costs time.

    Raises PersonalignError where there is no system, systems answer different turns, `against` is none of them, or the
    part has no turn.
    """
    if not systems:
        raise PersonalignError("there is nothing to evaluate; give at least one system's predictions")
    if against is not None and against not in systems:
        named = "; ".join(f"'{name}'" for name in systems)
        raise PersonalignError(f"'{against}' is none of the systems: {named}")
    if against is not None and len(systems) == 1:
        raise PersonalignError(
            f"there is no system to hold against '{against}'; give another one's predictions too"
        )
    return _turns_of(systems, part=part)


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


def _pairs(
    measured: Mapping[str, Mapping[str, Sequence[Sums]]],
    groups: Sequence[str],
    against: str,
    systems: Mapping[str, Sequence[Answers]],
    metrics: Sequence[Metric],
) -> list[_Pair]:
    """Each metric and system whose difference is tested: both have a figure, and it is one of the system's doing."""
    return [
        _Pair(
            name,
            metric,
            printed_name(metric, systems[name][0].language),
            measured[metric.name][name],
            measured[metric.name][against],
            groups,
        )
        for metric in metrics
        if metric.of_systems and against in measured.get(metric.name, {})
        for name in systems
        if name != against and name in measured[metric.name]
    ]


class _Outcome(NamedTuple):
    """A difference with the p of the test that suits its seeds, before it is corrected for the others."""

    comparison: Comparison
    over_seeds: SeedTest | None
    p: float


def _test(pair: _Pair, settings: Settings) -> _Outcome:
    comparison = compare(
        pair.ours,
        pair.theirs,
        pair.groups,
        interval=pair.metric.interval,
        samples=settings.samples,
        seed=settings.seed,
        level=settings.level,
    )
    if pair.test == "t-test over seeds":
        over_seeds = compare_over_seeds(
            [one.figure() for one in pair.ours], [one.figure() for one in pair.theirs], level=settings.level
        )
        return _Outcome(comparison, over_seeds, over_seeds.p)
    if pair.test == "paired bootstrap":
        return _Outcome(comparison, None, comparison.p_bootstrap)
    return _Outcome(comparison, None, comparison.p_randomisation)
