"""A causal language model with its tokenizer, its precision and its way of scoring trees."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError

from personalign._mini import moved_mini, shipped_model
from personalign.errors import PersonalignError
from personalign.models.hub import hub_arguments
from personalign.models.precision import Dtype, Precision, choose_device, choose_precision
from personalign.models.selftest import plan_for
from personalign.trees import ScoringPlan
from personalign.trees.plan import Attention

ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# Saved by a class of no architecture; AutoTokenizer would rebuild it as the model's own kind.
GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Of the kernels that torch compiles for flex_attention (2.11 and 2.13).
FLEX_NARROWEST_HEAD = 16

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to score and to decode. `adapted` says whether LoRA adapters sit on it."""

    model: Any
    tokenizer: Any
    plan: ScoringPlan
    precision: Precision
    device: torch.device
    adapted: bool = False


def load_model(
    source: str | Path,
    *,
    dtype: Dtype = "auto",
    device: str = "auto",
    attention: Literal["auto"] | Attention = "auto",
    seed: int = 0,
    trainable: bool = False,
) -> LoadedModel:
    """Load a model folder, a PEFT adapter folder or a hub id, and try out how it scores trees.

    Weights are fp32; `dtype` says what is computed in (see `choose_precision`). Dropout is 0. The tokenizer's
    end token pads where it has no padding token. `trainable` lets the adapters of an adapter folder train.

    Raises PersonalignError for what cannot be found, read or loaded, for weights that are missing, for a tokenizer
    with more tokens than the model, and for a model that cannot score trees.
    """
    from transformers import set_seed

    set_seed(seed)
    chosen = choose_device(device)
    source = _checked(source)
    adapter = _adapter_settings(source)
    base = source if adapter is None else _base_of(source, adapter)
    model = _causal_model(base, attention=attention)
    tokenizer = load_tokenizer(source)
    _check_vocabulary(model, tokenizer, source=source)
    if adapter is not None:
        model = _with_adapter(model, source, trainable=trainable)
    return prepare(model, tokenizer, dtype=dtype, device=chosen, seed=seed, adapted=adapter is not None)


def prepare(
    model: Any,
    tokenizer: Any,
    *,
    dtype: Dtype = "auto",
    device: torch.device,
    seed: int = 0,
    adapted: bool = False,
) -> LoadedModel:
    """Move a model that is built already to its device, choose its precision and its plan."""
    model = model.to(device).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    precision = choose_precision(dtype, device=device, parameters=parameters)
    attention = model.config._attn_implementation
    check_attention(model.config, attention=attention, device=device)
    plan = plan_for(model, attention=attention, precision=precision, seed=seed)
    return LoadedModel(model, tokenizer, plan, precision, device, adapted)


def check_attention(config: Any, *, attention: str, device: torch.device) -> None:
    """Refuse what torch's compiled kernels cannot do, before they fail in the middle of a trace."""
    if attention != "flex_attention" or device.type != "cuda":
        return
    text = config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if width < FLEX_NARROWEST_HEAD:
        raise PersonalignError(
            f"flex_attention on a GPU needs attention heads of {FLEX_NARROWEST_HEAD} dimensions or more, and this "
            f"model's have {width}; write attention: sdpa, or use fewer heads"
        )


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a model folder, an adapter folder (or its base) or a hub id, padding on the right.

    Raises PersonalignError where there is none, none with an end token, or a settings file that is damaged.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    source = _checked(source)
    adapter = _adapter_settings(source)
    settings = _settings(source, TOKENIZER_CONFIG)
    if adapter is not None and settings is None:
        source = _base_of(source, adapter)
        settings = _settings(source, TOKENIZER_CONFIG)
    generic = settings is not None and settings.get("tokenizer_class") in GENERIC_TOKENIZERS
    loader = PreTrainedTokenizerFast if generic else AutoTokenizer
    tokenizer = _loaded(
        lambda: loader.from_pretrained(source, **hub_arguments(source)), source=source, what="tokenizer"
    )
    if not len(tokenizer):
        raise PersonalignError(f"'{source}' holds no tokenizer; save one beside the model")
    if tokenizer.eos_token is None:
        raise PersonalignError(
            f"the tokenizer of '{source}' has no end token; set eos_token in its {TOKENIZER_CONFIG}"
        )
    if tokenizer.pad_token is None:
        # Masks come from lengths, so the end token can pad without being hidden.
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def _checked(source: str | Path) -> str:
    """The source as text. A hub id has at most one slash; anything else that is no folder is a mistake."""
    source = shipped_model(source)
    text = os.path.expanduser(str(source))
    if not Path(text).is_dir() and (isinstance(source, Path) or not HUB_ID.fullmatch(text) or text[0] == "."):
        raise PersonalignError(f"'{source}' is neither a folder nor a hub id such as 'openai-community/gpt2'")
    above = Path(text).parent
    if not Path(text).is_dir() and above != Path() and above.is_dir():
        # Else a mistyped folder would be asked for on the hub, which takes a minute to fail without a network.
        raise PersonalignError(
            f"there is no folder '{source}' in '{above}'; a hub model of that name can be opened from elsewhere"
        )
    return text


def _loaded(load: Callable[[], Loaded], *, source: str, what: str) -> Loaded:
    try:
        return load()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        place = "folder" if Path(source).is_dir() else "hub id (is there a network? is it spelt right?)"
        raise PersonalignError(f"no {what} could be loaded from the {place} '{source}': {error}") from error


def _adapter_settings(source: str) -> dict[str, Any] | None:
    """The adapter's configuration; None where the source is a whole model."""
    return _settings(source, ADAPTER_CONFIG)


def _settings(source: str, name: str) -> dict[str, Any] | None:
    """A file of settings of a folder or of a hub id, from the cache where there is no network; None without one."""
    from transformers.utils import cached_file

    path = _loaded(
        lambda: cached_file(
            source,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **hub_arguments(source),
        ),
        source=source,
        what="model",
    )
    if path is None:
        return None
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise PersonalignError(f"{path}: is not JSON ({error}); copy the file again") from None
    if not isinstance(settings, dict):
        raise PersonalignError(f"{path}: is no JSON object; copy the file again")
    return settings


def _base_of(source: str, adapter: dict[str, Any]) -> str:
    """The backbone that an adapter names; one that was moved is looked for beside the adapter."""
    base = adapter.get("base_model_name_or_path")
    if not base:
        raise PersonalignError(
            f"the adapter '{source}' does not name its backbone; write its folder or hub id into "
            f"base_model_name_or_path of {ADAPTER_CONFIG}"
        )
    named = Path(base)
    # A run keeps its backbone among its models, beside the adapters of its stages and below the published one.
    places = (Path(source).parent / named.name, Path(source).parent / named.parent.name / named.name)
    moved = [place for place in places if place.is_dir()]
    if not named.is_dir() and moved:
        return str(moved[0])
    if shipped := moved_mini(named):
        return str(shipped)
    try:
        return _checked(base)
    except PersonalignError as error:
        raise PersonalignError(f"the adapter '{source}' needs its backbone, but {error}") from error


def _causal_model(source: str, *, attention: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = _loaded(
        lambda: AutoConfig.from_pretrained(source, **hub_arguments(source)), source=source, what="model"
    )
    _switch_dropout_off(config)
    model, report = _loaded(
        lambda: AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            attn_implementation=None if attention == "auto" else attention,
            output_loading_info=True,
            **hub_arguments(source),
        ),
        source=source,
        what="causal language model",
    )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise PersonalignError(
            f"'{source}' is no whole causal language model: {len(missing)} weights are missing, "
            f"{missing[0]} first; choose a model with a language-modelling head"
        )
    # Sampling settings of a hub model would change decoding unasked, and odd ones cannot be saved again.
    stop = model.generation_config.eos_token_id if model.generation_config else None
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=stop if stop is not None else config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    return model


def _switch_dropout_off(config: Any) -> None:
    """Dropout on a shared trunk would be shared by its branches; and stage 2 wants none."""
    for key, value in config.to_dict().items():
        if ("drop" in key or "jitter" in key) and isinstance(value, float):
            setattr(config, key, 0.0)


def _check_vocabulary(model: Any, tokenizer: Any, *, source: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise PersonalignError(
            f"the tokenizer of '{source}' has a token number {highest}, but the model knows {rows} tokens; "
            "the two do not belong together"
        )


def _with_adapter(model: Any, source: str, *, trainable: bool) -> Any:
    from peft import PeftModel

    return _loaded(
        # Adapters stay in fp32 whatever they were saved in: small updates round away in bf16.
        lambda: PeftModel.from_pretrained(
            model, source, is_trainable=trainable, autocast_adapter_dtype=True, **hub_arguments(source)
        ),
        source=source,
        what="adapter",
    )
