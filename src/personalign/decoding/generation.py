"""Growing leaves into replies: greedy, sampling, beam search."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from personalign.decoding.forest import Forest, Leaf


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """How replies are decoded. Greedy is the paper's (PAL, section 3.4); its released scripts use beam 3 or sampling.

    `temperature`, `top_k` and `top_p` hold for sampling, `beams` and `length_penalty` for beam search.
    """

    strategy: Literal["greedy", "sample", "beam"] = "greedy"
    max_new_tokens: int = 40
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 3
    length_penalty: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Grown:
    """A finished reply: its tokens without the end token, and whether an end token was reached."""

    tokens: list[int]
    ended: bool


Stream = Callable[[int, int], None]


def generate(
    forest: Forest,
    leaves: Sequence[Leaf],
    *,
    settings: DecodingSettings,
    end_ids: Sequence[int],
    keys: Sequence[str] | None = None,
    stream: Stream | None = None,
) -> list[Grown]:
    """Continue every leaf until an end token or `max_new_tokens`; results in the order of `leaves`.

    `keys` name the leaves for sampling: a leaf's draws depend on the seed and its key alone, so that a reply is
    the same in any batch. `stream(leaf, token)` is called for every token of greedy and sampled replies as it comes.
    """
    if settings.strategy == "beam":
        return _beam_search(forest, leaves, settings=settings, end_ids=frozenset(end_ids))
    ends = frozenset(end_ids)
    pick = _sampler(settings, keys or [str(i) for i in range(len(leaves))]) if settings.strategy == "sample" else _best
    grown: list[list[int]] = [[] for _ in leaves]
    ended = [False] * len(leaves)
    active = list(range(len(leaves)))
    for _ in range(settings.max_new_tokens):
        if not active:
            break
        chosen = pick(forest.step([leaves[index] for index in active]), active)
        remaining = []
        for index, token in zip(active, chosen, strict=True):
            if token in ends:
                ended[index] = True
                continue
            grown[index].append(token)
            leaves[index].token = token
            remaining.append(index)
            if stream is not None:
                stream(index, token)
        active = remaining
    return [Grown(tokens, end) for tokens, end in zip(grown, ended, strict=True)]


def _best(logits: Tensor, active: Sequence[int]) -> list[int]:
    best: list[int] = logits.argmax(dim=-1).tolist()
    return best


def _sampler(settings: DecodingSettings, keys: Sequence[str]) -> Callable[[Tensor, Sequence[int]], list[int]]:
    generators = [np.random.default_rng((settings.seed, zlib.crc32(key.encode()))) for key in keys]

    def draw(logits: Tensor, active: Sequence[int]) -> list[int]:
        probabilities = _restricted(logits / settings.temperature, top_k=settings.top_k, top_p=settings.top_p)
        cumulative = probabilities.double().cumsum(dim=-1).cpu()
        points = torch.tensor([[generators[index].random()] for index in active], dtype=torch.float64)
        # The first token at which the cumulative probability passes the point.
        scaled = points * cumulative[:, -1:]
        drawn: list[int] = torch.searchsorted(cumulative, scaled, right=True).squeeze(1).tolist()
        last = logits.shape[-1] - 1
        return [min(token, last) for token in drawn]

    return draw


def _restricted(logits: Tensor, *, top_k: int, top_p: float) -> Tensor:
    if top_k:
        lowest = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    if top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
        ordered = ordered.masked_fill(before >= top_p, -torch.inf)
        logits = torch.empty_like(logits).scatter(-1, order, ordered)
    return logits.softmax(dim=-1)


@dataclass(slots=True)
class _Beam:
    leaf: Leaf
    score: float
    tokens: list[int]


def _beam_search(
    forest: Forest, leaves: Sequence[Leaf], *, settings: DecodingSettings, end_ids: frozenset[int]
) -> list[Grown]:
    """Beams share their row's cache: a beam that splits copies what it sees, no keys or values move."""
    beams = [[_Beam(leaf, 0.0, [])] for leaf in leaves]
    finished: list[list[tuple[float, list[int]]]] = [[] for _ in leaves]
    done = [False] * len(leaves)
    for step in range(1, settings.max_new_tokens + 1):
        running = [(index, beam) for index, group in enumerate(beams) if not done[index] for beam in group]
        if not running:
            break
        log_probs = forest.step([beam.leaf for _, beam in running]).log_softmax(dim=-1)
        totals = log_probs + torch.tensor([[beam.score] for _, beam in running], device=log_probs.device)
        row = 0
        for index, group in enumerate(beams):
            if done[index]:
                continue
            mine = totals[row : row + len(group)]
            row += len(group)
            beams[index], ended = _split(group, mine, width=settings.beams, end_ids=end_ids)
            penalty = step**settings.length_penalty
            finished[index].extend((score / penalty, tokens) for score, tokens in ended)
            finished[index] = sorted(finished[index], key=lambda item: -item[0])[: settings.beams]
            best_running = beams[index][0].score / penalty if beams[index] else -np.inf
            enough = len(finished[index]) == settings.beams
            done[index] = not beams[index] or (enough and finished[index][-1][0] >= best_running)
    return [
        _winner(ended, group, penalty=settings.max_new_tokens**settings.length_penalty)
        for ended, group in zip(finished, beams, strict=True)
    ]


def _split(
    group: Sequence[_Beam], totals: Tensor, *, width: int, end_ids: frozenset[int]
) -> tuple[list[_Beam], list[tuple[float, list[int]]]]:
    """The `width` best continuations that go on, and those among the `width` best of all that end."""
    vocabulary = totals.shape[-1]
    count = min(totals.numel(), width * (1 + max(1, len(end_ids))))
    scores, flat = totals.flatten().topk(count)
    going: list[_Beam] = []
    ended: list[tuple[float, list[int]]] = []
    for rank, (score, place) in enumerate(zip(scores.tolist(), flat.tolist(), strict=True)):
        beam, token = group[place // vocabulary], place % vocabulary
        if token in end_ids:
            if rank < width:
                ended.append((score, beam.tokens))
        elif len(going) < width:
            leaf = replace(beam.leaf, seen=beam.leaf.seen.clone(), token=token)
            going.append(_Beam(leaf, score, [*beam.tokens, token]))
    return going, ended


def _winner(ended: Sequence[tuple[float, list[int]]], group: Sequence[_Beam], *, penalty: float) -> Grown:
    candidates = [(score, tokens, True) for score, tokens in ended]
    candidates += [(beam.score / penalty, beam.tokens, False) for beam in group]
    _, tokens, end = max(candidates, key=lambda item: item[0])
    return Grown(tokens, end)
