"""The cached tree: whatever was computed together, apart or dropped, a leaf continues its own path."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.decoding.small_models import loaded_model
from torch import Tensor

from personalign.decoding.cache import SlotCache
from personalign.decoding.forest import Forest, Leaf
from personalign.models import LoadedModel

_TOKEN = st.integers(4, 20)
_PATHS = st.lists(st.lists(_TOKEN, min_size=2, max_size=12), min_size=1, max_size=4)


def next_logits(loaded: LoadedModel, path: list[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = loaded.model(torch.tensor([path])).logits[0, -1]
    return logits


def continue_leaves(
    loaded: LoadedModel, forest: Forest, leaves: list[Leaf], paths: list[list[int]], *, steps: int
) -> None:
    """Each leaf gets arbitrary tokens of its own; its logits must be those of its path alone."""
    for step in range(steps):
        logits = forest.step(leaves)
        for number, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
            torch.testing.assert_close(logits[number], next_logits(loaded, path), atol=2e-4, rtol=1e-4)
            leaf.token = 4 + (7 * number + 3 * step) % 15
            path.append(leaf.token)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that every tree takes several."""
    monkeypatch.setattr("personalign.decoding.forest.CHUNK", 5)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(_PATHS, min_size=1, max_size=3),
    kind=st.sampled_from(["llama", "gpt2", "gemma-3"]),
    data=st.data(),
)
def test_leaves_see_their_paths_alone(rows: list[list[list[int]]], kind: str, data: st.DataObject) -> None:
    """Some paths are computed first, others later, those of unwanted leaves are dropped in between."""
    loaded = loaded_model(kind)
    forest = Forest(loaded.model, rows=len(rows), plan=loaded.plan, room=8)
    for row, paths in enumerate(rows):
        for path in paths:
            forest.insert(row, path[:-1])
            if data.draw(st.booleans()):
                forest.compute()
    forest.compute()
    named = [(row, path) for row, paths in enumerate(rows) for path in paths]
    wanted = data.draw(st.lists(st.sampled_from(named), min_size=1, max_size=4))
    leaves = [forest.leaf(row, path) for row, path in wanted]
    paths = [list(path) for _, path in wanted]
    if data.draw(st.booleans()):
        forest.keep_seen(leaves)
    continue_leaves(loaded, forest, leaves, paths, steps=2)
    if data.draw(st.booleans()):
        forest.keep_seen(leaves)
    dropped = data.draw(st.integers(0, len(leaves) - 1))
    continue_leaves(loaded, forest, leaves[dropped:], paths[dropped:], steps=2)


def test_a_copied_leaf_goes_its_own_way() -> None:
    loaded = loaded_model("llama")
    forest = Forest(loaded.model, rows=1, plan=loaded.plan)
    forest.insert(0, [5, 6])
    forest.compute()
    leaf = forest.leaf(0, [5, 6, 7])
    forest.step([leaf])
    leaf.token = 8
    twin = leaf.copy(token=9)
    continue_leaves(loaded, forest, [leaf, twin], [[5, 6, 7, 8], [5, 6, 7, 9]], steps=3)


def test_scored_tokens_may_be_asked_for_in_any_order() -> None:
    loaded = loaded_model("llama")
    forest = Forest(loaded.model, rows=2, plan=loaded.plan)
    path = forest.insert(0, [5, 6, 7]).tolist()
    found = forest.compute([[(path[1], 9), (path[2], 8), (path[0], 6), (path[1], 4)], []])
    expected = [
        next_logits(loaded, path).log_softmax(dim=-1)[token]
        for path, token in (([5, 6], 9), ([5, 6, 7], 8), ([5], 6), ([5, 6], 4))
    ]
    torch.testing.assert_close(found[0], torch.stack(expected), atol=1e-4, rtol=1e-4)
    assert len(found[1]) == 0


def test_behind_the_cache_nothing_can_be_scored() -> None:
    loaded = loaded_model("llama")
    forest = Forest(loaded.model, rows=1, plan=loaded.plan)
    forest.insert(0, [5, 6])
    forest.compute()
    path = forest.insert(0, [5, 6, 7])
    with pytest.raises(ValueError, match="behind one that is not in the cache"):
        forest.compute([[(int(path[1]), 7)]])


def test_a_leaf_needs_a_computed_prompt() -> None:
    loaded = loaded_model("llama")
    forest = Forest(loaded.model, rows=1, plan=loaded.plan)
    forest.insert(0, [5, 6])
    with pytest.raises(ValueError, match="not in the cache yet"):
        forest.leaf(0, [5, 6, 7])


def test_a_cache_grows_and_shrinks_without_moving_what_it_keeps() -> None:
    random = torch.Generator().manual_seed(1)
    cache = SlotCache(layers=2, capacity=4)
    whole: list[Tensor] = [torch.zeros(2, 1, 0, 3), torch.zeros(2, 1, 0, 3)]
    for size in (3, 1, 1, 9, 2):
        for layer in range(2):
            new = torch.randn(2, 1, size, 3, generator=random)
            whole[layer] = torch.cat([whole[layer], new], dim=2)
            keys, values = cache.update(new, -new, layer)
            assert torch.equal(keys, whole[layer])
            assert torch.equal(values, -whole[layer])
        assert cache.get_seq_length() == whole[0].shape[2]
    for rows, kept in (([0, 1], [[0, 5, 6], [15, 2, 3]]), ([1], [[2, 0]])):
        cache.keep(torch.tensor(rows), torch.tensor(kept))
        new = torch.randn(len(rows), 1, 2, 3, generator=random)
        for layer in range(2):
            whole[layer] = torch.stack(
                [whole[layer][row][:, slots] for row, slots in zip(rows, kept, strict=True)]
            )
            whole[layer] = torch.cat([whole[layer], new], dim=2)
            keys, _ = cache.update(new, -new, layer)
            assert torch.equal(keys, whole[layer])
