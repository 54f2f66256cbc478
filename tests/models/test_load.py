import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3Config, GPT2Config, T5Config, T5ForConditionalGeneration

from personalign.errors import PersonalignError
from personalign.models import (
    build_backbone,
    check_attention,
    load_model,
    load_tokenizer,
    prepare,
    word_tokenizer,
)
from personalign.trees import DialogueTree, score

TOKENIZER = word_tokenizer(["i", "have", "a", "dog", "."], structure=["\n"], language="en")
SIZES = {"width": 32, "layers": 2, "heads": 4, "max_positions": 128}


def backbone(shape: str, *, seed: int = 0, **others: Any) -> Any:
    sizes = {**SIZES, **others}
    return build_backbone(
        shape,  # type: ignore[arg-type]
        vocab_size=len(TOKENIZER),
        bos_id=TOKENIZER.bos_token_id,
        eos_id=TOKENIZER.eos_token_id,
        pad_id=TOKENIZER.pad_token_id,
        seed=seed,
        **sizes,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    backbone("llama").save_pretrained(path)
    TOKENIZER.save_pretrained(path)
    return path


def log_probs(model: Any) -> torch.Tensor:
    tree = DialogueTree()
    tree.add([4, 5, 6], [7, 8])
    return score(model, [tree])[0][0]


@pytest.mark.parametrize("shape", ["llama", "gpt2", "qwen2"])
def test_a_backbone_survives_saving(shape: str, tmp_path: Path) -> None:
    model = backbone(shape)
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    torch.testing.assert_close(log_probs(loaded.model), log_probs(model.eval()), atol=0, rtol=0)
    assert (loaded.plan.mode, loaded.plan.attention, loaded.plan.longest) == ("packed", "sdpa", 128)
    assert (loaded.precision.dtype, loaded.device.type, loaded.adapted) == ("float32", "cpu", False)
    assert not loaded.model.training


@pytest.mark.parametrize("shape", ["llama", "gpt2", "qwen2"])
def test_the_seed_decides_a_backbone(shape: str) -> None:
    first, same, other = (backbone(shape, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "qwen2"])
def test_a_backbone_is_fp32_tied_and_without_dropout(shape: str) -> None:
    model = backbone(shape).train()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_an_uneven_width_is_refused() -> None:
    with pytest.raises(PersonalignError, match="cannot be divided among 5 heads"):
        backbone("llama", heads=5)


def test_stored_half_precision_becomes_fp32(folder: Path) -> None:
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    loaded = load_model(folder, device="cpu")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


def test_dropout_of_a_loaded_model_is_off(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=len(TOKENIZER), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    model = load_model(tmp_path, device="cpu").model.train()
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_can_be_chosen(folder: Path, attention: str) -> None:
    loaded = load_model(folder, device="cpu", attention=attention)  # type: ignore[arg-type]
    assert loaded.plan.attention == loaded.model.config._attn_implementation == attention


def test_heads_too_narrow_for_the_compiled_kernel_are_refused() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    narrow = GPT2Config(n_embd=32, n_head=4)
    with pytest.raises(
        PersonalignError, match=r"heads of 16 dimensions or more, and this model's have 8; write"
    ):
        check_attention(narrow, attention="flex_attention", device=gpu)
    check_attention(narrow, attention="flex_attention", device=cpu)
    check_attention(narrow, attention="sdpa", device=gpu)
    check_attention(GPT2Config(n_embd=32, n_head=2), attention="flex_attention", device=gpu)
    composite = Gemma3Config(text_config={"head_dim": 8})
    with pytest.raises(PersonalignError, match="this model's have 8"):
        check_attention(composite, attention="flex_attention", device=gpu)


def test_the_end_token_pads_where_nothing_else_does(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    loaded = load_tokenizer(folder)
    assert loaded.pad_token_id == loaded.eos_token_id == tokenizer.eos_token_id
    assert loaded.padding_side == "right"


def test_a_model_without_end_token_is_refused(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(PersonalignError, match="has no end token"):
        load_model(folder, device="cpu")


def in_hub_cache(cache: Path, name: str, folder: Path) -> Path:
    """As `huggingface_hub` lays a download out; no test reaches for the network."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(folder, repository / "snapshots" / ("0" * 40)))


def test_a_generic_tokenizer_beside_a_hub_model_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would make it the model's own kind, which knows none of the words."""
    backbone("qwen2").save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    in_hub_cache(tmp_path / "cache", "somebody/words", tmp_path / "model")
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    expected = TOKENIZER.encode("i have a dog .")
    assert load_tokenizer(tmp_path / "model").encode("i have a dog .") == expected
    assert load_tokenizer("somebody/words").encode("i have a dog .") == expected


def test_the_own_tokenizer_of_a_hub_adapter_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone("qwen2").save_pretrained(tmp_path / "base")
    TOKENIZER.save_pretrained(tmp_path / "base")
    own = word_tokenizer(["i", "have", "a", "dog", ".", "parrot"], structure=["\n"], language="en")
    (tmp_path / "adapter").mkdir()
    settings = {"base_model_name_or_path": str(tmp_path / "base"), "peft_type": "LORA"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    bare = in_hub_cache(tmp_path / "cache", "somebody/bare", tmp_path / "adapter")
    own.save_pretrained(tmp_path / "adapter")
    in_hub_cache(tmp_path / "cache", "somebody/adapter", tmp_path / "adapter")
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert "parrot" in load_tokenizer("somebody/adapter").get_vocab()
    assert not (bare / "tokenizer_config.json").exists()
    assert load_tokenizer("somebody/bare").get_vocab() == TOKENIZER.get_vocab()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "adapter_config.json"])
@pytest.mark.parametrize("content", [b'{"tokenizer_class": ', b'{"eos_token": "caf\xe9"}', b"[]"])
def test_a_torn_settings_file_is_named(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(PersonalignError, match=rf"{name}: .*copy the file again"):
        load_tokenizer(folder)


def test_prepare_takes_what_is_built_already() -> None:
    loaded = prepare(backbone("gpt2"), TOKENIZER, device=torch.device("cpu"))
    assert loaded.plan.mode == "packed"
    assert "too few for bfloat16" in loaded.precision.reason or "neither AMX nor" in loaded.precision.reason


@pytest.mark.parametrize("source", ["/nowhere/at/all", "./nothing", "../no", "a/b/c", "no such model"])
def test_a_missing_folder_is_named(source: str) -> None:
    with pytest.raises(PersonalignError, match="is neither a folder nor a hub id"):
        load_model(source, device="cpu")


def test_a_missing_path_is_no_hub_id() -> None:
    with pytest.raises(PersonalignError, match="is neither a folder nor a hub id"):
        load_model(Path("runs/none"), device="cpu")


def test_an_unreachable_hub_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(
        PersonalignError, match=r"no folder 'nobody-here/no-such-model' here.*cannot be reached"
    ):
        load_model("nobody-here/no-such-model", device="cpu")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="no model could be loaded from the folder"):
        load_model(tmp_path, device="cpu")


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(PersonalignError, match="no causal language model could be loaded"):
        load_model(folder, device="cpu")


def test_broken_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(PersonalignError, match="no causal language model could be loaded"):
        load_model(folder, device="cpu")


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        PersonalignError, match=r"1 weights are missing, model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        load_model(folder, device="cpu")


def test_a_model_that_is_no_causal_lm_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=20, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(PersonalignError, match="no causal language model could be loaded"):
        load_model(tmp_path, device="cpu")


def test_a_folder_without_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(PersonalignError, match="tokenizer"):
        load_model(folder, device="cpu")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens([f"new{index}" for index in range(50)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(PersonalignError, match="the two do not belong together"):
        load_model(folder, device="cpu")


def test_end_tokens_of_a_chat_model_are_kept(folder: Path) -> None:
    settings = {"eos_token_id": [2, 7], "do_sample": False, "temperature": 0.5}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    loaded = load_model(folder, device="cpu")
    assert loaded.model.generation_config.eos_token_id == [2, 7]
    out = folder.with_name("again")
    loaded.model.save_pretrained(out)  # odd sampling settings would make this raise
    shutil.rmtree(out)


def test_a_folder_that_is_missing_beside_others_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PersonalignError, match="there is no folder 'runs/min' in 'runs'"):
        load_model("runs/min", device="cpu")
