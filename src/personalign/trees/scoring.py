"""The primitive that everything rests on: log-probabilities of branches, per token."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from personalign.errors import PersonalignError
from personalign.trees.masks import attention_masks
from personalign.trees.packing import PackedBatch, batches_under, pack, separate
from personalign.trees.plan import PACKED, ScoringPlan
from personalign.trees.segments import attending_in, segments_of
from personalign.trees.splitting import split
from personalign.trees.tree import DialogueTree


def token_log_probs(model: nn.Module, batch: PackedBatch, *, plan: ScoringPlan = PACKED) -> Tensor:
    """Log-probability of each scored token given its path, fp32 [S], with gradients where they are enabled.

    The output layer runs on the S predicting positions alone: full-vocabulary logits of other positions are
    never made. Of a packed batch the feed-forward of the last layer does, too: what it makes of other positions
    nobody reads. The log-softmax runs in fp32 whatever the model's dtype.

    Raises PersonalignError for a path beyond `plan.longest`, for a plan made for another attention
    implementation, and for gradients through flex_attention on a CPU.
    """
    _check_length(batch, plan=plan)
    if plan.mode == "packed":
        _check_attention(model, plan=plan)
        mask = attention_masks(batch, plan=plan, dtype=_compute_dtype(model))
        arguments = {"attention_mask": mask, "position_ids": batch.position_ids}
    else:
        # Right padding after a causal path changes nothing before it, so the model's own causal mask serves.
        mask = _not_padding(batch).long()
        arguments = {"attention_mask": mask}
    with (
        _kernels(batch, plan=plan, mask=mask),
        only_rows(model, batch.rows),
        _last_feed_forward_on(model, batch, plan=plan),
    ):
        output = model(input_ids=batch.input_ids, use_cache=False, **arguments)
    logits = output.logits[0].float()
    return -nn.functional.cross_entropy(logits, batch.targets, reduction="none")


def batch_of(model: nn.Module, trees: Sequence[DialogueTree], *, plan: ScoringPlan = PACKED) -> PackedBatch:
    """The trees of one forward pass on the model's device, their branches in order, as the plan has it.

    One tree per row, or one branch per row; where empty parts of the mask cost nothing, all trees in one row
    without padding.
    """
    device = next(model.parameters()).device
    rows = trees if plan.mode == "packed" else separate(trees)
    if _skips_unseen(plan, device):
        rows = [DialogueTree.join(rows)]
    return pack(rows, mask=plan.mode == "packed" and plan.attention != "flex_attention").to(device)


def score(
    model: nn.Module,
    trees: Sequence[DialogueTree],
    *,
    plan: ScoringPlan = PACKED,
    budget: int = 8192,
) -> list[list[Tensor]]:
    """Log-probabilities per tree, branch and scored token, without gradients.

    Result: for each tree, for each of its branches in order, an fp32 tensor [tokens] on the CPU. `budget` is
    the number of tokens of one forward pass, padding included; a tree above it is split.

    Example:
        tree = DialogueTree()
        tree.add(prompt_ids, reply_ids)
        [[log_probs]] = score(model, [tree])
        log_probs.sum()
    """
    packed = plan.mode == "packed"
    rows = [part for tree in trees for part in split(tree, budget=budget)] if packed else separate(trees)
    scored: list[list[Tensor]] = [[] for _ in rows]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            budget = 0 if plan.mode == "single" else budget
            for indices in batches_under(rows, length=len, budget=budget):
                batch = batch_of(model, [rows[index] for index in indices], plan=plan)
                log_probs = token_log_probs(model, batch, plan=plan).cpu()
                parts = iter(torch.split(log_probs, batch.branch_lengths().tolist()))
                for index in indices:
                    scored[index] = [next(parts) for _ in rows[index].branches]
    finally:
        model.train(was_training)
    flat = (log_probs for row in scored for log_probs in row)
    return [[next(flat) for _ in tree.branches] for tree in trees]


def _check_length(batch: PackedBatch, *, plan: ScoringPlan) -> None:
    if plan.longest is not None and batch.longest > plan.longest:
        raise PersonalignError(
            f"a path of {batch.longest} tokens cannot be scored: this model takes {plan.longest} at most; "
            "keep fewer turns of history or use a model with a longer context"
        )


def _check_attention(model: nn.Module, *, plan: ScoringPlan) -> None:
    """One implementation would read the other's mask without complaint, and wrongly."""
    used = extract_model_from_parallel(model, keep_torch_compile=False).config._attn_implementation
    if used != plan.attention:
        raise PersonalignError(
            f"the model runs attention '{used}', but its trees were planned for '{plan.attention}'; "
            f"load the model with attention: {plan.attention}, or make the plan anew"
        )


def _kernels(batch: PackedBatch, *, plan: ScoringPlan, mask: Any) -> contextlib.AbstractContextManager[None]:
    """What a CPU needs beside the masks: sdpa skips what no token sees, flex_attention runs uncompiled."""
    device = batch.input_ids.device
    if plan.attention == "flex_attention" and device.type == "cpu":
        return _uncompiled()
    if plan.attention == "sdpa" and _skips_unseen(plan, device):
        return attending_in(segments_of(mask[:, 0], node=batch.node), mask=mask)
    return contextlib.nullcontext()


def _skips_unseen(plan: ScoringPlan, device: torch.device) -> bool:
    """Whether empty parts of the mask cost nothing: in flex_attention's blocks on a GPU, in our segments on a CPU.

    Segments need one mask for all layers; where layers differ in what they see, each is left to its own.
    """
    if plan.mode != "packed":
        return False
    if plan.attention == "flex_attention":
        return device.type == "cuda"
    return plan.attention == "sdpa" and device.type == "cpu" and not plan.layer_types


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """On a CPU flex_attention has no backward, and with changing lengths its compiled forward fails to build
    (torch 2.13 writes C++ that the compiler rejects): there it runs uncompiled, without gradients."""
    if torch.is_grad_enabled():
        raise PersonalignError(
            "flex_attention cannot train on a CPU: torch has no backward pass for it there; "
            "write attention: sdpa, or train on a GPU"
        )
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        yield


def _compute_dtype(model: nn.Module) -> torch.dtype:
    parameter = next(model.parameters())
    if torch.is_autocast_enabled(parameter.device.type):
        return torch.get_autocast_dtype(parameter.device.type)
    return parameter.dtype


def _not_padding(batch: PackedBatch) -> Tensor:
    return batch.node != batch.limits.shape[1] - 1


@contextlib.contextmanager
def only_rows(model: nn.Module, rows: Tensor) -> Iterator[None]:
    """Let the output layer see the given positions alone, as a batch of one: [B, L, H] -> [1, S, H]."""
    head = _output_layer(model)

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = arguments[0]
        return (hidden.flatten(0, 1)[rows].unsqueeze(0), *arguments[1:])

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _last_feed_forward_on(model: nn.Module, batch: PackedBatch, *, plan: ScoringPlan) -> Iterator[None]:
    """Let the last layer's feed-forward see predicting positions alone; elsewhere it gives zeros, which nothing reads.

    Paths one by one are what packing is tested against, so they are left as they are.
    """
    layer = _last_feed_forward(model) if plan.mode == "packed" else None
    if layer is None:
        yield
        return
    needed = torch.unique(batch.rows)
    shape = batch.input_ids.shape

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (arguments[0].flatten(0, 1)[needed].unsqueeze(0), *arguments[1:])

    def spread(_: nn.Module, __: Any, output: Any) -> Any:
        # Mixtures of experts may give their router's scores along, which no scoring reads.
        made, *rest = output if isinstance(output, tuple) else (output,)
        whole = made.new_zeros(shape.numel(), made.shape[-1]).index_copy(0, needed, made[0]).view(*shape, -1)
        return (whole, *rest) if isinstance(output, tuple) else whole

    handles = [layer.register_forward_pre_hook(keep), layer.register_forward_hook(spread)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_feed_forward(model: nn.Module) -> nn.Module | None:
    """None where there is none of the usual name, or where checkpointing would run it again, without hooks."""
    whole = extract_model_from_parallel(model, keep_torch_compile=False)
    if any(getattr(module, "gradient_checkpointing", False) for module in whole.modules()):
        return None
    found = [module for name, module in whole.named_modules() if name.rpartition(".")[2] == "mlp"]
    return found[-1] if found else None


def _output_layer(model: nn.Module) -> nn.Module:
    """The layer that makes logits, whatever wraps the model (DDP, FSDP, PEFT, torch.compile)."""
    head: nn.Module = extract_model_from_parallel(model, keep_torch_compile=False).get_output_embeddings()
    return head
