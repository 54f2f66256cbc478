"""Models: loaded or built, their precision, their way of scoring trees, their adapters."""

from personalign.models.adapters import (
    LoraSettings,
    add_lora,
    lora_parameter_groups,
    merge_adapter,
    save_adapter,
    with_lora,
)
from personalign.models.backbone import build_backbone
from personalign.models.load import LoadedModel, check_attention, load_model, load_tokenizer, prepare
from personalign.models.precision import Precision, autocast, choose_device, choose_precision
from personalign.models.selftest import plan_for
from personalign.models.tokenizers import plain_tokens, train_bpe, word_tokenizer

__all__ = [
    "LoadedModel",
    "LoraSettings",
    "Precision",
    "add_lora",
    "autocast",
    "build_backbone",
    "check_attention",
    "choose_device",
    "choose_precision",
    "load_model",
    "load_tokenizer",
    "lora_parameter_groups",
    "merge_adapter",
    "plain_tokens",
    "plan_for",
    "prepare",
    "save_adapter",
    "train_bpe",
    "with_lora",
    "word_tokenizer",
]
