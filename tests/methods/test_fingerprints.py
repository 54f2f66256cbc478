"""What decides the steps of a run, and what does not."""

from pathlib import Path

from tests.methods.made_runs import SilentReporter

from personalign.methods.run import PalRun
from personalign.methods.shipped import load_recipe


def fingerprints(folder: Path, *assignments: str) -> dict[str, str]:
    small = load_recipe("quickstart-scratch", ["stages.pretrain={learning_rate: 0.1}", *assignments])
    return {
        item.step.name: item.fingerprint for item in PalRun(small, folder, reporter=SilentReporter()).plan()
    }


def test_a_pretrained_backbone_depends_on_the_prompts(tmp_path: Path) -> None:
    before = fingerprints(tmp_path)
    assert fingerprints(tmp_path, "prompts.history=3")["backbone"] != before["backbone"]
    assert fingerprints(tmp_path, "prompts.history=3")["data"] == before["data"]


def test_an_ablation_leaves_the_baseline_alone(tmp_path: Path) -> None:
    before, after = fingerprints(tmp_path), fingerprints(tmp_path, "ablation=only_selection")
    assert {name for name in before if before[name] == after[name]} == {
        "data",
        "backbone",
        "finetuning",
        "finetuning_longer",
        "predict:finetuning",
        "predict:finetuning_longer",
        "predict:finetuning_unseen",
    }
    for ablation in ("without_alignment", "without_pairs"):
        assert fingerprints(tmp_path, f"ablation={ablation}")["stage1"] == before["stage1"]
