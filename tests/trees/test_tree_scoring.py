"""Packed, split, accumulated and shuffled trees against the paths run alone by the model as it comes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.trees.random_trees import TREES, Grown, Path, Sprout, alone, grow, tiny_model
from torch import Tensor, nn

from personalign.errors import PersonalignError
from personalign.trees import DialogueTree, ScoringPlan, batch_of, pack, score, split, token_log_probs
from personalign.trees.plan import Mode

TOLERANCE = 1e-5
SHAPES = ("llama", "qwen2", "gpt2")
MODELS = {
    (shape, attention): tiny_model(shape, attention=attention)
    for shape in SHAPES
    for attention in ("sdpa", "eager")
}
each_model = pytest.mark.parametrize(("shape", "attention"), MODELS)
each_shape = pytest.mark.parametrize("shape", SHAPES)
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FORESTS = st.lists(TREES, min_size=1, max_size=3)
FIXED_SPROUTS = [
    Sprout(parent=0, share=0.5, tokens=(21, 22, 23, 24)),
    Sprout(parent=1, share=0.5, tokens=(31, 32, 33)),
    Sprout(parent=2, share=1.0, tokens=(41, 42)),
    Sprout(parent=0, share=0.0, tokens=(51, 52, 53, 54, 55)),
    Sprout(parent=0, share=0.8, tokens=(11, 12)),
]


def plan(attention: str) -> ScoringPlan:
    return ScoringPlan(attention=attention)  # type: ignore[arg-type]


def weighted(log_probs: Tensor) -> Tensor:
    """A loss that weighs tokens differently, so that gradients cannot agree by cancelling."""
    return (log_probs * torch.linspace(-1.0, 2.0, len(log_probs))).sum()


def gradients(model: nn.Module) -> list[Tensor]:
    taken = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for parameter in model.parameters()
    ]
    model.zero_grad()
    return taken


def packed_log_probs(model: nn.Module, trees: Sequence[DialogueTree], *, attention: str) -> Tensor:
    return token_log_probs(model, pack(trees), plan=plan(attention))


def assert_same_gradients(left: list[Tensor], right: list[Tensor]) -> None:
    scale = max(1.0, max(float(tensor.abs().max()) for tensor in right))
    for ours, theirs in zip(left, right, strict=True):
        assert float((ours - theirs).abs().max()) <= TOLERANCE * scale


@each_model
@few
@given(grown=FORESTS)
def test_packed_equals_separate(shape: str, attention: str, grown: list[Grown]) -> None:
    model = MODELS[shape, attention]
    expected = torch.cat([alone(model, path) for item in grown for path in item.paths])
    weighted(expected).backward()
    expected_gradients = gradients(model)
    found = packed_log_probs(model, [item.tree for item in grown], attention=attention)
    weighted(found).backward()
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    assert_same_gradients(gradients(model), expected_gradients)


@each_shape
@few
@given(grown=FORESTS)
def test_micro_batches_sum_to_the_whole(shape: str, grown: list[Grown]) -> None:
    model = MODELS[shape, "sdpa"]
    packed_log_probs(model, [item.tree for item in grown], attention="sdpa").sum().backward()
    whole = gradients(model)
    for item in grown:
        packed_log_probs(model, [item.tree], attention="sdpa").sum().backward()
    assert_same_gradients(gradients(model), whole)


@each_shape
@few
@given(grown=TREES, budget=st.integers(4, 30))
def test_split_trees_sum_to_the_whole(shape: str, grown: Grown, budget: int) -> None:
    model = MODELS[shape, "sdpa"]
    whole = packed_log_probs(model, [grown.tree], attention="sdpa")
    whole.sum().backward()
    expected = gradients(model)
    parts = packed_log_probs(model, split(grown.tree, budget=budget), attention="sdpa")
    parts.sum().backward()
    torch.testing.assert_close(parts, whole, atol=TOLERANCE, rtol=0)
    assert_same_gradients(gradients(model), expected)


@each_shape
@few
@given(grown=TREES, random=st.randoms(use_true_random=False))
def test_the_order_of_insertion_does_not_matter(shape: str, grown: Grown, random) -> None:
    model = MODELS[shape, "sdpa"]
    order = random.sample(range(len(grown.paths)), len(grown.paths))
    tree = DialogueTree()
    for index in order:
        path = grown.paths[index]
        tree.add(path.tokens[: path.scored[0]], path.tokens[path.scored[0] :])
    expected = score(model, [grown.tree])[0]
    found = score(model, [tree])[0]
    for place, index in enumerate(order):
        torch.testing.assert_close(found[place], expected[index], atol=TOLERANCE, rtol=0)


@each_shape
@pytest.mark.parametrize("mode", ["packed", "separate", "single"])
@few
@given(grown=FORESTS, budget=st.integers(5, 200))
def test_score_gives_branches_back_in_order(shape: str, mode: str, grown: list[Grown], budget: int) -> None:
    model = MODELS[shape, "sdpa"]
    trees = [item.tree for item in grown]
    found = score(model, trees, plan=ScoringPlan(mode=mode), budget=budget)  # type: ignore[arg-type]
    assert [len(branches) for branches in found] == [len(item.paths) for item in grown]
    with torch.no_grad():
        for branches, item in zip(found, grown, strict=True):
            for log_probs, path in zip(branches, item.paths, strict=True):
                torch.testing.assert_close(log_probs, alone(model, path), atol=TOLERANCE, rtol=0)


@few
@given(grown=TREES, shift=st.integers(1, 59), choice=st.integers(0, 1000), shape=st.sampled_from(SHAPES))
def test_invisible_tokens_change_nothing_and_visible_ones_do(
    grown: Grown, shift: int, choice: int, shape: str
) -> None:
    model = MODELS[shape, "eager"]
    index = choice % len(grown.paths)
    tree = grown.tree
    batch = pack([tree])
    mine = batch.branch == index
    seen = torch.from_numpy(tree.visible()[tree.branches[index].scored].any(axis=0))
    with torch.no_grad():
        before = token_log_probs(model, batch, plan=plan("eager"))[mine]
        changed = (batch.input_ids + shift) % 60
        original = batch.input_ids[0].clone()
        batch.input_ids[0] = torch.where(seen, original, changed[0])
        hidden = token_log_probs(model, batch, plan=plan("eager"))[mine]
        # The first token of the path is seen by every scored token.
        first = int(tree.path(int(tree.branches[index].scored[-1]))[0])
        batch.input_ids[0] = original
        batch.input_ids[0, first] = changed[0, first]
        disturbed = token_log_probs(model, batch, plan=plan("eager"))[mine]
    torch.testing.assert_close(hidden, before, atol=1e-6, rtol=0)
    assert float((disturbed - before).abs().max()) > 1e-4


def test_a_grandchild_does_not_see_the_trunk_below_its_parents_place() -> None:
    """The clause that a rule of "all ancestors up to my position" lacks."""
    model = MODELS["llama", "sdpa"]
    grown = grow((1, 2, 3, 4, 5, 6, 7, 8, 9), [])
    tree = DialogueTree()
    tree.attach(list(grown.paths[0].tokens))
    child = tree.attach([11, 12], at=3)
    grandchild = tree.nodes[tree.attach([13, 14, 15], parent=child, at=2)]
    tree.score_tokens([grandchild.start, grandchild.start + 1, grandchild.start + 2])
    with torch.no_grad():
        expected = alone(model, Path((1, 2, 3, 11, 12, 13, 14, 15), (5, 6, 7)))
    torch.testing.assert_close(score(model, [tree])[0][0], expected, atol=TOLERANCE, rtol=0)


@each_shape
def test_the_output_layer_runs_on_predicting_positions_alone(shape: str) -> None:
    model = MODELS[shape, "sdpa"]
    seen: list[torch.Size] = []
    handle = model.get_output_embeddings().register_forward_hook(
        lambda module, arguments, output: seen.append(output.shape)
    )
    tree = DialogueTree()
    tree.add(list(range(1, 30)), [5, 6, 7])
    score(model, [tree])
    handle.remove()
    assert seen == [torch.Size([1, 3, 60])]


def test_scoring_leaves_no_hook_and_restores_the_training_mode() -> None:
    model = tiny_model("llama").train()
    tree = DialogueTree()
    tree.add([1, 2], [3])
    score(model, [tree])
    assert model.training
    assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 60)


def test_a_path_beyond_the_limit_is_refused() -> None:
    tree = DialogueTree()
    tree.add([1, 2, 3], [4, 5])
    with pytest.raises(PersonalignError, match="5 tokens cannot be scored: this model takes 4"):
        score(MODELS["llama", "sdpa"], [tree], plan=ScoringPlan(longest=4))


def test_a_plan_for_another_attention_is_refused() -> None:
    tree = DialogueTree()
    tree.add([1, 2], [3])
    with pytest.raises(PersonalignError, match=r"runs attention 'eager', but .* planned for 'sdpa'"):
        score(MODELS["llama", "eager"], [tree])


@pytest.mark.parametrize("shape", ["llama", "qwen2"])
def test_flex_attention_forward_on_cpu(shape: str) -> None:
    """Rows of several lengths in a row, because a change of length is what breaks the compiled kernel."""
    model = tiny_model(shape, attention="flex_attention")
    for sprouts in (2, 3, 5):
        grown = grow(tuple(range(1, 20)), [FIXED_SPROUTS[index] for index in range(sprouts)])
        found = score(model, [grown.tree], plan=plan("flex_attention"))[0]
        with torch.no_grad():
            for log_probs, path in zip(found, grown.paths, strict=True):
                expected = alone(MODELS[shape, "eager"], path)
                torch.testing.assert_close(log_probs, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("shape", "activation"), [("llama", "act_fn"), ("gpt2", "act")])
@pytest.mark.parametrize("mode", ["packed", "single"])
def test_the_last_feed_forward_runs_on_predicting_positions_alone(
    shape: str, activation: str, mode: Mode
) -> None:
    model = tiny_model(shape)
    seen: list[int] = []
    for name, module in model.named_modules():
        if name.endswith(f"mlp.{activation}"):
            module.register_forward_hook(lambda *given: seen.append(given[2].shape[1]))
    tree = DialogueTree()
    for target in ([4, 5, 6], [7, 8], [4, 9]):
        tree.add([1, 2, 3], target)
    score(model, [tree], plan=replace(plan("sdpa"), mode=mode))
    # 3 predicts the first token of every target, 4 two second ones.
    assert seen == ([len(tree), 4] if mode == "packed" else [6, 6, 5, 5, 5, 5])


def test_the_last_feed_forward_is_whole_under_checkpointing() -> None:
    model = tiny_model("llama", attention="eager")
    tree = DialogueTree()
    tree.add([1, 2, 3], [4, 5, 6])
    expected = token_log_probs(model, pack([tree]), plan=plan("eager"))
    expected.sum().backward()
    usual = gradients(model)
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model.train()
    found = token_log_probs(model, pack([tree]), plan=plan("eager"))
    found.sum().backward()
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    for ours, theirs in zip(gradients(model), usual, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_flex_attention_does_not_train_on_cpu() -> None:
    tree = DialogueTree()
    tree.add([1, 2], [3])
    model = tiny_model("llama", attention="flex_attention")
    with pytest.raises(PersonalignError, match="flex_attention cannot train on a CPU"):
        token_log_probs(model, pack([tree]), plan=plan("flex_attention"))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", ["llama", "qwen2"])
def test_flex_attention_gradients_on_a_gpu(shape: str) -> None:
    trees = [grow(tuple(1 + i % 50 for i in range(length)), FIXED_SPROUTS).tree for length in (19, 190, 33)]
    results = []
    for attention in ("eager", "flex_attention"):
        # The compiled kernels want heads of 16 dimensions or more.
        model = tiny_model(shape, attention=attention, head_dim=16).cuda()
        batch = batch_of(model, trees, plan=plan(attention))
        # A row per tree, and all trees in one: empty blocks between them cost flex_attention nothing.
        assert len(batch.input_ids) == (1 if attention == "flex_attention" else len(trees))
        found = token_log_probs(model, batch, plan=plan(attention))
        found.sum().backward()
        results.append((found.detach(), gradients(model)))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-4, rtol=0)
    scale = max(float(gradient.abs().max()) for gradient in results[0][1])
    for ours, theirs in zip(results[1][1], results[0][1], strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-3 * max(1.0, scale)
