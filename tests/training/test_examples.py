"""Examples grow into trees without loss, and every epoch shows each tree once."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training.made_examples import pairs, supervised

from personalign.training.examples import (
    Example,
    ExampleBatches,
    GrownTree,
    grow,
    one_per_example,
    statistics,
)


def paths_of(trees: list[GrownTree]) -> Counter[tuple[object, ...]]:
    """What the trees hold, read back from their tokens alone."""
    found: Counter[tuple[object, ...]] = Counter()
    for tree in trees:
        tokens = tree.tree.tokens()
        kinds, weights = tree.kinds(), tree.path_weights()
        for branch, kind, weight in zip(tree.tree.branches, kinds, weights, strict=True):
            whole = tree.tree.path(int(branch.scored[-1]))
            prompt = tuple(tokens[[at for at in whole if at not in set(branch.scored.tolist())]].tolist())
            found[kind, prompt, tuple(tokens[branch.scored].tolist()), weight] += 1
    return found


def wanted(examples: list[Example]) -> Counter[tuple[object, ...]]:
    return Counter(
        (path.kind, tuple(path.prompt), tuple(path.target), path.weight)
        for example in examples
        for path in example.paths
    )


@given(seed=st.integers(0, 50), budget=st.sampled_from([1, 25, 60, 10_000]), paired=st.booleans())
def test_trees_hold_the_examples_whatever_the_budget(seed: int, budget: int, paired: bool) -> None:
    examples = pairs(seed=seed) if paired else supervised(seed=seed, trunk=True)
    trees = grow(examples, budget=budget)
    assert paths_of(trees) == wanted(examples)
    assert paths_of(one_per_example(examples)) == wanted(examples)
    # Only what cannot be split may exceed the budget, and no two dialogues share a tree.
    assert all(len(tree) <= budget or len(tree.examples) == 1 for tree in trees)
    assert all(len({example.dialogue for example in tree.examples}) == 1 for tree in trees)


def test_a_dialogue_within_the_budget_is_one_tree_that_shares_its_history() -> None:
    examples = supervised(dialogues=1, turns=3, seed=3)
    assert len(examples) > 1
    (tree,) = grow(examples, budget=10_000)
    sizes = statistics([tree])
    assert sizes.examples == len(examples)
    assert sizes.tree_tokens < sizes.sequence_tokens == sum(len(p) for e in examples for p in e.paths)
    assert sizes.saving == pytest.approx(sizes.sequence_tokens / sizes.tree_tokens)
    assert sizes.supervised_tokens == sum(len(p.target) for e in examples for p in e.paths)
    assert tree.supervised_weight() == pytest.approx(
        sum(len(p.target) * p.weight for e in examples for p in e.paths)
    )


def test_a_split_dialogue_repeats_its_trunk() -> None:
    examples = supervised(dialogues=1, turns=3, seed=3)
    whole, split = grow(examples, budget=10_000), grow(examples, budget=1)
    assert len(split) == len(examples)
    assert statistics(split).dialogues == 1
    assert statistics(split).tree_tokens > statistics(whole).tree_tokens


@given(trees=st.integers(1, 40), examples=st.integers(1, 30), seed=st.integers(0, 3))
def test_every_tree_once_per_epoch(trees: int, examples: int, seed: int) -> None:
    grown = one_per_example(supervised(dialogues=trees, turns=1, seed=seed))
    batches = ExampleBatches(grown, examples=examples, seed=seed)
    epoch = list(batches)
    assert sorted(index for batch in epoch for index in batch) == list(range(trees))
    assert len(batches) == len(epoch) == max(1, min(trees, round(trees / examples)))
    sizes = [len(batch) for batch in epoch]
    assert max(sizes) - min(sizes) <= 1


@given(trees=st.integers(1, 30), ranks=st.integers(1, 5), seed=st.integers(0, 3))
def test_ranks_share_every_batch(trees: int, ranks: int, seed: int) -> None:
    grown = grow(supervised(dialogues=trees, turns=3, seed=seed), budget=60)
    whole = ExampleBatches(grown, examples=12, seed=seed)
    shares = [ExampleBatches(grown, examples=12, seed=seed, rank=rank, ranks=ranks) for rank in range(ranks)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(index for part in parts for index in part) == sorted(batch)
        loads = [sum(len(grown[index]) for index in part) for part in parts]
        assert max(loads) - min(loads) <= max(len(grown[index]) for index in batch)


def test_batches_count_examples_and_not_trees() -> None:
    grown = grow(supervised(dialogues=60, turns=4, seed=1), budget=10_000)
    total = sum(len(tree.examples) for tree in grown)
    assert total > 1.5 * len(grown)
    sizes = [
        sum(len(grown[i].examples) for i in batch) for batch in ExampleBatches(grown, examples=20, seed=0)
    ]
    assert len(sizes) == round(total / 20)
    assert sum(sizes) == total
    assert all(10 <= size <= 30 for size in sizes)


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    grown = one_per_example(supervised(dialogues=30, turns=1))

    def epoch(seed: int, number: int) -> list[list[int]]:
        batches = ExampleBatches(grown, examples=4, seed=seed)
        batches.set_epoch(number)
        return list(batches)

    assert epoch(1, 2) == epoch(1, 2)
    assert epoch(1, 2) != epoch(1, 3)
    assert epoch(1, 2) != epoch(2, 2)
