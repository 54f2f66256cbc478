"""Device and dtype, chosen here and nowhere else, each with the reason."""

import contextlib
import re
from dataclasses import dataclass
from typing import Literal

import torch

from personalign.errors import PersonalignError

Dtype = Literal["auto", "float32", "bfloat16"]

# Below it a step is mostly overhead, which autocast's casts add to.
LARGE_ENOUGH_FOR_BF16_ON_CPU = 20_000_000

_DEVICE = re.compile(r"(cpu|cuda|mps)(?::(0|[1-9][0-9]*))?")


@dataclass(frozen=True, slots=True)
class Precision:
    """What a model computes in. Weights and optimizer state are fp32; bf16 means autocast over them."""

    dtype: Literal["float32", "bfloat16"]
    device: str
    reason: str

    @property
    def autocast(self) -> bool:
        """Whether the forward pass runs under bf16 autocast."""
        return self.dtype == "bfloat16"


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple MPS, then the CPU. Raises PersonalignError for one that is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    match = _DEVICE.fullmatch(name)
    if match is None:
        raise PersonalignError(f"device: '{name}' is unknown; write auto, cpu, cuda, cuda:0 or mps")
    kind, number = match[1], int(match[2] or 0)
    counts = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if number >= counts[kind]:
        raise PersonalignError(
            f"device: '{name}' is not available on this machine, which has {counts[kind]} of kind {kind} "
            "(numbered from 0); write auto or cpu"
        )
    return torch.device(name)


def choose_precision(dtype: Dtype, *, device: torch.device, parameters: int) -> Precision:
    """What a model of so many parameters computes in on this device.

    Raises PersonalignError where bfloat16 is asked for and the device is slow or wrong at it.
    """
    obstacle = bf16_obstacle(device)
    if dtype == "float32":
        return Precision("float32", str(device), "float32 was asked for")
    if dtype == "bfloat16":
        if obstacle:
            raise PersonalignError(f"dtype: bfloat16 was asked for, but {obstacle}; write float32 or auto")
        return Precision("bfloat16", str(device), "bfloat16 was asked for (autocast over fp32 weights)")
    if dtype != "auto":
        raise PersonalignError(f"dtype: '{dtype}' is unknown; write auto, float32 or bfloat16")
    if obstacle:
        return Precision("float32", str(device), obstacle)
    if device.type == "cpu" and parameters < LARGE_ENOUGH_FOR_BF16_ON_CPU:
        size = f"{parameters / 1e6:.1f}M parameters"
        return Precision("float32", str(device), f"{size} are too few for bfloat16 to pay on a CPU")
    return Precision("bfloat16", str(device), "the device is quick at it (autocast over fp32 weights)")


def autocast(precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Around every forward pass: bf16 autocast where the precision says so, else nothing."""
    if precision.autocast:
        return torch.autocast(torch.device(precision.device).type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16 (AMX, AVX512-BF16); without them it is slower than fp32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16", False) or able.get("avx512_bf16", False))


def bf16_obstacle(device: torch.device) -> str | None:
    """Why the device should not compute in bfloat16, in words that follow "but"; None where it may."""
    if device.type == "cpu":
        without = "this CPU has neither AMX nor AVX512-BF16, without which bfloat16 is slow"
        return None if cpu_multiplies_bf16() else without
    if device.type == "mps":
        return "on Apple MPS models compute in float32"
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU has no bfloat16 arithmetic"
    return None
