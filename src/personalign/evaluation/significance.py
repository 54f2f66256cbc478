"""How far a figure could be off, and whether two systems differ by more than chance.

Turns of one dialogue hang together, so whole dialogues are resampled, left out or exchanged. All tests are two-sided.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from personalign.errors import PersonalignError
from personalign.evaluation.metrics import Interval
from personalign.evaluation.sums import Floats, Sums, aligned

Counts = npt.NDArray[np.unsignedinteger]

# Samples times dialogues have no bound: so many draws are computed with at a time (32 MB), and so many kept (64 MB).
_HELD = 4_000_000
_KEPT = 64_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval; NaN ends where there is one dialogue only."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"mean": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same turns, first minus second.

    - `low`, `high`: interval of the difference; `p_bootstrap`: share of paired resamples on the other side of 0,
      doubled; `p_randomisation`: share of random exchanges of replies, dialogue by dialogue, that differ as much.
    - `effect`: the difference in standard deviations of the dialogues' (pseudo-)differences, Cohen's d_z.
    """

    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_randomisation: float
    effect: float


@dataclass(frozen=True, slots=True)
class SeedTest:
    """Two systems over seeds: the means, Student's independent t-test as the papers use it, and Cohen's d."""

    first: float
    second: float
    p: float
    effect: float
    low: float
    high: float


def estimate(
    seeds: Sequence[Sums],
    groups: Sequence[Hashable],
    *,
    interval: Interval = "bootstrap",
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """The figure and its interval, dialogues drawn with replacement (percentiles) or left out in turn (normal).

    `seeds`: the system's answers of one seed or of several, whose figures are averaged; the interval is over dialogues.
    `groups[i]` is the dialogue of example i. Every example weighs the same, so long dialogues weigh more.
    """
    grouped = [_grouped(sums, groups) for sums in seeds]
    value = _mean(sums.figure() for sums in grouped)
    dialogues = len(grouped[0])
    if dialogues < 2:
        return Estimate(value, np.nan, np.nan)
    if interval == "jackknife":
        without = _average(grouped, Sums.without_each)
        half = _critical(level, dialogues - 1) * _jackknife_error(without)
        return Estimate(value, value - half, value + half)
    drawn = [_weighted(grouped, weights) for weights in _draws(dialogues, samples=samples, seed=seed)]
    low, high = _percentiles(np.concatenate(drawn), level=level)
    return Estimate(value, low, high)


def compare(
    first: Sequence[Sums],
    second: Sequence[Sums],
    groups: Sequence[Hashable],
    *,
    interval: Interval = "bootstrap",
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Paired bootstrap (Koehn 2004) and approximate randomisation (Noreen 1989), both by dialogue.

    `first`, `second`: the answers of one seed or several, whose figures are averaged. Replies are exchanged between
    seed k of the one and seed k of the other, a dialogue's of all seeds together, so only systems with equally many have
    a `p_randomisation`. The p-values count the data themselves among the samples, so the least is 1 / (samples + 1), of
    the bootstrap twice that. All is NaN where a figure does not exist; samples without one never count as evidence.
    """
    ours, theirs = ([_grouped(sums, groups) for sums in seeds] for seeds in (first, second))
    difference = _mean(sums.figure() for sums in ours) - _mean(sums.figure() for sums in theirs)
    dialogues = len(ours[0])
    if dialogues < 2 or np.isnan(difference):
        return Comparison(difference, np.nan, np.nan, np.nan, np.nan, np.nan)
    without = _average(ours, Sums.without_each) - _average(theirs, Sums.without_each)
    drawn = np.concatenate(
        [
            _weighted(ours, weights) - _weighted(theirs, weights)
            for weights in _draws(dialogues, samples=samples, seed=seed)
        ]
    )
    if interval == "jackknife":
        half = _critical(level, dialogues - 1) * _jackknife_error(without)
        low, high = difference - half, difference + half
        # Drawing dialogues twice shifts such figures; their spread around their own mean is what is left of use.
        drawn = drawn - np.nanmean(drawn) + difference
    else:
        low, high = _percentiles(drawn, level=level)
    drawn = drawn[~np.isnan(drawn)]
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    pseudo = dialogues * difference - (dialogues - 1) * without
    spread = float(pseudo.std(ddof=1))
    return Comparison(
        difference,
        low,
        high,
        min(1.0, 2 * (tail + 1) / (len(drawn) + 1)),
        _p_randomisation(ours, theirs, difference, samples=samples, seed=seed),
        0.0 if spread == 0 else difference / spread,
    )


def _p_randomisation(
    ours: Sequence[Sums], theirs: Sequence[Sums], difference: float, *, samples: int, seed: int
) -> float:
    if len(ours) != len(theirs):
        return np.nan
    generator = np.random.default_rng(seed)
    pairs = [aligned(*pair) for pair in zip(ours, theirs, strict=True)]
    dialogues = len(ours[0])
    as_much = 0
    for count in _at_a_time(samples, dialogues):
        kept = generator.integers(0, 2, size=(count, dialogues)).astype(np.float64)
        swapped = [_mixed(one, other, kept) - _mixed(one, other, 1 - kept) for one, other in pairs]
        # Differences that are equal but for rounding are equal; one that does not exist speaks against no other.
        gaps = np.abs(np.mean(swapped, axis=0))
        as_much += int((np.isnan(gaps) | (gaps >= abs(difference) * (1 - 1e-9) - 1e-12)).sum())
    return (as_much + 1) / (samples + 1)


def compare_over_seeds(first: Sequence[float], second: Sequence[float], *, level: float = 0.95) -> SeedTest:
    """Student's t-test of independent samples, one figure per seed and system; equal variances, as in the papers.

    Raises PersonalignError for fewer than two seeds of either.
    """
    from scipy import stats

    if len(first) < 2 or len(second) < 2:
        raise PersonalignError(
            f"{len(first)} and {len(second)} seeds: a t-test needs two or more of each system"
        )
    ours, theirs = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    freedom = len(ours) + len(theirs) - 2
    pooled = ((len(ours) - 1) * ours.var(ddof=1) + (len(theirs) - 1) * theirs.var(ddof=1)) / freedom
    difference = float(ours.mean() - theirs.mean())
    if pooled == 0:
        # All seeds alike: equal means are no difference, unequal ones a certain one.
        p = 1.0 if difference == 0 else 0.0
        return SeedTest(
            float(ours.mean()), float(theirs.mean()), p, 0.0 if p else np.inf, difference, difference
        )
    error = float(np.sqrt(pooled * (1 / len(ours) + 1 / len(theirs))))
    half = _critical(level, freedom) * error
    return SeedTest(
        float(ours.mean()),
        float(theirs.mean()),
        float(stats.ttest_ind(ours, theirs).pvalue),
        difference / float(np.sqrt(pooled)),
        difference - half,
        difference + half,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm 1979: p-values that keep the chance of *any* false alarm among all tests at the level. NaN stays NaN."""
    known = [index for index, p in enumerate(p_values) if not np.isnan(p)]
    adjusted = list(map(float, p_values))
    worst = 0.0
    for place, index in enumerate(sorted(known, key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(known) - place) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def stars(p: float) -> str:
    """`***` below .001, `**` below .01, `*` below .05."""
    return "" if np.isnan(p) else "*" * sum(p < level for level in (0.05, 0.01, 0.001))


def _draws(dialogues: int, *, samples: int, seed: int) -> Iterator[Floats]:
    """[some of the samples, dialogues] at a time, how often each dialogue is drawn, which is all that matters."""
    drawn = _kept_counts if samples * dialogues <= _KEPT else _counts
    for counts in drawn(dialogues, samples=samples, seed=seed):
        yield counts.astype(np.float64)


@lru_cache(maxsize=4)
def _kept_counts(dialogues: int, *, samples: int, seed: int) -> tuple[Counts, ...]:
    """The same for all metrics."""
    return tuple(_counts(dialogues, samples=samples, seed=seed))


def _counts(dialogues: int, *, samples: int, seed: int) -> Iterator[Counts]:
    """Drawn row after row, so that the samples do not depend on how many there are at a time."""
    generator = np.random.default_rng(seed)
    for count in _at_a_time(samples, dialogues):
        counts = generator.multinomial(dialogues, np.full(dialogues, 1 / dialogues), size=count)
        # Hardly any is above 10: kept in a byte each.
        yield counts.astype(np.min_scalar_type(counts.max()))


def _at_a_time(samples: int, dialogues: int) -> list[int]:
    """How many samples each piece of the work has."""
    most = max(1, _HELD // dialogues)
    return [min(most, samples - start) for start in range(0, samples, most)]


def _mixed(first: Sums, second: Sums, chosen: Floats) -> Floats:
    """[S], the figure with dialogue d taken from `first` where chosen[s, d] is 1, from `second` where it is 0."""
    from scipy import sparse

    if isinstance(first.rows, np.ndarray):
        stacked = np.concatenate([first.rows, second.rows])
    else:
        stacked = sparse.vstack([first.rows, second.rows]).tocsr()
    return Sums(stacked, first.value, first.columns).weighted(np.concatenate([chosen, 1 - chosen], axis=1))


def _percentiles(drawn: Floats, *, level: float) -> tuple[float, float]:
    if np.isnan(drawn).all():
        return np.nan, np.nan
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _jackknife_error(without: Floats) -> float:
    count = len(without)
    return float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))


def _critical(level: float, freedom: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + level) / 2, freedom))


def _grouped(sums: Sums, groups: Sequence[Hashable]) -> Sums:
    if len(sums) != len(groups) or not groups:
        raise PersonalignError(f"{len(sums)} values but {len(groups)} groups; give one group per value")
    return sums.grouped(groups)


def _weighted(seeds: Sequence[Sums], weights: Floats) -> Floats:
    return _average(seeds, lambda sums: sums.weighted(weights))


def _average(seeds: Sequence[Sums], figures: Callable[[Sums], Floats]) -> Floats:
    mean: Floats = np.mean([figures(sums) for sums in seeds], axis=0)
    return mean


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
