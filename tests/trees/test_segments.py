"""Attention in segments against the whole mask, and the context in which it stands in for sdpa."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trees.random_trees import TREES, Grown, Sprout, alone, grow, tiny_model
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from personalign.models.precision import cpu_multiplies_bf16
from personalign.trees import DialogueTree, pack, score, segments
from personalign.trees.segments import LONGEST, SHORTEST, attending_in, segments_of

few = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
FORESTS = st.lists(TREES, min_size=1, max_size=3)


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of a few tokens, so that small trees have many of them."""
    monkeypatch.setattr(segments, "SHORTEST", 2)
    monkeypatch.setattr(segments, "LONGEST", 4)


def large_tree() -> DialogueTree:
    """A trunk that is cut, branches that are joined, one that is cut and one below another."""
    trunk = tuple(range(2 * LONGEST + 30))
    sprouts = [Sprout(0, share, tuple(range(20))) for share in (0.1, 0.2, 0.5)]
    sprouts += [Sprout(0, 0.8, tuple(range(LONGEST + 5))), Sprout(4, 0.5, tuple(range(SHORTEST + 9)))]
    return grow(trunk, sprouts).tree


def states(batch_rows: int, heads: int, tokens: int, width: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch_rows, heads, tokens, width, generator=generator, dtype=torch.float64)


def test_segments_cover_every_row_once_and_hold_all_that_is_seen() -> None:
    batch = pack([large_tree(), large_tree()])
    found = segments_of(batch.visible, node=batch.node)
    assert len(found) > 2 * 4
    for row in range(2):
        mine = [item for item in found if item.row == row]
        assert [item.first for item in mine] == [0, *(item.last for item in mine[:-1])]
        assert mine[-1].last == batch.visible.shape[1]
        for item in mine:
            keys = [key for start, end in item.keys for key in range(start, end)]
            seen = batch.visible[row, item.first : item.last]
            assert set(keys) == set(seen.any(0).nonzero().flatten().tolist())
            assert torch.equal(item.mask[0] == 0, seen[:, keys])
    work = sum((item.last - item.first) * item.mask.shape[-1] for item in found)
    assert work < 0.75 * batch.visible.numel()


@pytest.mark.parametrize("key_heads", [4, 2])
def test_the_same_sums_and_gradients_as_with_the_whole_mask(key_heads: int) -> None:
    batch = pack([large_tree(), grow((1, 2, 3), [Sprout(0, 0.5, (4, 5))]).tree])
    mask = batch.visible[:, None]
    rows, tokens = batch.input_ids.shape
    query = states(rows, 4, tokens, 8, seed=1).requires_grad_()
    key, value = (states(rows, key_heads, tokens, 8, seed=seed).requires_grad_() for seed in (2, 3))
    module = nn.Module()
    module.num_key_value_groups = 4 // key_heads  # type: ignore[assignment]
    weights = states(rows, tokens, 4, 8, seed=4)
    results = []
    for own in (False, True):
        for tensor in (query, key, value):
            tensor.grad = None
        with attending_in(segments_of(batch.visible, node=batch.node) if own else [], mask=mask):
            usual = mask if own else mask.clone()  # another mask is none of ours
            output, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, usual, scaling=0.3)
        (output * weights).sum().backward()
        results.append([output.detach(), *(tensor.grad for tensor in (query, key, value))])
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.skipif(not cpu_multiplies_bf16(), reason="this CPU has no instructions for bf16")
@pytest.mark.parametrize("key_heads", [4, 2])
def test_gradients_under_bf16_autocast_are_those_of_the_whole_mask(key_heads: int) -> None:
    batch = pack([large_tree(), grow((1, 2, 3), [Sprout(0, 0.5, (4, 5))]).tree])
    mask = batch.visible[:, None]
    rows, tokens = batch.input_ids.shape
    module = nn.Module()
    module.num_key_value_groups = 4 // key_heads  # type: ignore[assignment]
    heads = (4, key_heads, key_heads)
    weights = states(rows, tokens, 4, 8, seed=4).float()
    results = []
    for own in (False, True):
        inputs = [
            states(rows, count, tokens, 8, seed=seed).float().requires_grad_()
            for seed, count in enumerate(heads, start=1)
        ]
        with (
            attending_in(segments_of(batch.visible, node=batch.node) if own else [], mask=mask),
            torch.autocast("cpu", dtype=torch.bfloat16),
        ):
            usual = mask if own else mask.clone()
            output, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *inputs, usual, scaling=0.3)
        assert output.dtype == torch.bfloat16
        (output.float() * weights).sum().backward()
        results.append([output.detach(), *(tensor.grad for tensor in inputs)])
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert ours is not None
        assert theirs is not None
        # bf16 keeps three digits.
        torch.testing.assert_close(ours, theirs, atol=0.02 * float(theirs.abs().max()), rtol=0)


@pytest.mark.parametrize("shape", ["llama", "qwen2", "gpt2"])
@few
@given(grown=FORESTS)
def test_small_segments_score_as_separate_paths(short_segments: None, shape: str, grown: list[Grown]) -> None:
    model = tiny_model(shape)
    scored = score(model, [item.tree for item in grown])
    for item, branches in zip(grown, scored, strict=True):
        for path, branch in zip(item.paths, branches, strict=True):
            torch.testing.assert_close(branch, alone(model, path).detach(), atol=1e-5, rtol=0)


def test_the_usual_attention_is_back_afterwards_even_after_an_error() -> None:
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    mask = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    with attending_in([], mask=mask):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before
    with pytest.raises(ZeroDivisionError), attending_in([], mask=mask):
        raise ZeroDivisionError
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


@few
@given(grown=FORESTS)
def test_joined_trees_stay_strangers_and_keep_their_branches(grown: list[Grown]) -> None:
    joined = pack([DialogueTree.join(item.tree for item in grown)])
    apart = pack([item.tree for item in grown])
    assert torch.equal(joined.targets, apart.targets)
    assert torch.equal(joined.branch, apart.branch)
    at = 0
    for row, item in enumerate(grown):
        size = len(item.tree)
        own = joined.visible[0, at : at + size]
        assert torch.equal(own[:, at : at + size], apart.visible[row, :size, :size])
        assert int(own.sum()) == int(own[:, at : at + size].sum())
        assert torch.equal(joined.position_ids[0, at : at + size], apart.position_ids[row, :size])
        at += size
    assert at == joined.input_ids.shape[1]
