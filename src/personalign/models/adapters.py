"""LoRA adapters: put on, given their learning rates, saved as vLLM loads them, merged away."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from personalign._files import whole_folder
from personalign.errors import PersonalignError
from personalign.models.load import ADAPTER_CONFIG, LoadedModel, load_model


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters (Hu et al. 2021), with the values of PAL's release.

    - `r`, `alpha`, `dropout`: rank; scale alpha / r; dropout before the adapter.
    - `targets`: names of the linear layers that get one; None takes PEFT's choice for the architecture
      (Llama: q_proj and v_proj, GPT-2: c_attn).
    - `plus_ratio`: LoRA+ (Hayou et al. 2024), learning rate of B over that of A; None for plain LoRA.
    - `init`: how A begins; B begins at 0 either way, so the first step starts from the backbone itself.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    plus_ratio: float | None = 16.0
    init: Literal["gaussian", "kaiming"] = "gaussian"


def add_lora(loaded: LoadedModel, settings: LoraSettings, *, seed: int) -> LoadedModel:
    """The model with fresh adapters that train and a backbone that does not.

    Raises PersonalignError for targets that the model does not have or that are embeddings or output layer
    (vLLM would ignore their adapters), an architecture that PEFT knows no targets for, and a model that has
    adapters already.
    """
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import set_seed
    from transformers.pytorch_utils import Conv1D

    if loaded.adapted:
        raise PersonalignError("the model has adapters already; train those, or merge them first")
    _check_targets(loaded.model, settings.targets)
    set_seed(seed)
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=None if settings.targets is None else list(settings.targets),
        init_lora_weights="gaussian" if settings.init == "gaussian" else True,
        # GPT-2's layers store their weights transposed.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in loaded.model.modules()),
    )
    try:
        adapted = get_peft_model(loaded.model, config, autocast_adapter_dtype=True)
    except ValueError as error:
        raise PersonalignError(f"LoRA cannot be put on this model: {error}; name other targets") from error
    return replace(loaded, model=adapted.eval(), adapted=True)


def with_lora(loaded: LoadedModel, settings: LoraSettings, *, seed: int) -> LoadedModel:
    """`add_lora`, or the model as it is where it has adapters already that train and are of these very settings.

    Raises PersonalignError where they are of others, besides what `add_lora` raises for.
    """
    if not loaded.adapted:
        return add_lora(loaded, settings, seed=seed)
    [config] = loaded.model.peft_config.values()
    given: dict[str, Any] = {"r": settings.r, "alpha": settings.alpha, "dropout": settings.dropout}
    found: dict[str, Any] = {"r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout}
    if settings.targets is not None:
        given["targets"], found["targets"] = sorted(settings.targets), sorted(config.target_modules)
    if given != found:
        differing = ", ".join(f"{name} {found[name]}" for name in given if given[name] != found[name])
        raise PersonalignError(
            f"the backbone has adapters already, with {differing}, which training goes on with; write the same in "
            "backbone.lora, or merge them first (personalign merge)"
        )
    return loaded


def lora_parameter_groups(model: nn.Module, *, learning_rate: float, ratio: float) -> list[dict[str, Any]]:
    """Groups for the optimizer as LoRA+ wants them: B learns `ratio` times as fast as A.

    Hayou et al. 2024, LoRA+, section 4: a ratio well above 1 lets both matrices learn features.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    of_b = [parameter for name, parameter in named if ".lora_B." in name]
    others = [parameter for name, parameter in named if ".lora_B." not in name]
    if not of_b:
        raise PersonalignError("LoRA+ needs a model with LoRA adapters; set lora, or leave plus_ratio out")
    return [{"params": others, "lr": learning_rate}, {"params": of_b, "lr": learning_rate * ratio}]


def save_adapter(loaded: LoadedModel, folder: Path) -> None:
    """Write adapter and tokenizer in Hub layout: adapter_config.json, adapter_model.safetensors.

    Neither whole modules nor embeddings are saved, which vLLM refuses and tied embeddings lose.
    """
    if not loaded.adapted:
        raise PersonalignError("the model has no adapters to save; save the whole model")
    with whole_folder(folder) as part:
        loaded.model.save_pretrained(part, save_embedding_layers=False)
        loaded.tokenizer.save_pretrained(part)


def merge_adapter(adapter: Path, out: Path, *, beside: Sequence[str] = ()) -> None:
    """Add an adapter's weights to its backbone's and write the whole model, fp32, with its tokenizer.

    Files named in `beside` are copied along where the adapter's folder has them. Raises PersonalignError
    where `adapter` is none, its backbone is not found, or `out` exists.
    """
    if not (adapter / ADAPTER_CONFIG).is_file():
        of_run = adapter / "model"
        hint = f"; write {of_run}, its model" if (of_run / ADAPTER_CONFIG).is_file() else ""
        raise PersonalignError(f"'{adapter}' is no adapter folder: it has no {ADAPTER_CONFIG}{hint}")
    with whole_folder(out) as part:
        loaded = load_model(adapter, dtype="float32", device="cpu")
        loaded.model.merge_and_unload(safe_merge=True).save_pretrained(part)
        loaded.tokenizer.save_pretrained(part)
        for name in beside:
            if (adapter / name).is_file():
                shutil.copy2(adapter / name, part / name)


def _check_targets(model: Any, targets: Sequence[str] | None) -> None:
    if targets is None:
        return
    names = {name.rsplit(".", 1)[-1]: module for name, module in model.named_modules()}
    for target in targets:
        if target not in names:
            raise PersonalignError(
                f"lora.targets: the model has no layer '{target}'; it has {_linear_layers(model)}"
            )
        if names[target] in (model.get_output_embeddings(), model.get_input_embeddings()):
            raise PersonalignError(
                f"lora.targets: '{target}' is an embedding or output layer, where vLLM ignores adapters"
            )


def _linear_layers(model: Any) -> str:
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    return ", ".join(sorted(names))
