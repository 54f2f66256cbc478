"""Training on trees under FSDP2: sharded over two processes, saved whole, and the same model in one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tests.training.made_examples import VOCABULARY, supervised, tiny_model
from tests.training.made_ranks import on_ranks
from tests.training.test_trainer import SETTINGS
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM

from personalign._ranks import find_ranks
from personalign.training.examples import GrownTree, grow
from personalign.training.step import step_loss
from personalign.trees import PACKED

STEPS = 20
SEEN = torch.arange(3, VOCABULARY)[None]


def made(lora: bool) -> Any:
    model: Any = tiny_model()
    if not lora:
        return model
    torch.manual_seed(3)
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def losses_of(model: Any, trees: list[GrownTree], *, share: slice, ranks: int) -> list[float]:
    """Losses of steps over all trees, of which this process takes its share; gradients are averaged over processes."""
    settings = replace(SETTINGS, objective="nll")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    total = sum(tree.supervised_weight() for tree in trees)
    found = []
    for _ in range(STEPS):
        loss, _ = step_loss(model, trees[share], settings=settings, plan=PACKED, total=total / ranks)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


def sharded(folder: Path, lora: bool) -> None:
    ranks = find_ranks()
    model = made(lora)
    base = model.get_base_model() if lora else model
    mesh = torch.distributed.init_device_mesh("cpu", (ranks.count,))
    for layer in base.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(item, torch.distributed.tensor.DTensor) for item in model.parameters())
    trees = grow(supervised(dialogues=8), budget=10_000)
    mine = losses_of(model, trees, share=slice(ranks.rank, None, ranks.count), ranks=ranks.count)
    torch.save(mine, folder / f"losses-{ranks.rank}.pt")
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    with torch.no_grad():
        logits = model(input_ids=SEEN, use_cache=False).logits
    if ranks.main:
        made(lora).save_pretrained(folder / "model", state_dict=state)
        torch.save(logits, folder / "logits.pt")


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_sharded_model_learns_saves_and_opens_in_one_process(tmp_path: Path, lora: bool) -> None:
    on_ranks(sharded, tmp_path, lora)
    trees = grow(supervised(dialogues=8), budget=10_000)
    alone = made(lora)
    expected = losses_of(alone, trees, share=slice(None), ranks=1)
    # A process's loss is over its own trees, scaled so that the mean over processes is the whole's.
    found = torch.tensor([torch.load(tmp_path / f"losses-{rank}.pt") for rank in (0, 1)]).mean(dim=0)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)
    assert expected[-1] < expected[0] - 0.2
    if lora:
        opened = PeftModel.from_pretrained(tiny_model(), tmp_path / "model")
    else:
        opened = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    with torch.no_grad():
        logits = opened.eval()(input_ids=SEEN, use_cache=False).logits
        single = alone(input_ids=SEEN, use_cache=False).logits
    torch.testing.assert_close(logits, torch.load(tmp_path / "logits.pt"), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, single, atol=1e-3, rtol=0)
