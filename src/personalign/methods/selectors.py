"""Encoders as selectors: the line nearest to what was just said, or the nearest that was not told yet."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from personalign.data.dialogue import Dialogue
from personalign.decoding.respond import SelectionScorer, Turns
from personalign.decoding.selection import Scores
from personalign.methods.recipe import Selector
from personalign.methods.trained_selector import load_trained


@dataclass(slots=True)
class EncoderScorer:
    """A line's score is its cosine with the partner's last message.

    With a `discount`, the highest cosine between the line and any of the speaker's own earlier messages is
    taken off, times the discount: what was told already is not told again. "None" scores 0; its threshold is the
    calibrated bias. Reads nothing at or after the turn.
    """

    encoder: Any
    discount: float = 0.0
    _vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __call__(self, dialogue: Dialogue, turns: Turns) -> list[Scores]:
        if not dialogue.persona:
            return [np.zeros(1) for _ in turns]
        self._encode(
            [*dialogue.persona, *(turn.content for turn in dialogue.messages[: max(turns, default=0)])]
        )
        lines = self._stack(list(dialogue.persona))
        return [np.append(self._line_scores(dialogue, turn, lines), 0.0) for turn in turns]

    def _line_scores(
        self, dialogue: Dialogue, turn: int, lines: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        said = dialogue.said("user", before=turn)
        told = dialogue.said(before=turn)
        scores = np.zeros(len(lines))
        if said:
            scores = (lines @ self._vectors[said[-1]]).astype(np.float64)
        if told and self.discount:
            scores = scores - self.discount * (lines @ self._stack(told).T).max(axis=1)
        return scores

    def _encode(self, texts: list[str]) -> None:
        fresh = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if fresh:
            self._vectors.update(zip(fresh, self.encoder.encode(fresh), strict=True))

    def _stack(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.stack([self._vectors[text] for text in texts])


def open_scorer(selector: Selector, folder: Path) -> SelectionScorer | None:
    """The scorer that a recipe asks for; None is the LM itself. A trained one lies in `folder`."""
    if selector.kind == "lm":
        return None
    from personalign.models.encoder import load_encoder

    if selector.kind == "trained":
        return load_trained(folder, load_encoder(selector.encoder))
    discount = selector.discount if selector.kind == "encoder-untold" else 0.0
    return EncoderScorer(load_encoder(selector.encoder), discount=discount)
