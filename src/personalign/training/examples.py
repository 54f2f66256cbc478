"""Training examples, and the trees that they grow into."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from personalign.trees import DialogueTree, ScoringPlan, batches_under


@dataclass(frozen=True, slots=True)
class Path:
    """One target behind one prompt, as token ids; `weight` scales its tokens in the nll objective."""

    kind: str
    prompt: Sequence[int]
    target: Sequence[int]
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


@dataclass(frozen=True, slots=True)
class Example:
    """What is learnt from one turn: `selection` and `reply` in supervised stages, `chosen` and `rejected` in DPO."""

    dialogue: str
    turn: int
    paths: tuple[Path, ...]

    @property
    def key(self) -> tuple[str, int]:
        return self.dialogue, self.turn


@dataclass(frozen=True, slots=True)
class GrownTree:
    """A tree with the examples that it holds.

    Branches lie in the order of the examples and, within one, of its paths. `reference` holds the reference
    policy's summed log-probability of each branch, shape [branches], once it is known.
    """

    tree: DialogueTree
    examples: tuple[Example, ...]
    reference: Tensor | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.tree)

    def kinds(self) -> list[str]:
        return [path.kind for example in self.examples for path in example.paths]

    def path_weights(self) -> list[float]:
        return [path.weight for example in self.examples for path in example.paths]

    def supervised_weight(self) -> float:
        """Sum of the weights of the supervised tokens."""
        return sum(path.weight * len(path.target) for example in self.examples for path in example.paths)

    def with_reference(self, reference: Tensor) -> "GrownTree":
        return GrownTree(self.tree, self.examples, reference)

    def apart(self) -> list["GrownTree"]:
        """Each example as a tree of its own, in their order."""
        trees = one_per_example(self.examples)
        if self.reference is None:
            return trees
        parts = torch.split(self.reference, [len(example.paths) for example in self.examples])
        return [tree.with_reference(part) for tree, part in zip(trees, parts, strict=True)]


def micro_batches(trees: Sequence[GrownTree], *, plan: ScoringPlan, budget: int) -> list[list[GrownTree]]:
    """What one forward pass each takes, within `budget` tokens, padding included; the largest first.

    Where the plan has a row for every path, dialogues are taken apart into examples, which stay whole: a pair is compared
    within one pass. An example above the budget gets a pass of its own.
    """
    if plan.mode == "packed":
        return [[trees[index] for index in held] for held in batches_under(trees, length=len, budget=budget)]
    parts = [part for tree in trees for part in tree.apart()]
    batches = batches_under(parts, length=_padded_paths, budget=budget)
    return [[parts[index] for index in held] for held in batches]


def _padded_paths(tree: GrownTree) -> int:
    """Tokens of a row for every path, each as long as the longest."""
    lengths = [len(path) for example in tree.examples for path in example.paths]
    return len(lengths) * max(lengths)


def grow(examples: Iterable[Example], *, budget: int) -> list[GrownTree]:
    """Grow the examples of each dialogue into trees of at most `budget` tokens.

    Examples of one dialogue stand next to each other. A dialogue above the budget is split into trees that repeat
    the trunk; the branches of one example stay together, in a tree above the budget if they must.
    """
    trees: list[GrownTree] = []
    for _, group in groupby(examples, key=lambda example: example.dialogue):
        # Longest histories first: what the later turns' prompts share is then one unbroken trunk.
        ordered = sorted(group, key=lambda item: -max(len(path) for path in item.paths))
        trees.extend(_grow_within(ordered, budget))
    return trees


def _grow_within(examples: Sequence[Example], budget: int) -> list[GrownTree]:
    grown = _grow_one(examples)
    if len(grown) <= budget or len(examples) == 1:
        return [grown]
    middle = len(examples) // 2
    return _grow_within(examples[:middle], budget) + _grow_within(examples[middle:], budget)


def one_per_example(examples: Iterable[Example]) -> list[GrownTree]:
    """Each example as a tree of its own: what batches of whole dialogues are compared with."""
    return [_grow_one([example]) for example in examples]


def _grow_one(examples: Sequence[Example]) -> GrownTree:
    tree = DialogueTree()
    for example in examples:
        for path in example.paths:
            tree.add(path.prompt, path.target)
    return GrownTree(tree, tuple(examples))


@dataclass(frozen=True, slots=True)
class TreeStatistics:
    """What packing saves. `sequence_tokens` is the size of the same examples as one sequence per path."""

    dialogues: int
    examples: int
    trees: int
    tree_tokens: int
    sequence_tokens: int
    supervised_tokens: int

    @property
    def saving(self) -> float:
        return self.sequence_tokens / max(1, self.tree_tokens)


def statistics(trees: Sequence[GrownTree]) -> TreeStatistics:
    examples = [example for tree in trees for example in tree.examples]
    paths = [path for example in examples for path in example.paths]
    return TreeStatistics(
        dialogues=len({example.dialogue for example in examples}),
        examples=len(examples),
        trees=len(trees),
        tree_tokens=sum(len(tree) for tree in trees),
        sequence_tokens=sum(len(path) for path in paths),
        supervised_tokens=sum(len(path.target) for path in paths),
    )


class ExampleBatches:
    """Batches of trees for one optimizer step each, counted in examples: a batch sampler with epochs.

    Every epoch is a fresh shuffle that depends on nothing but the seed and the epoch, so that a resumed run meets the
    same batches. An epoch holds every tree once, in `round(examples in all / examples)` batches of nearly equal
    numbers of trees; a batch has about `examples` examples.

    Of several `ranks`, each gets its share of every batch, about as many tokens as the others, so that a step is the
    same on any number of them. A share may be empty.
    """

    def __init__(
        self, trees: Sequence[GrownTree], *, examples: int, seed: int, rank: int = 0, ranks: int = 1
    ) -> None:
        sizes = [len(tree.examples) for tree in trees]
        self._lengths = [len(tree) for tree in trees]
        self._seed = seed
        self._rank = rank
        self._ranks = ranks
        self._epoch = 0
        self._batches = min(max(1, round(sum(sizes) / examples)), len(trees))

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._lengths))
        for batch in np.array_split(order, self._batches):
            yield self._share(batch.tolist())

    def _share(self, batch: list[int]) -> list[int]:
        if self._ranks == 1:
            return batch
        # The longest first, each to whoever has the least.
        loads, shares = [0] * self._ranks, [list[int]() for _ in range(self._ranks)]
        for index in sorted(batch, key=lambda index: -self._lengths[index]):
            lightest = loads.index(min(loads))
            loads[lightest] += self._lengths[index]
            shares[lightest].append(index)
        return shares[self._rank]
