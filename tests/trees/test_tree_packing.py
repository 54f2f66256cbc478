import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.trees.random_trees import TREES, Grown

from personalign.trees import DialogueTree, batches_under, pack, separate, split


@given(st.lists(TREES, min_size=1, max_size=3))
def test_rows_predict_targets(grown: list[Grown]) -> None:
    batch = pack([item.tree for item in grown])
    paths = [path for item in grown for path in item.paths]
    ids = batch.input_ids.flatten()
    expected = [(path.tokens[place - 1], path.tokens[place]) for path in paths for place in path.scored]
    assert list(zip(ids[batch.rows].tolist(), batch.targets.tolist(), strict=True)) == expected
    assert batch.branch_lengths().tolist() == [len(path.scored) for path in paths]
    assert batch.longest == max(len(tree.path(token)) for tree in (item.tree for item in grown)
                                for token in range(len(tree)))  # fmt: skip


@given(TREES, TREES)
def test_padding_sees_itself_alone_and_is_seen_by_none(first: Grown, second: Grown) -> None:
    batch = pack([first.tree, second.tree])
    for row, tree in enumerate((first.tree, second.tree)):
        padding = torch.arange(len(tree), batch.input_ids.shape[1])
        assert batch.visible[row].any(dim=-1).all()
        assert torch.equal(batch.visible[row][padding][:, padding], torch.eye(len(padding), dtype=torch.bool))
        assert not batch.visible[row, : len(tree), len(tree) :].any()
        assert not batch.visible[row, len(tree) :, : len(tree)].any()


def test_branch_sums() -> None:
    tree = DialogueTree()
    tree.add([1, 2], [3, 4])
    tree.add([1, 2], [5])
    batch = pack([tree])
    assert batch.branch_sums(torch.tensor([0.5, 1.0, 4.0])).tolist() == [1.5, 4.0]


def test_moving_a_batch_keeps_everything() -> None:
    tree = DialogueTree()
    tree.add([1, 2], [3, 4])
    batch = pack([tree])
    moved = batch.to("cpu")
    assert moved.branches == batch.branches
    assert moved.longest == batch.longest == 4
    assert torch.equal(moved.visible, batch.visible)


def test_there_must_be_a_tree() -> None:
    with pytest.raises(ValueError, match="no tree"):
        pack([])


@given(TREES)
def test_separate_writes_every_path_out(grown: Grown) -> None:
    alone = separate([grown.tree])
    assert [tuple(tree.tokens()) for tree in alone] == [path.tokens for path in grown.paths]
    assert [tuple(tree.branches[0].scored) for tree in alone] == [path.scored for path in grown.paths]


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 100))
def test_batches_stay_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = batches_under(lengths, length=lambda length: length, budget=budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= budget or len(batch) == 1
    longest = [max(lengths[index] for index in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


@given(TREES, st.integers(1, 40))
def test_split_keeps_branches_in_order_and_within_the_budget(grown: Grown, budget: int) -> None:
    parts = split(grown.tree, budget=budget)
    written = [
        (tuple(part.tokens()[(path := part.path(int(branch.scored[-1])))]),
         tuple(np.flatnonzero(np.isin(path, branch.scored))))
        for part in parts
        for branch in part.branches
    ]  # fmt: skip
    assert written == [(path.tokens, path.scored) for path in grown.paths]
    assert all(len(part) <= budget or len(part.branches) == 1 for part in parts)


def test_a_tree_that_fits_is_not_split() -> None:
    tree = DialogueTree()
    tree.add([1, 2], [3])
    assert split(tree, budget=3) == [tree]


def test_a_split_tree_repeats_the_trunk_as_rarely_as_the_budget_allows() -> None:
    tree = DialogueTree()
    for reply in range(4):
        tree.add(list(range(10)), [20 + reply] * 5)
    assert [len(part) for part in split(tree, budget=20)] == [20, 20]
    assert [len(part) for part in split(tree, budget=19)] == [15, 15, 15, 15]
    assert [len(part) for part in split(tree, budget=25)] == [25, 15]
