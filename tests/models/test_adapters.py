import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from personalign.cli.main import app
from personalign.errors import PersonalignError
from personalign.models import (
    LoadedModel,
    LoraSettings,
    add_lora,
    build_backbone,
    load_model,
    lora_parameter_groups,
    merge_adapter,
    save_adapter,
    with_lora,
    word_tokenizer,
)
from personalign.trees import DialogueTree, pack, score, token_log_probs

TOKENIZER = word_tokenizer(["i", "have", "a", "dog", "."], structure=["\n"], language="en")
SHAPES = pytest.mark.parametrize("shape", ["llama", "gpt2"])


def saved_backbone(shape: str, folder: Path) -> Path:
    model = build_backbone(
        shape,  # type: ignore[arg-type]
        vocab_size=len(TOKENIZER),
        width=32,
        layers=2,
        heads=4,
        max_positions=64,
        bos_id=TOKENIZER.bos_token_id,
        eos_id=TOKENIZER.eos_token_id,
        pad_id=TOKENIZER.pad_token_id,
        seed=0,
    )
    model.save_pretrained(folder / "backbone")
    TOKENIZER.save_pretrained(folder / "backbone")
    return folder / "backbone"


def tree() -> DialogueTree:
    made = DialogueTree()
    made.add([4, 5, 6], [7, 8])
    made.add([4, 5], [8, 2])
    return made


def log_probs(model: Any) -> torch.Tensor:
    return torch.cat(score(model, [tree()])[0])


def trained(shape: str, folder: Path, **settings: Any) -> LoadedModel:
    """Adapters after three steps, so that they do something."""
    loaded = add_lora(
        load_model(saved_backbone(shape, folder), device="cpu"), LoraSettings(**settings), seed=1
    )
    groups = lora_parameter_groups(loaded.model, learning_rate=0.01, ratio=16.0)
    optimizer = torch.optim.SGD(groups)
    for _ in range(3):
        (-token_log_probs(loaded.model, pack([tree()])).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return loaded


@SHAPES
def test_fresh_adapters_change_nothing_and_alone_train(shape: str, tmp_path: Path) -> None:
    loaded = load_model(saved_backbone(shape, tmp_path), device="cpu")
    before = log_probs(loaded.model)
    adapted = add_lora(loaded, LoraSettings(r=4), seed=1)
    torch.testing.assert_close(log_probs(adapted.model), before, atol=1e-6, rtol=0)
    trainable = {name for name, parameter in adapted.model.named_parameters() if parameter.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    expected = {"llama": {"q_proj", "v_proj"}, "gpt2": {"c_attn"}}[shape]
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in trainable} == expected
    assert {parameter.dtype for parameter in adapted.model.parameters()} == {torch.float32}
    config = adapted.model.peft_config["default"]
    assert config.fan_in_fan_out == (shape == "gpt2")
    assert (config.r, config.lora_alpha) == (4, 32)


def test_the_seed_decides_the_adapters(tmp_path: Path) -> None:
    folder = saved_backbone("llama", tmp_path)
    states = []
    for seed in (1, 1, 2):
        adapted = add_lora(load_model(folder, device="cpu"), LoraSettings(), seed=seed)
        states.append(torch.cat([p.flatten() for n, p in adapted.model.named_parameters() if "lora_A" in n]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_lora_plus_lets_b_learn_faster(tmp_path: Path) -> None:
    loaded = trained("llama", tmp_path)
    slow, fast = lora_parameter_groups(loaded.model, learning_rate=1e-4, ratio=16.0)
    assert fast["lr"] == pytest.approx(16 * slow["lr"])
    # Of a q_proj, A is [r, width] and B is [width, r].
    assert {tuple(parameter.shape) for parameter in slow["params"]} == {(16, 32)}
    assert {tuple(parameter.shape) for parameter in fast["params"]} == {(32, 16)}
    trainable = sum(parameter.requires_grad for parameter in loaded.model.parameters())
    assert len(slow["params"]) + len(fast["params"]) == trainable
    with pytest.raises(PersonalignError, match="needs a model with LoRA adapters"):
        lora_parameter_groups(torch.nn.Linear(2, 2), learning_rate=1.0, ratio=2.0)


@SHAPES
def test_a_saved_adapter_is_as_vllm_loads_it_and_scores_the_same(shape: str, tmp_path: Path) -> None:
    loaded = trained(shape, tmp_path)
    out = tmp_path / "adapter"
    save_adapter(loaded, out)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["modules_to_save"] is None
    assert config["base_model_name_or_path"] == str(tmp_path / "backbone")
    weights = load_file(out / "adapter_model.safetensors")
    assert weights
    assert all("lora_A" in name or "lora_B" in name for name in weights)
    again = load_model(out, device="cpu")
    assert again.adapted
    assert again.plan.mode == "packed"
    torch.testing.assert_close(log_probs(again.model), log_probs(loaded.model), atol=1e-6, rtol=0)


def test_adapters_can_go_on_training(tmp_path: Path) -> None:
    save_adapter(trained("llama", tmp_path), tmp_path / "adapter")
    for trainable in (True, False):
        loaded = load_model(tmp_path / "adapter", device="cpu", trainable=trainable)
        assert any(parameter.requires_grad for parameter in loaded.model.parameters()) == trainable


def test_a_moved_run_finds_its_backbone_beside_the_adapter(tmp_path: Path) -> None:
    loaded = trained("llama", tmp_path / "old")
    save_adapter(loaded, tmp_path / "old" / "adapter")
    shutil.move(tmp_path / "old", tmp_path / "new")
    again = load_model(tmp_path / "new" / "adapter", device="cpu")
    torch.testing.assert_close(log_probs(again.model), log_probs(loaded.model), atol=1e-6, rtol=0)
    # As a run has them: the stages' adapters beside the backbone in one folder, the published one above it.
    (tmp_path / "new" / "old").mkdir()
    shutil.move(tmp_path / "new" / "backbone", tmp_path / "new" / "old" / "backbone")
    again = load_model(tmp_path / "new" / "adapter", device="cpu")
    torch.testing.assert_close(log_probs(again.model), log_probs(loaded.model), atol=1e-6, rtol=0)
    shutil.rmtree(tmp_path / "new" / "old" / "backbone")
    with pytest.raises(PersonalignError, match="needs its backbone"):
        load_model(tmp_path / "new" / "adapter", device="cpu")


def test_an_adapter_that_names_no_backbone_is_refused(tmp_path: Path) -> None:
    save_adapter(trained("llama", tmp_path), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(PersonalignError, match="does not name its backbone"):
        load_model(tmp_path / "adapter", device="cpu")


@SHAPES
def test_a_merged_model_scores_as_adapter_and_backbone_do(shape: str, tmp_path: Path) -> None:
    loaded = trained(shape, tmp_path)
    save_adapter(loaded, tmp_path / "adapter")
    beside = ("personalign.json", "selector.json", "selector.safetensors", "sessions.jsonl")
    for name in beside:
        (tmp_path / "adapter" / name).write_text("{}")
    result = CliRunner().invoke(app, ["merge", str(tmp_path / "adapter"), str(tmp_path / "merged"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["out"] == str(tmp_path / "merged")
    merged = load_model(tmp_path / "merged", device="cpu")
    assert not merged.adapted
    assert all((tmp_path / "merged" / name).is_file() for name in beside)
    backbone = load_model(tmp_path / "backbone", device="cpu")
    torch.testing.assert_close(log_probs(merged.model), log_probs(loaded.model), atol=1e-5, rtol=0)
    assert float((log_probs(merged.model) - log_probs(backbone.model)).abs().max()) > 1e-3


def test_merging_a_run_names_its_model(tmp_path: Path) -> None:
    save_adapter(trained("llama", tmp_path), tmp_path / "run" / "model")
    with pytest.raises(PersonalignError, match=f"no adapter folder: .*; write {tmp_path / 'run' / 'model'}"):
        merge_adapter(tmp_path / "run", tmp_path / "merged")


def test_merging_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="is no adapter folder"):
        merge_adapter(tmp_path / "none", tmp_path / "merged")
    save_adapter(trained("llama", tmp_path), tmp_path / "adapter")
    with pytest.raises(PersonalignError, match="exists already"):
        merge_adapter(tmp_path / "adapter", tmp_path / "backbone")
    shutil.rmtree(tmp_path / "backbone")
    with pytest.raises(PersonalignError, match="needs its backbone"):
        merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            ("q_porj",),
            "no layer 'q_porj'; it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
        ),
        (("lm_head",), "'lm_head' is an embedding or output layer"),
        (("embed_tokens",), "'embed_tokens' is an embedding or output layer"),
    ],
)
def test_wrong_targets_are_refused(targets: tuple[str, ...], message: str, tmp_path: Path) -> None:
    loaded = load_model(saved_backbone("llama", tmp_path), device="cpu")
    with pytest.raises(PersonalignError, match=message):
        add_lora(loaded, LoraSettings(targets=targets), seed=0)


def test_adapters_are_not_stacked_nor_saved_where_there_are_none(tmp_path: Path) -> None:
    loaded = load_model(saved_backbone("llama", tmp_path), device="cpu")
    with pytest.raises(PersonalignError, match="no adapters to save"):
        save_adapter(loaded, tmp_path / "out")
    with pytest.raises(PersonalignError, match="has adapters already"):
        add_lora(add_lora(loaded, LoraSettings(), seed=0), LoraSettings(), seed=0)


def test_adapters_that_are_there_are_gone_on_with_or_refused(tmp_path: Path) -> None:
    loaded = add_lora(load_model(saved_backbone("llama", tmp_path), device="cpu"), LoraSettings(r=2), seed=0)
    assert with_lora(loaded, LoraSettings(r=2), seed=0) is loaded
    with pytest.raises(
        PersonalignError, match=r"adapters already, with r 2, alpha 32, which .* \(personalign merge\)"
    ):
        with_lora(loaded, LoraSettings(r=4, alpha=8), seed=0)
    with pytest.raises(PersonalignError, match=r"with targets \['q_proj', 'v_proj'\]"):
        with_lora(loaded, LoraSettings(r=2, targets=("q_proj",)), seed=0)
