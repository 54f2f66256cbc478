"""The network of the trained selector, and what it sees of a turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from personalign.data.dialogue import Dialogue
from personalign.evaluation.tokens import Language
from personalign.labels.labeller import WORDS_THRESHOLD, WORDS_WEIGHT
from personalign.labels.overlap import overlap

# The partner's last message, the one before it, and the speaker's own last message.
CONTEXTS = 3
LINE_FEATURES = 23
TURN_FEATURES = 4
_RANK = 32
_HIDDEN = 64
_DROPOUT = 0.2
_FADING = 0.7
"""How much less a message counts than the partner's next one."""
_LONG_AGO = 10

Floats = npt.NDArray[np.float32]
Vectors = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class TurnView:
    """What the network sees of one turn with L persona lines; embeddings have the width W.

    context: [CONTEXTS, W], zeros where there is no such message; lines: [L, W]; line_features: [L, LINE_FEATURES];
    turn_features: [TURN_FEATURES].
    """

    context: torch.Tensor
    lines: torch.Tensor
    line_features: torch.Tensor
    turn_features: torch.Tensor


def view_of(
    dialogue: Dialogue, turn: int, vectors: Vectors, *, weights: Mapping[str, float], language: Language
) -> TurnView:
    """Reads the lines, and of the messages those before the turn; `weights` are words' inverse document frequencies."""
    said = dialogue.said("user", before=turn)
    told = dialogue.said(before=turn)
    lines = np.stack([vectors[line] for line in dialogue.persona])
    context = np.zeros((CONTEXTS, lines.shape[1]), dtype=np.float32)
    for place, texts in enumerate((said[-1:], said[-2:-1], told[-1:])):
        if texts:
            context[place] = vectors[texts[0]]

    def shared(texts: Sequence[str]) -> Floats:
        table = [
            [overlap(line, text, weights=weights, language=language) for text in texts or [""]]
            for line in dialogue.persona
        ]
        return np.array(table, dtype=np.float32)

    near, asked, stated = lines @ context.T, _nearness(lines, said, vectors), _nearness(lines, told, vectors)
    words = shared(said)
    # A line counts as told where the labeller would have labelled an earlier message with it.
    tellings = stated + WORDS_WEIGHT * shared(told)
    is_told = tellings >= WORDS_THRESHOLD
    telling = tellings.max(axis=1)
    alike = lines @ lines.T - np.eye(len(lines), dtype=np.float32)
    last, count = near[:, 0], len(lines)
    columns = [
        *near.T,
        last - last.max(),
        last - last.mean(),
        _ranks(last),
        asked.max(axis=1),
        asked @ _fading(asked.shape[1]),
        words[:, -1],
        words.max(axis=1),
        stated.max(axis=1),
        stated.mean(axis=1),
        telling,
        telling - telling.mean(),
        _ranks(telling),
        is_told.any(axis=1),
        _ago(is_told),
        np.full(count, is_told.any(axis=1).sum()),
        last - telling,
        _ranks(last - telling),
        alike.max(axis=1),
        (alike * telling).max(axis=1),
        np.full(count, count),
    ]
    message = said[-1] if said else ""
    whole = (float(any(sign in message for sign in "?？")), float(not said), len(told), len(message) / 100)
    return TurnView(
        torch.from_numpy(context),
        torch.from_numpy(lines),
        torch.from_numpy(np.stack(columns, axis=1).astype(np.float32)),
        torch.tensor(whole, dtype=torch.float32),
    )


class LineRanker(nn.Module):
    """Scores every line, and none, of B turns that are padded to L lines.

    Each context is compared with a line through learnt projections of both; the outcomes join the features, which are
    standardised by the mean and the spread that `standardise` was given.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.contexts = nn.ModuleList(nn.Linear(width, _RANK) for _ in range(CONTEXTS))
        self.lines = nn.ModuleList(nn.Linear(width, _RANK) for _ in range(CONTEXTS))
        self.drop = nn.Dropout(_DROPOUT)
        seen = CONTEXTS + LINE_FEATURES + TURN_FEATURES
        self.score = nn.Sequential(nn.Linear(seen, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
        seen = CONTEXTS * _RANK + LINE_FEATURES + TURN_FEATURES
        self.none = nn.Sequential(nn.Linear(seen, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))
        for name, count in (("line", LINE_FEATURES), ("turn", TURN_FEATURES)):
            self.register_buffer(f"{name}_mean", torch.zeros(count))
            self.register_buffer(f"{name}_spread", torch.ones(count))

    def standardise(self, views: Sequence[TurnView]) -> None:
        lines = torch.cat([view.line_features for view in views])
        turns = torch.stack([view.turn_features for view in views])
        for name, values in (("line", lines), ("turn", turns)):
            self.get_buffer(f"{name}_mean").copy_(values.mean(dim=0))
            # A feature that never varies is left as it is.
            spread = values.std(dim=0, unbiased=False)
            self.get_buffer(f"{name}_spread").copy_(torch.where(spread > 0, spread, 1.0))

    def forward(
        self,
        context: torch.Tensor,
        lines: torch.Tensor,
        line_features: torch.Tensor,
        turn_features: torch.Tensor,
        present: torch.Tensor,
    ) -> torch.Tensor:
        """[B, L + 1], none last; minus infinity where `present` [B, L] is false."""
        by_line = (line_features - self.get_buffer("line_mean")) / self.get_buffer("line_spread")
        by_turn = (turn_features - self.get_buffer("turn_mean")) / self.get_buffer("turn_spread")
        heard = [self.drop(project(context[:, place])) for place, project in enumerate(self.contexts)]
        matches = [
            (self.drop(project(lines)) @ vector[..., None])[..., 0]
            for project, vector in zip(self.lines, heard, strict=True)
        ]
        repeated = by_turn[:, None].expand(-1, lines.shape[1], -1)
        scores = self.score(torch.cat([torch.stack(matches, dim=-1), by_line, repeated], dim=-1))[..., 0]
        highest = by_line.masked_fill(~present[..., None], -torch.inf).amax(dim=1)
        none = self.none(torch.cat([*heard, highest, by_turn], dim=-1))
        return torch.cat([scores.masked_fill(~present, -torch.inf), none], dim=1)


def padded(views: Sequence[TurnView]) -> dict[str, torch.Tensor]:
    """The arguments of `LineRanker.forward`."""
    pad = nn.utils.rnn.pad_sequence
    return {
        "context": torch.stack([view.context for view in views]),
        "lines": pad([view.lines for view in views], batch_first=True),
        "line_features": pad([view.line_features for view in views], batch_first=True),
        "turn_features": torch.stack([view.turn_features for view in views]),
        "present": pad([torch.ones(len(view.lines), dtype=torch.bool) for view in views], batch_first=True),
    }


def _nearness(lines: Floats, texts: Sequence[str], vectors: Vectors) -> Floats:
    """Cosines [lines, texts]; one column of zeros where there are no texts."""
    if not texts:
        return np.zeros((len(lines), 1), dtype=np.float32)
    near: Floats = lines @ np.stack([vectors[text] for text in texts]).T
    return near


def _ranks(values: Floats) -> Floats:
    """0 for the highest, 1 for the lowest; equal values have equal ranks."""
    above: Floats = (values[None, :] > values[:, None]).sum(axis=1).astype(np.float32)
    return above / np.float32(max(1, len(values) - 1))


def _fading(count: int) -> Floats:
    return np.array([_FADING**since for since in range(count - 1, -1, -1)], dtype=np.float32)


def _ago(is_told: npt.NDArray[np.bool_]) -> Floats:
    """How many messages ago each line was told last, at most `_LONG_AGO`, which also stands for never."""
    since = np.argmax(is_told[:, ::-1], axis=1)
    never = ~is_told.any(axis=1)
    return np.where(never, _LONG_AGO, np.minimum(since, _LONG_AGO)).astype(np.float32)
