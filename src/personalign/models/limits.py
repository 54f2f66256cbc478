"""What a model's configuration says about lengths: sliding windows, and the longest path it can score."""

from collections.abc import Iterator, Mapping
from typing import Any

# Both change their frequencies with the longest row of a forward pass, beyond the length trained on.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def window_sizes(config: Any) -> list[int]:
    """Every length, in tokens, that the configuration calls a window or a chunk; largest last."""
    return sorted(
        value
        for key, value in config.get_text_config().to_dict().items()
        if ("window" in key or "chunk" in key) and type(value) is int and value > 0
    )


def sliding_window(config: Any) -> int | None:
    """The window of sliding-window attention, in tokens; None without one."""
    value = config.get_text_config().to_dict().get("sliding_window")
    return value if type(value) is int and value > 0 else None


def layer_types(config: Any) -> tuple[str, ...]:
    """The distinct kinds of attention layers that the configuration lists, in order of appearance."""
    return tuple(dict.fromkeys(config.get_text_config().to_dict().get("layer_types") or ()))


def longest_path(config: Any) -> int | None:
    """The number of positions that the model has, or knows from training; None where it names no limit.

    Under dynamic or long RoPE scaling it is the length up to which nothing is scaled: beyond it the result
    depends on the other rows and, for dynamic scaling, on what was scored before.
    """
    text_config = config.get_text_config()
    named = text_config.to_dict()
    # The standard name; `attribute_map` of GPT-2 and its like leads it to theirs.
    positions = getattr(text_config, "max_position_embeddings", None)
    limits = [positions] if type(positions) is int and positions > 0 else []
    for parameters in _rope_parameters(named.get("rope_parameters") or {}):
        if parameters.get("rope_type") in LENGTH_DEPENDENT_ROPE:
            unscaled: Any = parameters.get("original_max_position_embeddings") or positions
            # A row of exactly that length still uses frequencies left behind by a longer one.
            limits.append(int(unscaled) - 1)
    return min(limits, default=None)


def _rope_parameters(parameters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The parameters of RoPE, which some models nest per kind of layer."""
    yield parameters
    for value in parameters.values():
        if isinstance(value, Mapping):
            yield value
