"""Trees behind a key-value cache: what several prompts share is computed once, and every leaf grows in parallel.

A row of the cache holds one dialogue. All its prompts (one per turn, each with its candidate selections) lie in one
tree; a leaf is a path that is being continued. One forward pass continues the leaves of all rows by a token.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from personalign.decoding.cache import SlotCache
from personalign.errors import PersonalignError
from personalign.trees import DialogueTree, ScoringPlan
from personalign.trees.masks import additive
from personalign.trees.scoring import only_rows
from personalign.trees.tree import BoolArray, IntArray

# New tokens of a row that one forward pass takes: later ones then attend to earlier ones only, which halves the
# work of attention, and masks stay small.
CHUNK = 256


@dataclass(slots=True)
class Leaf:
    """A path that can be continued: the row, the slots that it sees, its next position, and its next input token."""

    row: int
    seen: Tensor
    position: int
    token: int

    def copy(self, *, token: int) -> "Leaf":
        """A leaf that goes on from here on its own, with another next token."""
        return Leaf(self.row, self.seen.clone(), self.position, token)


def require_length(plan: ScoringPlan, tokens: int) -> None:
    """Raise PersonalignError where a path of so many tokens is longer than the model allows."""
    if plan.longest is not None and tokens > plan.longest:
        raise PersonalignError(
            f"a prompt with its reply may come to {tokens} tokens, but this model takes {plan.longest} at most; "
            "lower max_tokens of the prompts or max_new_tokens of the decoding"
        )


class Forest:
    """Trees of B dialogues with the keys and values of their tokens. No gradients."""

    def __init__(self, model: Any, *, rows: int, plan: ScoringPlan, room: int = 256) -> None:
        self._model = model
        self._plan = plan
        self._device = next(model.parameters()).device
        self._cache = SlotCache(layers=model.config.get_text_config().num_hidden_layers, capacity=room)
        self.trees = [DialogueTree() for _ in range(rows)]
        self._slots: list[IntArray] = [np.zeros(0, dtype=np.int64) for _ in range(rows)]
        self._positions = np.zeros((rows, 0), dtype=np.int64)
        self._used = 0

    def require_length(self, tokens: int) -> None:
        """Raise PersonalignError where a path of so many tokens is longer than the model allows."""
        require_length(self._plan, tokens)

    def insert(self, row: int, tokens: Sequence[int]) -> IntArray:
        """Put a sequence into the row's tree; return its token indices. Nothing is computed before `compute`."""
        return self.trees[row].insert(tokens)

    def compute(self, scored: Sequence[Sequence[tuple[int, int]]] | None = None) -> list[Tensor]:
        """Run the model over every token that is not in the cache yet.

        `scored` holds, per row, pairs of a new token's index and the id of a token that may follow it there. The
        result has the log-probabilities of the latter, one fp32 tensor per row, in the order asked for.
        """
        rows = range(len(self.trees))
        known = [len(slots) for slots in self._slots]
        seen = [tree.visible(first=first) for tree, first in zip(self.trees, known, strict=True)]
        pairs = [np.array(row, dtype=np.int64).reshape(-1, 2) for row in scored or [()] * len(rows)]
        if any((pairs[row][:, 0] < known[row]).any() for row in rows):
            raise ValueError("a token can be scored only behind one that is not in the cache yet")
        log_probs = [torch.zeros(len(row)) for row in pairs]
        for begin in range(0, max(map(len, seen)), CHUNK):
            fresh = [
                np.arange(known[row] + begin, known[row] + len(seen[row][: begin + CHUNK])) for row in rows
            ]
            visible = [
                seen[row][begin : begin + CHUNK, : known[row] + begin + len(fresh[row])] for row in rows
            ]
            # Places of the new tokens behind which something is scored, and which of the pairs these are.
            behind = [np.flatnonzero(np.isin(pairs[row][:, 0], fresh[row])) for row in rows]
            places = [pairs[row][behind[row], 0] - known[row] - begin for row in rows]
            targets = [pairs[row][behind[row], 1] for row in rows]
            for row, values in enumerate(self._compute(fresh, visible, places, targets)):
                log_probs[row][torch.from_numpy(behind[row])] = values
        return log_probs

    def _compute(
        self,
        fresh: Sequence[IntArray],
        seen: Sequence[BoolArray],
        places: Sequence[IntArray],
        targets: Sequence[IntArray],
    ) -> list[Tensor]:
        """Run the model over the `fresh` tokens of each row, which see others as `seen` says.

        Returns, per row, the log-probability of each target behind the fresh token at its place.
        """
        rows, width = len(fresh), max(map(len, fresh))
        ids = np.zeros((rows, width), dtype=np.int64)
        positions = np.zeros((rows, width), dtype=np.int64)
        visible = np.zeros((rows, width, self._used + width), dtype=np.bool_)
        diagonal = np.arange(width)
        for row, (tree, new) in enumerate(zip(self.trees, fresh, strict=True)):
            count = len(new)
            ids[row, :count] = tree.tokens()[new]
            positions[row, :count] = tree.positions()[new]
            self._slots[row] = np.concatenate([self._slots[row], self._used + diagonal[:count]])
            # Columns of the mask are slots; the tree's own rule speaks of tokens.
            visible[row, :count, self._slots[row]] = seen[row].T
            # Padding sees itself, so that no softmax is empty.
            visible[row, diagonal[count:], self._used + diagonal[count:]] = True
        # What follows one token is often scored for several branches: its logits are made once.
        flat = np.concatenate([row * width + item for row, item in enumerate(places)])
        predicting, which = np.unique(flat, return_inverse=True)
        picked = torch.from_numpy(predicting if len(flat) else np.zeros(1, dtype=np.int64))
        logits = self._run(ids, positions, torch.from_numpy(visible), rows=picked)
        chosen = logits[torch.from_numpy(which), torch.from_numpy(np.concatenate(targets))]
        log_probs = chosen - logits.logsumexp(dim=-1)[torch.from_numpy(which)]
        return list(torch.split(log_probs.cpu(), [len(item) for item in places]))

    def leaf(self, row: int, prompt: Sequence[int]) -> Leaf:
        """A leaf that continues `prompt`, whose tokens before the last have been computed.

        The last token is the leaf's first input, so that its logits are there whatever the cache held.
        """
        path = self.trees[row].insert(prompt[:-1])
        slots = self._slots[row]
        if len(path) and int(path.max()) >= len(slots):
            raise ValueError("the prompt is not in the cache yet; insert it and call compute first")
        seen = torch.zeros(self._used, dtype=torch.bool)
        seen[torch.from_numpy(slots[path])] = True
        return Leaf(row=row, seen=seen, position=len(prompt) - 1, token=int(prompt[-1]))

    def keep_seen(self, leaves: Sequence[Leaf]) -> None:
        """Drop from the cache what none of the leaves sees, and all trees: these leaves alone can be continued."""
        kept_rows = sorted({leaf.row for leaf in leaves})
        number = {row: index for index, row in enumerate(kept_rows)}
        needed = torch.zeros(len(kept_rows), self._used, dtype=torch.bool)
        for leaf in leaves:
            leaf.row = number[leaf.row]
            leaf.seen = _widened(leaf.seen, self._used)
            needed[leaf.row] |= leaf.seen
        kept = int(needed.sum(dim=1).max())
        # Needed slots first, in order; rows with fewer are filled up with slots that nobody sees.
        order = torch.argsort((~needed).to(torch.int8), dim=1, stable=True)[:, :kept]
        rows = torch.tensor(kept_rows)
        self._cache.keep(rows.to(self._device), order.to(self._device))
        for leaf in leaves:
            leaf.seen = leaf.seen[order[leaf.row]]
        self._used = kept
        self._positions = np.take_along_axis(self._positions[kept_rows], order.numpy(), axis=1)
        self.trees = [DialogueTree() for _ in kept_rows]
        self._slots = [np.zeros(0, dtype=np.int64) for _ in kept_rows]

    def step(self, leaves: Sequence[Leaf]) -> Tensor:
        """Feed each leaf its token; return the logits of what follows, fp32 [leaves, vocabulary].

        Leaves are updated in place, except for their next token, which the caller chooses.
        """
        rows = len(self.trees)
        columns = np.zeros(len(leaves), dtype=np.int64)
        filled = np.zeros(rows, dtype=np.int64)
        for index, leaf in enumerate(leaves):
            columns[index] = filled[leaf.row]
            filled[leaf.row] += 1
        width = int(filled.max())
        at = np.asarray([leaf.row for leaf in leaves])
        ids = np.zeros((rows, width), dtype=np.int64)
        positions = np.zeros((rows, width), dtype=np.int64)
        ids[at, columns] = [leaf.token for leaf in leaves]
        positions[at, columns] = [leaf.position for leaf in leaves]
        visible = torch.zeros(rows, width, self._used + width, dtype=torch.bool)
        visible[:, torch.arange(width), self._used + torch.arange(width)] = True
        stacked = torch.zeros(len(leaves), self._used + width, dtype=torch.bool)
        stacked[:, : self._used] = torch.stack([_widened(leaf.seen, self._used) for leaf in leaves])
        stacked[torch.arange(len(leaves)), self._used + torch.from_numpy(columns)] = True
        visible[torch.from_numpy(at), torch.from_numpy(columns)] = stacked
        logits = self._run(ids, positions, visible, rows=torch.from_numpy(at * width + columns))
        for index, leaf in enumerate(leaves):
            leaf.seen = stacked[index]
            leaf.position += 1
        return logits

    def _run(self, ids: IntArray, positions: IntArray, visible: Tensor, *, rows: Tensor) -> Tensor:
        """Put tokens [rows, width] into the next slots; return the fp32 logits at the given flat places."""
        self.require_length(int(positions.max()) + 1)
        mask = self._masks(visible, positions)
        with torch.no_grad(), only_rows(self._model, rows.to(self._device)), _dense_attention(self._model):
            output = self._model(
                input_ids=torch.from_numpy(ids).to(self._device),
                position_ids=torch.from_numpy(positions).to(self._device),
                attention_mask=mask,
                past_key_values=self._cache,
                use_cache=True,
            )
        self._positions = np.concatenate([self._positions, positions], axis=1)
        self._used += ids.shape[1]
        logits: Tensor = output.logits[0].float()
        return logits

    def _masks(self, visible: Tensor, positions: IntArray) -> object:
        full = self._as_mask(visible)
        if self._plan.window is None and not self._plan.layer_types:
            return full
        window = visible
        if self._plan.window is not None:
            keys = np.concatenate([self._positions, positions], axis=1)
            near = positions[:, :, None] - keys[:, None, :] < self._plan.window
            window = visible & torch.from_numpy(near)
        sliding = self._as_mask(window)
        if not self._plan.layer_types:
            return sliding
        return {kind: sliding if kind == "sliding_attention" else full for kind in self._plan.layer_types}

    def _as_mask(self, visible: Tensor) -> Tensor:
        # Additive for every implementation: from a boolean mask sdpa would make one again in every layer.
        return additive(visible[:, None].to(self._device), dtype=next(self._model.parameters()).dtype)


@contextlib.contextmanager
def _dense_attention(model: Any) -> Iterator[None]:
    """flex_attention compiles a kernel for every new length, which decoding has at every step: sdpa stands in."""
    if model.config._attn_implementation != "flex_attention":
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation("flex_attention")


def _widened(seen: Tensor, width: int) -> Tensor:
    if seen.shape[0] == width:
        return seen
    return torch.cat([seen, seen.new_zeros(width - seen.shape[0])])
