"""How far a mean could be off: resampling whole dialogues, because turns of one dialogue hang together."""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from personalign.errors import PersonalignError


def bootstrap_by_dialogue(
    values: npt.ArrayLike,
    groups: Sequence[Hashable],
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval (low, high) of the mean of `values` [N], dialogues drawn with replacement.

    `groups[i]`: the dialogue of `values[i]`. For the difference of two systems on the same turns, give the
    differences per turn. Every value weighs the same, so long dialogues weigh more, as in the mean itself.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) != len(groups) or len(numbers) == 0:
        raise PersonalignError(f"{numbers.shape} values but {len(groups)} groups; give one group per value")
    index = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    group_of = np.array([index[group] for group in groups])
    sums = np.bincount(group_of, weights=numbers)
    sizes = np.bincount(group_of)
    generator = np.random.default_rng(seed)
    # How often each dialogue is drawn is all that matters: [samples, dialogues] counts.
    draws = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=samples)
    means = (draws @ sums) / (draws @ sizes)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
