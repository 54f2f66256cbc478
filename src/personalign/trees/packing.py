"""Trees to tensors: one tree per row, padded to the longest; and batches under a token budget."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from personalign.trees.tree import DialogueTree

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Trees of one forward pass, B rows of L tokens.

    - `input_ids`, `position_ids`: int64 [B, L]; padding has id and position 0.
    - `visible`: bool [B, L, L], row sees column; padding sees itself alone, so that no softmax is empty. None
      where no mask was asked for.
    - `rows`: int64 [S], index into B * L of the token from which each scored token is predicted.
    - `targets`: int64 [S], the scored tokens' ids.
    - `branch`: int64 [S], the number of the branch that each scored token belongs to; branches are counted
      through the trees in order.
    - `branches`: number of branches.
    - `longest`: number of tokens of the longest path.
    - `node`, `limits`: node of each token [B, L] and, per row, how far node n sees into node m [B, N, N], for
      attention kernels that compute the rule instead of reading a mask. Padding is a node of its own.
    - `start`: int64 [B, N], index of each node's first token in its row.
    """

    input_ids: Tensor
    position_ids: Tensor
    visible: Tensor | None
    rows: Tensor
    targets: Tensor
    branch: Tensor
    branches: int
    longest: int
    node: Tensor
    limits: Tensor
    start: Tensor

    def to(self, device: torch.device | str) -> "PackedBatch":
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def branch_sums(self, token_log_probs: Tensor) -> Tensor:
        """Sum the scored tokens of each branch: [S] -> [branches]."""
        return token_log_probs.new_zeros(self.branches).index_add(0, self.branch, token_log_probs)

    def branch_lengths(self) -> Tensor:
        """Number of scored tokens of each branch, int64 [branches]."""
        return torch.bincount(self.branch, minlength=self.branches)


def pack(trees: Sequence[DialogueTree], *, mask: bool = True) -> PackedBatch:
    """One tree per row. Without `mask`, for kernels that compute the rule, the L x L of `visible` is never made.

    Raises ValueError when there is nothing to pack.
    """
    if not trees:
        raise ValueError("there is no tree to pack")
    width = max(len(tree) for tree in trees)
    nodes = max(len(tree.nodes) for tree in trees) + 1
    count = len(trees)
    ids = np.zeros((count, width), dtype=np.int64)
    positions = np.zeros((count, width), dtype=np.int64)
    visible = np.zeros((count, width, width), dtype=np.bool_) if mask else None
    node = np.full((count, width), nodes - 1, dtype=np.int64)
    limits = np.zeros((count, nodes, nodes), dtype=np.int64)
    start = np.zeros((count, nodes), dtype=np.int64)
    diagonal = np.arange(width)
    rows, targets, branch, branches = [], [], [], 0
    for row, tree in enumerate(trees):
        length = len(tree)
        ids[row, :length] = tree.tokens()
        positions[row, :length] = tree.positions()
        if visible is not None:
            visible[row, :length, :length] = tree.visible()
            visible[row, diagonal[length:], diagonal[length:]] = True
        node[row, :length] = tree.node_of_token()
        limits[row, : len(tree.nodes), : len(tree.nodes)] = tree.limits()
        start[row, : len(tree.nodes)] = [item.start for item in tree.nodes]
        predecessors = tree.predecessors()
        for item in tree.branches:
            rows.append(row * width + predecessors[item.scored])
            targets.append(ids[row, item.scored])
            branch.append(np.full(len(item), branches, dtype=np.int64))
            branches += 1
    empty = [np.zeros(0, dtype=np.int64)]
    return PackedBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        visible=None if visible is None else torch.from_numpy(visible),
        rows=torch.from_numpy(np.concatenate(rows or empty)),
        targets=torch.from_numpy(np.concatenate(targets or empty)),
        branch=torch.from_numpy(np.concatenate(branch or empty)),
        branches=branches,
        longest=int(positions.max()) + 1,
        node=torch.from_numpy(node),
        limits=torch.from_numpy(limits),
        start=torch.from_numpy(start),
    )


def separate(trees: Iterable[DialogueTree]) -> list[DialogueTree]:
    """Every branch as a tree of its own, in order: what packing must agree with."""
    alone = []
    for tree in trees:
        tokens = tree.tokens()
        for branch in tree.branches:
            path = tree.path(int(branch.scored[-1]))
            single = DialogueTree()
            single.attach(tokens[path].tolist())
            single.score_tokens(np.flatnonzero(np.isin(path, branch.scored)).tolist())
            alone.append(single)
    return alone


def batches_under(items: Sequence[Item], *, length: Callable[[Item], int], budget: int) -> list[list[int]]:
    """Indices of items in batches whose padded size (rows x longest) stays within `budget` tokens.

    Sorted by length, longest first, so that little is padding and the largest batch comes first: what does
    not fit into memory fails at once. An item above the budget gets a batch of its own.
    """
    order = sorted(range(len(items)), key=lambda index: -length(items[index]))
    result: list[list[int]] = []
    for index in order:
        if result and (len(result[-1]) + 1) * length(items[result[-1][0]]) <= budget:
            result[-1].append(index)
        else:
            result.append([index])
    return result
