"""Which sessions of a person are learnt from together (static persona identification)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from personalign.data.people import ENOUGH_TO_CLUSTER
from personalign.errors import PersonalignError

Clusterer = Literal["kmeans", "dbscan", "mean-shift", "ward", "birch"]
CLUSTERERS: tuple[Clusterer, ...] = get_args(Clusterer)
Identification = Literal["paper", "release", "every"]
RULES: tuple[Identification, ...] = get_args(Identification)

# IDL, appendix A.2.
CLUSTERS, NEIGHBOURS = 3, 5
# Of unit vectors 0.8 is a cosine of 0.68: sessions of one topic.
_NEAR = 0.8


@dataclass(frozen=True, slots=True)
class Sample:
    """One session to be continued, and those that are told before it, the nearest first; numbers of sessions."""

    target: int
    references: tuple[int, ...]


def cluster(
    vectors: npt.NDArray[np.floating],
    *,
    clusterer: Clusterer = "kmeans",
    clusters: int = CLUSTERS,
    seed: int = 0,
) -> npt.NDArray[np.int64]:
    """The cluster of each session, int64 [sessions], from its unit vector [sessions, width].

    People of fewer than six sessions are one cluster (IDL's release). k-means is the paper's; DBSCAN, mean shift, Ward
    and BIRCH are those of its footnote 3. DBSCAN and mean shift find the number of clusters themselves; a session that
    DBSCAN calls noise is a cluster of its own. Raises PersonalignError for another clusterer.
    """
    if clusterer not in CLUSTERERS:
        raise PersonalignError(f"clusterer '{clusterer}' is unknown; write one of {', '.join(CLUSTERERS)}")
    if len(vectors) < ENOUGH_TO_CLUSTER or clusters < 2:
        return np.zeros(len(vectors), dtype=np.int64)
    labels = np.asarray(
        _clusterer(clusterer, min(clusters, len(vectors)), seed).fit_predict(vectors), dtype=np.int64
    )
    noise = np.flatnonzero(labels < 0)
    labels[noise] = labels.max() + 1 + np.arange(len(noise))
    return labels


def _clusterer(name: Clusterer, clusters: int, seed: int) -> Any:
    from sklearn import cluster as algorithms

    match name:
        case "kmeans":
            return algorithms.KMeans(clusters, n_init=10, random_state=seed)
        case "dbscan":
            return algorithms.DBSCAN(eps=_NEAR, min_samples=2)
        case "mean-shift":
            return algorithms.MeanShift(bandwidth=_NEAR)
        case "ward":
            return algorithms.AgglomerativeClustering(clusters, linkage="ward")
        case _:
            return algorithms.Birch(n_clusters=clusters, threshold=_NEAR / 2)


def identify(
    vectors: npt.NDArray[np.floating],
    labels: Sequence[int] | npt.NDArray[np.integer],
    *,
    rule: Identification,
    neighbours: int = NEIGHBOURS,
    seed: int = 0,
) -> list[Sample]:
    """What is learnt from a person with these sessions and clusters.

    - `paper`: of each cluster a random session, after the nearest `neighbours` others of the cluster (IDL, 3.2.1).
    - `release`: the last session after all others, whatever their cluster.
    - `every`: each session once, after the nearest others of its cluster: the paper's rule with all its targets. One
      that is alone in its cluster comes after the nearest of any, so that nothing that was said is lost.

    Under `paper` clusters of one session give nothing. Nearness is the vectors' cosine; ties go to the earlier session.
    Raises PersonalignError for another rule.
    """
    if rule not in RULES:
        raise PersonalignError(f"rule '{rule}' is unknown; write one of {', '.join(RULES)}")
    count = len(vectors)
    if rule == "release":
        last = count - 1
        return [Sample(last, nearest(vectors, last, range(last), count))] if count > 1 else []
    labels = np.asarray(labels)
    groups = [np.flatnonzero(labels == label).tolist() for label in dict.fromkeys(labels.tolist())]
    rng = random.Random(f"{seed}/identify")
    samples = []
    for group in groups:
        pool = list(range(count)) if rule == "every" and len(group) == 1 else group
        if len(pool) < 2:
            continue
        for target in group if rule == "every" else [rng.choice(group)]:
            others = [at for at in pool if at != target]
            samples.append(Sample(target, nearest(vectors, target, others, neighbours)))
    return samples


def nearest(
    vectors: npt.NDArray[np.floating], target: int, others: Sequence[int] | range, count: int
) -> tuple[int, ...]:
    """The `count` of `others` whose vectors are nearest to the target's, nearest first."""
    likeness = vectors[list(others)] @ vectors[target]
    order = np.argsort(-likeness, kind="stable")[:count]
    return tuple(int(others[at]) for at in order)
