"""Small backbones from scratch: learn to copy, then learn the language of the dialogues."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from personalign.errors import PersonalignError
from personalign.models.limits import longest_path

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class CopyWarmup:
    """Copying a persona line into a reply does not emerge by itself in minutes; this exercise makes it.

    A row is `lines` lines of `line_length` random tokens, then `copies` times the same lines in another order, each
    behind a random gap of positions up to `gap`. Given the first token of a repeated line, the rest can be copied.
    Training ends at `accuracy` on those tokens, or after `max_steps`.
    """

    lines: int = 5
    line_length: int = 5
    copies: int = 2
    gap: int = 64
    batch: int = 16
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    accuracy: float = 0.95
    max_steps: int = 1500


@dataclass(frozen=True, slots=True)
class CopyResult:
    steps: int
    accuracy: float
    seconds: float


def copy_warmup(
    model: nn.Module,
    settings: CopyWarmup,
    *,
    token_ids: Sequence[int],
    seed: int,
    progress: Progress | None = None,
) -> CopyResult:
    """Train `model` in place to copy; `token_ids` are the tokens that lines are drawn from."""
    start = time.monotonic()
    settings = _within(settings, longest_path(model.config))
    generator = np.random.default_rng((seed, 0xC0FFEE))
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    vocabulary = np.asarray(token_ids)
    recent: list[float] = []
    model.train()
    step = 0
    for step in range(1, settings.max_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, step / settings.warmup_steps)
        ids, positions, copied = _copy_rows(settings, vocabulary, generator)
        output = model(
            input_ids=torch.from_numpy(ids).to(device), position_ids=torch.from_numpy(positions).to(device)
        )
        # Only the copied tokens can be known; each is predicted from the token before it.
        rows, columns = np.nonzero(copied)
        logits = output.logits[torch.from_numpy(rows), torch.from_numpy(columns - 1)]
        goal = torch.from_numpy(ids[rows, columns]).to(device)
        loss = nn.functional.cross_entropy(logits.float(), goal)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent = [*recent[-9:], float((logits.argmax(-1) == goal).float().mean())]
        accuracy = sum(recent) / len(recent)
        if progress is not None:
            progress(step, settings.max_steps, {"copied": accuracy})
        if len(recent) == 10 and accuracy >= settings.accuracy:
            break
    return CopyResult(steps=step, accuracy=sum(recent) / len(recent), seconds=time.monotonic() - start)


def _within(settings: CopyWarmup, longest: int | None) -> CopyWarmup:
    """With gaps as wide as the model's positions allow."""
    tokens = (1 + settings.copies) * settings.lines * settings.line_length
    if longest is None or tokens + settings.copies * settings.gap <= longest:
        return settings
    if tokens > longest:
        raise PersonalignError(
            f"copying: its rows have {tokens} tokens, but the model takes {longest}; raise "
            "backbone.scratch.max_positions, or leave stages.copying out"
        )
    return replace(settings, gap=(longest - tokens) // settings.copies)


def _copy_rows(
    settings: CopyWarmup, vocabulary: Ids, generator: np.random.Generator
) -> tuple[Ids, Ids, Flags]:
    """Token ids, positions and which tokens can be copied, each [batch, (1 + copies) * lines * line_length]."""
    size = settings.lines * settings.line_length
    lines = generator.choice(vocabulary, size=(settings.batch, settings.lines, settings.line_length))
    rows, positions = [lines.reshape(settings.batch, size)], [np.tile(np.arange(size), (settings.batch, 1))]
    for _ in range(settings.copies):
        order = generator.permuted(np.tile(np.arange(settings.lines), (settings.batch, 1)), axis=1)
        rows.append(np.take_along_axis(lines, order[:, :, None], axis=1).reshape(settings.batch, size))
        gaps = generator.integers(0, settings.gap + 1, size=(settings.batch, 1))
        positions.append(positions[-1][:, -1:] + 1 + gaps + np.arange(size))
    ids = np.concatenate(rows, axis=1)
    copied = np.zeros(ids.shape, dtype=np.bool_)
    copied[:, size:] = np.arange(size * settings.copies) % settings.line_length > 0
    return ids, np.concatenate(positions, axis=1), copied
