"""The weights that a stage trains, on disk."""

from pathlib import Path

import torch
from torch import nn

from personalign._files import atomic_path
from personalign.errors import PersonalignError


def save_weights(model: nn.Module, path: Path) -> None:
    """The trainable weights, written whole or not at all."""
    from safetensors.torch import save_file

    weights = {name: value.detach().contiguous().clone() for name, value in trainable(model).items()}
    with atomic_path(path) as temporary:
        save_file(weights, str(temporary))


def load_weights(model: nn.Module, path: Path) -> None:
    """Put back what `save_weights` wrote."""
    from safetensors.torch import load_file

    stored = load_file(str(path))
    parameters = trainable(model)
    if stored.keys() != parameters.keys():
        raise PersonalignError(
            f"{path} holds other weights than the model trains; remove it and run the stage again"
        )
    with torch.no_grad():
        for name, value in stored.items():
            parameters[name].copy_(value)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
