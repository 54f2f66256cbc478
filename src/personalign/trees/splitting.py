"""Trees above the token budget, split into trees that repeat the trunk."""

import numpy as np

from personalign.trees.tree import DialogueTree


def split(tree: DialogueTree, *, budget: int) -> list[DialogueTree]:
    """Spread the branches over as few consecutive trees as keep within `budget` tokens each, in order.

    Log-probabilities stay the same and gradients sum to the same, since a branch depends on its path alone. A
    path longer than the budget gets a tree of its own. A tree that fits is returned as it is.
    """
    if len(tree) <= budget:
        return [tree]
    tokens = tree.tokens()
    parts: list[DialogueTree] = []
    stored = np.zeros(len(tree), dtype=np.bool_)
    for branch in tree.branches:
        path = tree.path(int(branch.scored[-1]))
        stored[path] = True
        if not parts or stored.sum() > budget:
            parts.append(DialogueTree())
            stored[:] = False
            stored[path] = True
        placed = parts[-1].insert(tokens[path].tolist())
        parts[-1].score_tokens(placed[np.isin(path, branch.scored)].tolist())
    return parts
