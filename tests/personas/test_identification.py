"""Clusters of sessions, and which sessions are told before which."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.errors import PersonalignError
from personalign.personas.identification import (
    CLUSTERERS,
    RULES,
    Clusterer,
    Identification,
    Sample,
    cluster,
    identify,
    nearest,
)


def unit(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def three_topics(seed: int = 1) -> np.ndarray:
    """Nine sessions, of each topic every third."""
    rng = np.random.default_rng(seed)
    return unit(np.tile(np.eye(3, 8), (3, 1)) + rng.normal(scale=0.05, size=(9, 8)))


@pytest.mark.parametrize("clusterer", CLUSTERERS)
def test_every_clusterer_finds_three_topics(clusterer: Clusterer) -> None:
    labels = cluster(three_topics(), clusterer=clusterer, seed=3)
    assert [list(labels[at::3]) for at in range(3)] == [[labels[at]] * 3 for at in range(3)]
    assert len(set(labels.tolist())) == 3


def test_few_sessions_are_one_cluster() -> None:
    assert cluster(three_topics()[:5]).tolist() == [0] * 5
    assert len(set(cluster(three_topics()[:6]).tolist())) == 3
    assert cluster(three_topics(), clusters=1).tolist() == [0] * 9
    assert len(set(cluster(three_topics(), clusters=20).tolist())) == 9


def test_what_is_noise_to_dbscan_is_a_cluster_of_its_own() -> None:
    vectors = unit(np.vstack([three_topics(), np.eye(8)[6:7], np.eye(8)[7:8]]))
    labels = cluster(vectors, clusterer="dbscan").tolist()
    assert len(set(labels)) == 5
    assert labels.count(labels[9]) == labels.count(labels[10]) == 1


def test_the_papers_rule_takes_the_nearest_of_the_cluster() -> None:
    vectors = three_topics()
    samples = identify(vectors, cluster(vectors), rule="paper", neighbours=1, seed=2)
    assert len(samples) == 3
    assert {sample.target % 3 for sample in samples} == {0, 1, 2}
    for sample in samples:
        [reference] = sample.references
        others = [at for at in range(9) if at % 3 == sample.target % 3 and at != sample.target]
        assert reference == max(others, key=lambda at: float(vectors[at] @ vectors[sample.target]))
    targets = {
        sample.target
        for seed in range(30)
        for sample in identify(vectors, cluster(vectors), rule="paper", seed=seed)
    }
    assert targets == set(range(9))


def test_the_releases_rule_takes_the_last_after_all_others() -> None:
    vectors = three_topics()
    [sample] = identify(vectors, cluster(vectors), rule="release", neighbours=1)
    assert sample.target == 8
    assert sorted(sample.references) == list(range(8))
    assert identify(vectors[:1], [0], rule="release") == []


def test_every_session_once() -> None:
    vectors = three_topics()
    samples = identify(vectors, cluster(vectors), rule="every")
    assert sorted(sample.target for sample in samples) == list(range(9))
    assert all({at % 3 for at in sample.references} == {sample.target % 3} for sample in samples)
    assert all(len(sample.references) == 2 for sample in samples)


def test_a_session_alone_in_its_cluster_comes_after_the_nearest_of_any() -> None:
    vectors = three_topics()[:3]
    alone = Sample(0, nearest(vectors, 0, [1, 2], 1))
    assert identify(vectors, [0, 1, 1], rule="every", neighbours=1) == [
        alone,
        Sample(1, (2,)),
        Sample(2, (1,)),
    ]
    assert {sample.target for sample in identify(vectors, [0, 1, 1], rule="paper")} < {1, 2}
    assert identify(vectors[:1], [0], rule="every") == []


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 6), st.sampled_from(RULES))
@settings(max_examples=60, deadline=None)
def test_no_target_is_its_own_reference(
    seed: int, sessions: int, neighbours: int, rule: Identification
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(sessions, 4)))
    labels = rng.integers(0, 3, size=sessions)
    for sample in identify(vectors, labels, rule=rule, neighbours=neighbours, seed=seed):
        assert sample.target not in sample.references
        assert len(set(sample.references)) == len(sample.references) > 0
        likeness = [float(vectors[at] @ vectors[sample.target]) for at in sample.references]
        assert likeness == sorted(likeness, reverse=True)
        if rule != "release":
            assert len(sample.references) <= neighbours
            if rule == "paper" or np.count_nonzero(labels == labels[sample.target]) > 1:
                assert {labels[at] for at in sample.references} == {labels[sample.target]}


def test_ties_go_to_the_earlier() -> None:
    vectors = np.ones((4, 1))
    assert nearest(vectors, 3, range(3), 2) == (0, 1)


def test_mistakes_are_named() -> None:
    with pytest.raises(PersonalignError, match="clusterer 'k-means' is unknown; write one of kmeans, dbscan"):
        cluster(three_topics(), clusterer="k-means")  # type: ignore[arg-type]
    with pytest.raises(PersonalignError, match="rule 'all' is unknown; write one of paper, release, every"):
        identify(three_topics(), [0] * 9, rule="all")  # type: ignore[arg-type]
