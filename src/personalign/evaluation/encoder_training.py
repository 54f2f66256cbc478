"""What trainings of small encoders share: batches without padding, and the way of the learning rate."""

import random
from collections.abc import Iterator, Sequence

import torch


def batches_of_like_length(
    lengths: Sequence[int], *, size: int, shuffle: random.Random
) -> Iterator[list[int]]:
    """Random batches of rows of like length: sorting within random chunks leaves hardly any padding."""
    order = shuffle.sample(range(len(lengths)), len(lengths))
    chunk = size * 32
    batches = []
    for start in range(0, len(order), chunk):
        like = sorted(order[start : start + chunk], key=lambda index: lengths[index])
        batches += [like[first : first + size] for first in range(0, len(like), size)]
    shuffle.shuffle(batches)
    yield from batches


def warm_up_and_decay(
    optimizer: torch.optim.Optimizer, *, updates: int, warmup_share: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear up over a share of the updates, then linear down to 0 over the rest."""
    warmup = max(1, round(warmup_share * updates))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (updates - step) / max(1, updates - warmup))
    )
