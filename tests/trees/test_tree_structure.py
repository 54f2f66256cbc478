import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.trees.random_trees import TREES, Grown

from personalign.errors import PersonalignError
from personalign.trees import DialogueTree, pack

SEQUENCES = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple), min_size=1, max_size=8, unique=True
)


def seen_by_rule(tree: DialogueTree, query: int, key: int) -> bool:
    """Token `query` sees token `key`: the rule of the documentation, word for word, one pair at a time."""
    node, positions = tree.node_of_token(), tree.positions()
    way = [int(node[query])]
    while tree.nodes[way[-1]].parent >= 0:
        way.append(tree.nodes[way[-1]].parent)
    if node[key] not in way or positions[key] > positions[query]:
        return False
    place = way.index(int(node[key]))
    if place == 0:
        return True
    attachment = tree.nodes[way[place - 1]].depth
    return bool(positions[key] < attachment)


@given(TREES)
def test_visible_is_the_documented_rule(grown: Grown) -> None:
    tree = grown.tree
    expected = [[seen_by_rule(tree, query, key) for key in range(len(tree))] for query in range(len(tree))]
    assert np.array_equal(tree.visible(), np.array(expected))


@given(TREES)
def test_visible_tokens_are_the_path(grown: Grown) -> None:
    tree = grown.tree
    visible, positions, previous = tree.visible(), tree.positions(), tree.predecessors()
    for token in range(len(tree)):
        path = tree.path(token)
        assert sorted(path) == np.flatnonzero(visible[token]).tolist()
        assert positions[path].tolist() == list(range(len(path)))
        assert previous[path].tolist() == [-1, *path[:-1]]


@given(TREES)
def test_paths_hold_the_tokens_that_were_put_in(grown: Grown) -> None:
    tree = grown.tree
    tokens = tree.tokens()
    for branch, path in zip(tree.branches, grown.paths, strict=True):
        assert tuple(tokens[tree.path(int(branch.scored[-1]))]) == path.tokens


@given(TREES)
def test_limits_say_the_same_as_visible(grown: Grown) -> None:
    """`limits` and `start`, from which flex_attention computes the rule, give the same mask."""
    batch = pack([grown.tree])
    node, start, limits = batch.node[0], batch.start[0], batch.limits[0]
    indices = np.arange(len(grown.tree))
    own = node[:, None] == node[None, :]
    reach = (indices - start[node].numpy())[None, :] < limits[node][:, node].numpy()
    seen = np.eye(len(indices), dtype=bool) | (reach & (~own.numpy() | (indices[None] <= indices[:, None])))
    assert np.array_equal(seen, grown.tree.visible())


@given(SEQUENCES, st.randoms(use_true_random=False))
def test_insert_stores_every_beginning_once_in_any_order(sequences: list[tuple[int, ...]], random) -> None:
    shuffled = random.sample(sequences, len(sequences))
    beginnings = {sequence[:end] for sequence in sequences for end in range(1, len(sequence) + 1)}
    for order in (sequences, shuffled):
        tree = DialogueTree()
        places = {sequence: tree.insert(sequence) for sequence in order}
        assert len(tree) == len(beginnings)
        for sequence, place in places.items():
            assert tuple(tree.tokens()[place]) == sequence
            assert np.array_equal(tree.path(int(place[-1])), place)


def test_the_mask_drawn_in_the_guide_is_the_mask() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "trees.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^ .*([a-dxypq])      ((?:[#.] ?)+)$", guide, flags=re.MULTILINE)
    tree = DialogueTree()
    tree.attach([1, 2, 3, 4])
    branch = tree.attach([5, 6], at=2)
    tree.attach([7, 8], parent=branch, at=1)
    assert [name for name, _ in drawn] == list("abcdxypq")
    for (_, row), visible in zip(drawn, tree.visible(), strict=True):
        assert row.split() == ["#" if seen else "." for seen in visible[: len(row.split())]]
        assert not visible[len(row.split()) :].any()


def test_add_scores_the_target_alone() -> None:
    tree = DialogueTree()
    chosen = tree.add([1, 2, 3, 4], [5, 6])
    rejected = tree.add([1, 2, 3, 4], [7, 6])
    assert len(tree) == 8
    assert len(chosen) == 2
    assert tree.tokens()[chosen.scored].tolist() == [5, 6]
    assert tree.tokens()[rejected.scored].tolist() == [7, 6]


def test_a_target_that_lies_in_the_trunk_is_stored_once() -> None:
    tree = DialogueTree()
    tree.add([1, 2, 3, 4], [5, 6])
    gold = tree.add([1, 2], [3, 4])
    assert len(tree) == 6
    assert gold.scored.tolist() == [2, 3]


@pytest.mark.parametrize(("prompt", "target"), [([], [1]), ([1], [])])
def test_a_branch_without_prompt_or_target_is_refused(prompt: list[int], target: list[int]) -> None:
    with pytest.raises(PersonalignError, match="needs a prompt and a target"):
        DialogueTree().add(prompt, target)


def test_impossible_nodes_are_refused() -> None:
    tree = DialogueTree()
    with pytest.raises(ValueError, match="at least one token"):
        tree.attach([])
    tree.attach([1, 2])
    with pytest.raises(ValueError, match="not a node"):
        tree.attach([3], parent=1)
    with pytest.raises(ValueError, match="lies outside"):
        tree.attach([3], at=3)


def test_impossible_branches_are_refused() -> None:
    tree = DialogueTree()
    tree.attach([1, 2, 3])
    child = tree.nodes[tree.attach([4, 5], at=1)]
    with pytest.raises(ValueError, match="no predecessor"):
        tree.score_tokens([0, 1])
    with pytest.raises(ValueError, match="one path"):
        tree.score_tokens([2, child.start])  # token 2 lies beyond the place where the child hangs
    with pytest.raises(ValueError, match="one path"):
        tree.score_tokens([2, 1])
    with pytest.raises(ValueError, match="at least one token"):
        tree.score_tokens([])
