"""The dialogue tree: token sequences that share beginnings, each shared part stored once.

    trunk     persona . turn 1 . turn 2 . turn 3 ...
                             |        |
    branches                 |        +-- reply cue . gold reply
                             |        +-- reply cue . rejected reply
                             +-- select cue . persona line
                                              +-- reply cue . gold reply

A node is a run of tokens that hangs off its parent at some offset into the parent's tokens. A token sees
its own node up to itself, and every ancestor up to the offset at which the path leaves it. Hence the
log-probability of a token depends on nothing but its path, and equals that of the path run alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from personalign.errors import PersonalignError

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

ROOT = 0


@dataclass(frozen=True, slots=True)
class Node:
    """A run of tokens. `attach` counts the parent's tokens that it sees; `depth` is its first position."""

    parent: int
    attach: int
    start: int
    length: int
    depth: int


@dataclass(frozen=True, slots=True)
class Branch:
    """The scored tokens of one path, as indices into the tree's tokens, in the order of the path."""

    scored: IntArray

    def __len__(self) -> int:
        return len(self.scored)


class DialogueTree:
    """Nodes of tokens, and the branches whose log-probabilities are wanted.

    Example: the persona and the first turn are shared, both replies are scored.

        tree = DialogueTree()
        chosen = tree.add([1, 2, 3, 4], [5, 6])
        rejected = tree.add([1, 2, 3, 4], [7, 6])
        len(tree)  # 8 tokens instead of 12
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.branches: list[Branch] = []
        self._tokens: list[IntArray] = []
        self._values: list[list[int]] = []
        self._children: list[list[int]] = []
        self._length = 0

    def __len__(self) -> int:
        """The number of tokens that the tree stores."""
        return self._length

    @classmethod
    def join(cls, trees: "Iterable[DialogueTree]") -> "DialogueTree":
        """Several trees as one, in which none sees another; branches in order."""
        forest = cls()
        for tree in trees:
            nodes, tokens = len(forest.nodes), len(forest)
            for node, values in zip(tree.nodes, tree._values, strict=True):
                parent = ROOT if node.parent < 0 else nodes + node.parent
                forest.attach(values, parent=parent, at=node.attach)
            forest.branches.extend(Branch(branch.scored + tokens) for branch in tree.branches)
        return forest

    def attach(self, tokens: Sequence[int], *, parent: int = ROOT, at: int = 0) -> int:
        """Hang a node off the first `at` tokens of `parent`; return the node's index.

        The first node has no parent. A node with `at=0` on the root shares nothing with it. Raises ValueError
        for an empty node, an unknown parent or an offset outside it.
        """
        if not tokens:
            raise ValueError("a node needs at least one token")
        if not self.nodes:
            node = Node(parent=-1, attach=0, start=0, length=len(tokens), depth=0)
        else:
            if not 0 <= parent < len(self.nodes):
                raise ValueError(f"parent {parent} is not a node: the tree has {len(self.nodes)}")
            above = self.nodes[parent]
            if not 0 <= at <= above.length:
                raise ValueError(f"offset {at} lies outside node {parent}, which has {above.length} tokens")
            node = Node(parent, at, self._length, len(tokens), above.depth + at)
            self._children[parent].append(len(self.nodes))
        self.nodes.append(node)
        self._values.append(list(tokens))
        self._tokens.append(np.asarray(tokens, dtype=np.int64))
        self._children.append([])
        self._length += len(tokens)
        return len(self.nodes) - 1

    def insert(self, tokens: Sequence[int]) -> IntArray:
        """Store a sequence, sharing every beginning that the tree has already; return its token indices.

        Insert long histories before short ones: the trunk then is one node.
        """
        tokens = list(tokens)
        if not self.nodes:
            self.attach(tokens)
            return np.arange(len(tokens), dtype=np.int64)
        node, offset, taken, path = ROOT, 0, 0, list[IntArray]()
        while True:
            shared = _shared_prefix(self._values[node], offset, tokens, taken)
            if shared:
                start = self.nodes[node].start + offset
                path.append(np.arange(start, start + shared, dtype=np.int64))
                offset, taken = offset + shared, taken + shared
            if taken == len(tokens):
                return np.concatenate(path)
            child = self._child(node, offset, tokens[taken])
            if child is None:
                rest = tokens[taken:]
                created = self.nodes[self.attach(rest, parent=node, at=offset)]
                path.append(np.arange(created.start, created.start + len(rest), dtype=np.int64))
                return np.concatenate(path)
            node, offset = child, 0

    def add(self, prompt: Sequence[int], target: Sequence[int]) -> Branch:
        """Store `prompt + target` and score the target's tokens.

        Raises PersonalignError for an empty prompt or target: a first token has nothing to be predicted from.
        """
        if not prompt or not target:
            raise PersonalignError(
                f"a branch needs a prompt and a target, but was given {len(prompt)} prompt tokens and "
                f"{len(target)} target tokens; check the template and the reply of this turn"
            )
        path = self.insert([*prompt, *target])
        branch = Branch(path[len(prompt) :])
        self.branches.append(branch)
        return branch

    def score_tokens(self, indices: Sequence[int]) -> Branch:
        """Score tokens that are stored already, given by index in the order of their path.

        Raises ValueError for no tokens, for tokens that do not lie on one path in that order, and for the
        first token of a path.
        """
        if not len(indices):
            raise ValueError("a branch needs at least one token to score")
        branch = Branch(np.asarray(indices, dtype=np.int64))
        path = self.path(int(branch.scored[-1]))
        if not np.array_equal(path[np.isin(path, branch.scored)], branch.scored):
            raise ValueError(f"the tokens {list(indices)} do not lie on one path in this order")
        if branch.scored[0] == path[0]:
            raise ValueError("the first token of a path has no predecessor to be scored from")
        self.branches.append(branch)
        return branch

    def tokens(self) -> IntArray:
        """Token ids, shape [tokens]."""
        return np.concatenate(self._tokens) if self._tokens else np.zeros(0, dtype=np.int64)

    def positions(self) -> IntArray:
        """Positions along each token's path, shape [tokens]."""
        if not self.nodes:
            return np.zeros(0, dtype=np.int64)
        return np.concatenate(
            [np.arange(node.depth, node.depth + node.length, dtype=np.int64) for node in self.nodes]
        )

    def node_of_token(self) -> IntArray:
        """Index of the node of each token, shape [tokens]."""
        return np.repeat(np.arange(len(self.nodes), dtype=np.int64), [node.length for node in self.nodes])

    def predecessors(self) -> IntArray:
        """Index of the token before each token on its path, -1 for the first; shape [tokens]."""
        previous = np.arange(-1, len(self) - 1, dtype=np.int64)
        for node in self.nodes:
            previous[node.start] = self._token_before(node)
        return previous

    def path(self, token: int) -> IntArray:
        """Indices of the tokens from the first of the path up to and including `token`."""
        index = int(np.searchsorted([node.start for node in self.nodes], token, side="right")) - 1
        node, end = self.nodes[index], token + 1
        parts = []
        while True:
            parts.append(np.arange(node.start, end, dtype=np.int64))
            if node.parent < 0:
                return np.concatenate(parts[::-1])
            end = self.nodes[node.parent].start + node.attach
            node = self.nodes[node.parent]

    def limits(self) -> IntArray:
        """How far each node sees into each other one, shape [nodes, nodes].

        `limits[n, m]` counts the tokens of m that n's tokens see: m's length for n = m (causally), the offset
        at which the path leaves m for an ancestor, 0 otherwise.
        """
        table = np.zeros((len(self.nodes), len(self.nodes)), dtype=np.int64)
        for index, node in enumerate(self.nodes):
            if node.parent >= 0:
                table[index] = table[node.parent]
                table[index, node.parent] = node.attach
            table[index, index] = node.length
        return table

    def visible(self, *, first: int = 0) -> BoolArray:
        """Which token (row, from `first` on) sees which (column), shape [tokens - first, tokens]."""
        mask = np.zeros((len(self) - first, len(self)), dtype=np.bool_)
        limits = self.limits()
        for index, node in enumerate(self.nodes):
            start, end = max(node.start, first), node.start + node.length
            if start >= end:
                continue
            rows = slice(start - first, end - first)
            for above in np.flatnonzero(limits[index]):
                begin = self.nodes[above].start
                mask[rows, begin : begin + limits[index, above]] = True
            mask[rows, node.start : end] = np.tri(node.length, dtype=np.bool_)[start - node.start :]
        return mask

    def _token_before(self, node: Node) -> int:
        while node.parent >= 0:
            parent = self.nodes[node.parent]
            if node.attach > 0:
                return parent.start + node.attach - 1
            node = parent
        return -1

    def _child(self, node: int, offset: int, token: int) -> int | None:
        for child in self._children[node]:
            if self.nodes[child].attach == offset and self._values[child][0] == token:
                return child
        return None


def _shared_prefix(left: list[int], left_from: int, right: list[int], right_from: int) -> int:
    """How many tokens agree from the two offsets on."""
    low, high = 0, min(len(left) - left_from, len(right) - right_from)
    # Long agreements are the rule: compare slices, which is quick, and halve only where they differ.
    if left[left_from : left_from + high] == right[right_from : right_from + high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        same = left[left_from + low : left_from + middle] == right[right_from + low : right_from + middle]
        low, high = (middle, high) if same else (low, middle)
    return low
