"""How a given model scores trees: in one pass where that is exact, else one path per row."""

from dataclasses import dataclass
from typing import Literal

Attention = Literal["sdpa", "eager", "flex_attention"]
Mode = Literal["packed", "separate", "single"]


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """Which masks a model is given, and why.

    - `mode`: `packed` runs a tree in one row; `separate` runs each branch in a row of its own;
      `single` one branch per forward pass, for models whose output depends on the other rows.
    - `attention`: the attention implementation of the model; eager wants additive masks.
    - `window`: size of the sliding window in path positions, None for full attention everywhere.
    - `layer_types`: names of the kinds of layers, for models that take one mask per kind; empty for models
      that take a single mask.
    - `longest`: number of tokens of the longest path that the model can score, None for no limit.
    - `reason`: one sentence for the log and the model card.
    """

    mode: Mode = "packed"
    attention: Attention = "sdpa"
    window: int | None = None
    layer_types: tuple[str, ...] = ()
    longest: int | None = None
    reason: str = "a random tree scored the same packed and separately"


PACKED = ScoringPlan()
