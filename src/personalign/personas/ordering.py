"""In which order a person's sessions are told before the one that goes on (dynamic persona identification)."""

import functools
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from personalign.errors import PersonalignError
from personalign.personas.edit_distance import Distances

Ordering = Literal["none", "greedy", "nearest-last", "exact"]
RULES: tuple[Ordering, ...] = get_args(Ordering)

# Held and Karp's table has 2 ** sessions rows.
MOST_FOR_HELD_KARP = 12
# Sets of sessions that are looked at together, each with every session.
_CELLS = 50_000


@dataclass(frozen=True, slots=True)
class Order:
    """`sessions`: the references, first told first; the target follows. `how`: what found it.

    `length` is the way from session to session up to the target.
    """

    sessions: tuple[int, ...]
    how: Literal["as given", "greedy", "held-karp", "nearest neighbour and 2-opt"]
    length: float


def order_sessions(distances: Distances, target: int, *, rule: Ordering) -> Order:
    """Order all sessions but `target`, by their `distances` [sessions, sessions].

    - `none`: as they are given.
    - `greedy`: from the target always to the nearest that is left (IDL's release). What is nearest comes first, and is
      thereby told farthest away from the target.
    - `nearest-last`: the same chain the other way round, the nearest next to the target.
    - `exact`: the shortest path that ends at the target (IDL, section 3.2.2). Up to 12 references it is found (Held and
      Karp 1962), above something near it by nearest neighbour and 2-opt (Croes 1958).

    Ties go to the session that is given first. Raises PersonalignError for another rule or target.
    """
    return order_sessions_of([distances], [target], rule=rule)[0]


def order_sessions_of(tables: Sequence[Distances], targets: Sequence[int], *, rule: Ordering) -> list[Order]:
    """`order_sessions` of many people or targets, those of as many sessions at a time."""
    if rule not in RULES:
        raise PersonalignError(f"ordering: '{rule}' is unknown; write one of {', '.join(RULES)}")
    for distances, target in zip(tables, targets, strict=True):
        if not 0 <= target < len(distances):
            raise PersonalignError(f"ordering: there is no session {target} of {len(distances)}")
    orders: dict[int, Order] = {}
    of_size: dict[int, list[int]] = defaultdict(list)
    for at, (distances, target) in enumerate(zip(tables, targets, strict=True)):
        if rule == "exact" and len(distances) - 1 <= MOST_FOR_HELD_KARP:
            of_size[len(distances)].append(at)
        else:
            orders[at] = _chained(distances, target, rule)
    for size, places in of_size.items():
        step = max(1, _CELLS // (1 << size))
        for start in range(0, len(places), step):
            piece = places[start : start + step]
            paths = _held_karp(
                np.stack([tables[at] for at in piece]), np.array([targets[at] for at in piece])
            )
            for at, path in zip(piece, paths, strict=True):
                orders[at] = _order(tables[at], path, targets[at], "held-karp")
    return [orders[at] for at in range(len(tables))]


def _chained(distances: Distances, target: int, rule: Ordering) -> Order:
    if rule == "none":
        return _order(distances, [at for at in range(len(distances)) if at != target], target, "as given")
    chain = _nearest_neighbours(distances, target)
    if rule == "greedy":
        return _order(distances, chain, target, "greedy")
    if rule == "nearest-last":
        return _order(distances, chain[::-1], target, "greedy")
    improved = _two_opt(distances, [target, *chain])
    return _order(distances, improved[:0:-1], target, "nearest neighbour and 2-opt")


def _order(
    distances: Distances,
    sessions: list[int],
    target: int,
    how: Literal["as given", "greedy", "held-karp", "nearest neighbour and 2-opt"],
) -> Order:
    path = itertools.pairwise([*sessions, target])
    return Order(tuple(sessions), how, float(sum(distances[a, b] for a, b in path)))


def _nearest_neighbours(distances: Distances, start: int) -> list[int]:
    left = [at for at in range(len(distances)) if at != start]
    chain: list[int] = []
    here = start
    while left:
        here = min(left, key=lambda at: distances[here, at])
        left.remove(here)
        chain.append(here)
    return chain


def _two_opt(distances: Distances, path: list[int]) -> list[int]:
    """Turn round stretches of the path, whose first place stays, as long as that makes it shorter."""
    better = True
    while better:
        better = False
        for start, end in itertools.combinations(range(1, len(path)), 2):
            before, first, last = path[start - 1], path[start], path[end]
            gain = distances[before, first] - distances[before, last]
            if end + 1 < len(path):
                gain += distances[last, path[end + 1]] - distances[first, path[end + 1]]
            # More than rounding, or two ways of one length would be exchanged for ever.
            if gain > 1e-9:
                path[start : end + 1] = path[start : end + 1][::-1]
                better = True
    return path


def _held_karp(tables: npt.NDArray[np.float64], targets: npt.NDArray[np.integer]) -> list[list[int]]:
    """The shortest path through all sessions that ends at the target, target left out; of each table.

    The cost of a set is that of the shortest path through it that begins at each of its members and ends at the target.
    """
    people, size, _ = tables.shape
    count = size - 1
    if not count:
        return [[] for _ in range(people)]
    everybody = np.arange(people)
    others = np.array([[at for at in range(size) if at != target] for target in targets])
    between = tables[everybody[:, None, None], others[:, :, None], others[:, None]]
    costs = np.full((1 << count, count, people), np.inf)
    members = np.arange(count)
    costs[1 << members, members] = tables[everybody[:, None], others, targets[:, None]].T
    ways = between.transpose(1, 2, 0).copy()
    for sets, firsts, rests in _sets_by_size(count):
        # The path through the rest, whichever member that begins at, and the way there.
        costs[sets, firsts] = (costs[rests] + ways[firsts]).min(axis=1)
    left = np.full(people, (1 << count) - 1)
    first = costs[left, :, everybody].argmin(axis=1)
    paths = [others[everybody, first]]
    for _ in range(count - 1):
        left ^= 1 << first
        first = (costs[left, :, everybody] + between[everybody, first]).argmin(axis=1)
        paths.append(others[everybody, first])
    found: list[list[int]] = np.stack(paths, axis=1).tolist()
    return found


@functools.cache
def _sets_by_size(
    count: int,
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """For each size from 2: all sets of it as bits, each with every member as the first, and without it."""
    sizes = np.array([number.bit_count() for number in range(1 << count)])
    found = []
    for size in range(2, count + 1):
        sets = np.flatnonzero(sizes == size)
        rows, firsts = np.nonzero(sets[:, None] >> np.arange(count) & 1)
        found.append((sets[rows], firsts, sets[rows] ^ (1 << firsts)))
    return found
