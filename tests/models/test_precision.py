import pytest
import torch

from personalign.errors import PersonalignError
from personalign.models import precision
from personalign.models.precision import Precision, autocast, choose_device, choose_precision

CPU = torch.device("cpu")
LARGE = precision.LARGE_ENOUGH_FOR_BF16_ON_CPU


@pytest.fixture(params=[True, False])
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: request.param)
    return bool(request.param)


def test_auto_on_a_cpu(quick: bool) -> None:
    assert choose_precision("auto", device=CPU, parameters=LARGE - 1).dtype == "float32"
    large = choose_precision("auto", device=CPU, parameters=LARGE)
    assert large.dtype == ("bfloat16" if quick else "float32")
    assert quick or "neither AMX nor" in large.reason


def test_bfloat16_is_refused_where_it_is_slow(quick: bool) -> None:
    if quick:
        assert choose_precision("bfloat16", device=CPU, parameters=1).autocast
    else:
        with pytest.raises(PersonalignError, match=r"neither AMX nor.*write float32 or auto"):
            choose_precision("bfloat16", device=CPU, parameters=1)


def test_float32_is_float32_everywhere(quick: bool) -> None:
    for device in ("cpu", "mps", "cuda"):
        assert not choose_precision("float32", device=torch.device(device), parameters=LARGE).autocast


def test_mps_computes_in_float32() -> None:
    chosen = choose_precision("auto", device=torch.device("mps"), parameters=LARGE)
    assert (chosen.dtype, chosen.reason) == ("float32", "on Apple MPS models compute in float32")


@pytest.mark.parametrize("able", [True, False])
def test_auto_on_a_gpu(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    chosen = choose_precision("auto", device=torch.device("cuda"), parameters=1)
    assert chosen.dtype == ("bfloat16" if able else "float32")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(PersonalignError, match="dtype: 'float16' is unknown"):
        choose_precision("float16", device=CPU, parameters=1)  # type: ignore[arg-type]
    for name in ("tpu", "cuda:x", "cuda:", "cuda:-1", "cuda:٣", "cpu:01", ""):
        with pytest.raises(PersonalignError, match=f"device: '{name}' is unknown"):
            choose_device(name)


def test_absent_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(PersonalignError, match="not available on this machine"):
            choose_device(name)


def test_a_device_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    for name, count in (("cuda:2", 2), ("cpu:1", 1)):
        with pytest.raises(
            PersonalignError, match=rf"'{name}' is not available on this machine, which has {count} "
        ):
            choose_device(name)


def test_autocast_computes_in_bf16_over_fp32_weights() -> None:
    layer = torch.nn.Linear(4, 4)
    for dtype, expected in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(Precision(dtype, "cpu", "asked for")):  # type: ignore[arg-type]
            assert layer(torch.ones(1, 4)).dtype == expected
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("able", "quick"),
    [({}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_a_cpu_multiplies_bf16_where_it_has_the_instructions(
    able: dict[str, bool], quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert precision.cpu_multiplies_bf16() is quick
