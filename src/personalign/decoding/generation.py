"""Growing leaves into replies: greedy, sampling, beam search."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from personalign.decoding.forest import Forest, Leaf
from personalign.errors import PersonalignError

DecodingStrategy = Literal["greedy", "sample", "beam"]
STRATEGIES: tuple[DecodingStrategy, ...] = ("greedy", "sample", "beam")


@dataclass(frozen=True, slots=True)
class DecodingSettings:
    """How replies are decoded. Greedy is the paper's (PAL, section 3.4); its released scripts use beam 3 or sampling.

    `temperature`, `top_k` and `top_p` hold for sampling, `beams` and `length_penalty` for beam search.
    Raises PersonalignError for a value that cannot work.
    """

    strategy: DecodingStrategy = "greedy"
    max_new_tokens: int = 40
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    beams: int = 3
    length_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require("strategy", self.strategy, self.strategy in STRATEGIES, f"one of {', '.join(STRATEGIES)}")
        _require("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more")
        _require(
            "temperature", self.temperature, self.temperature > 0, "a number above 0, or use strategy greedy"
        )
        _require("top_k", self.top_k, self.top_k >= 0, "1 or more, or 0 for all tokens")
        _require("top_p", self.top_p, 0 < self.top_p <= 1, "a share above 0, up to 1")
        _require("beams", self.beams, self.beams >= 1, "1 or more")


def _require(field: str, value: object, fits: bool, wanted: str) -> None:
    if not fits:
        raise PersonalignError(f"decoding: {field} is {value!r}; write {wanted}")


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
    consume: bool = False,
) -> list[Grown]:
    """Continue every leaf until an end token or `max_new_tokens`; results in the order of `leaves`.

    `keys` name the leaves for sampling: a leaf's draws depend on the seed and its key alone, so that a reply is
    the same in any batch. `stream(leaf, token)` is called for every token of greedy and sampled replies as it comes.
    With `consume` the forest is not used afterwards: what the leaves do not need is dropped, as they end.
    Raises PersonalignError where prompt and new tokens together could be longer than the model allows.
    """
    forest.require_length(max((leaf.position for leaf in leaves), default=0) + settings.max_new_tokens)
    if consume:
        forest.keep_seen(leaves)
    if settings.strategy == "beam":
        return _beam_search(forest, leaves, settings=settings, end_ids=frozenset(end_ids))
    ends = frozenset(end_ids)
    pick = (
        sampler(settings, keys or [str(i) for i in range(len(leaves))])
        if settings.strategy == "sample"
        else _best
    )
    grown: list[list[int]] = [[] for _ in leaves]
    ended = [False] * len(leaves)
    active = list(range(len(leaves)))
    held = len(leaves)
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
        if consume and active and 2 * len(active) <= held:
            forest.keep_seen([leaves[index] for index in active])
            held = len(active)
    return [Grown(tokens, end) for tokens, end in zip(grown, ended, strict=True)]


def _best(logits: Tensor, active: Sequence[int]) -> list[int]:
    best: list[int] = logits.argmax(dim=-1).tolist()
    return best


def sampler(settings: DecodingSettings, keys: Sequence[str]) -> Callable[[Tensor, Sequence[int]], list[int]]:
    """Draws the next tokens of the replies whose indices into `keys` are given, from logits [replies, vocabulary].

    Temperature first, then top-k, then top-p, as in transformers.
    """
    generators = [np.random.default_rng((settings.seed, zlib.crc32(key.encode()))) for key in keys]

    def draw(logits: Tensor, active: Sequence[int]) -> list[int]:
        probabilities = _restricted(logits / settings.temperature, top_k=settings.top_k, top_p=settings.top_p)
        # On the CPU, since not every device has double precision.
        cumulative = probabilities.cpu().double().cumsum(dim=-1)
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


@dataclass(slots=True)
class _Search:
    """The beams of one reply: those that go on, best first, and the best finished ones with their scores."""

    running: list[_Beam]
    finished: list[tuple[float, Grown]]
    done: bool = False


def _beam_search(
    forest: Forest, leaves: Sequence[Leaf], *, settings: DecodingSettings, end_ids: frozenset[int]
) -> list[Grown]:
    """Beam search as transformers' `generate(early_stopping=False)`: the same replies, token for token.

    Beams share their row's cache: a beam that splits copies what it sees, no keys or values move.
    """
    searches = [_Search([_Beam(leaf, 0.0, [])], []) for leaf in leaves]
    for step in range(1, settings.max_new_tokens + 1):
        open_searches = [search for search in searches if not search.done]
        if not open_searches:
            break
        beams = [beam for search in open_searches for beam in search.running]
        log_probs = forest.step([beam.leaf for beam in beams]).log_softmax(dim=-1)
        totals = log_probs + torch.tensor([[beam.score] for beam in beams], device=log_probs.device)
        parts = torch.split(totals, [len(search.running) for search in open_searches])
        for search, mine in zip(open_searches, parts, strict=True):
            _advance(search, mine, step=step, settings=settings, end_ids=end_ids)
    return [max(search.finished, key=lambda item: item[0])[1] for search in searches]


def _advance(
    search: _Search, totals: Tensor, *, step: int, settings: DecodingSettings, end_ids: frozenset[int]
) -> None:
    """One step of one search; `totals` are the scores of every continuation, [beams, vocabulary].

    A continuation that ends counts as finished only among the `beams` best of all, and at the last step each of
    these does. The search is done when its best running beam, at its present length, is below all finished ones.
    """
    width, vocabulary = settings.beams, totals.shape[-1]
    scores, places = totals.flatten().topk(min(totals.numel(), width * (1 + max(1, len(end_ids)))))
    running: list[_Beam] = []
    for rank, (score, place) in enumerate(zip(scores.tolist(), places.tolist(), strict=True)):
        beam, token = search.running[place // vocabulary], place % vocabulary
        ends = token in end_ids
        tokens = beam.tokens if ends else [*beam.tokens, token]
        if rank < width and (ends or step == settings.max_new_tokens):
            search.finished.append((score / step**settings.length_penalty, Grown(tokens, ended=ends)))
        if not ends and len(running) < width:
            running.append(_Beam(beam.leaf.copy(token=token), score, tokens))
    search.running = running
    search.finished = sorted(search.finished, key=lambda item: -item[0])[:width]
    best = running[0].score / step**settings.length_penalty if running else -np.inf
    search.done = not running or (len(search.finished) == width and search.finished[-1][0] >= best)
