"""A run on files, with LoRA: no test label leaks, the reference is checked, ablations do what Table 5 says."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.methods.made_adapted import recipe, rows_of
from tests.methods.made_runs import SilentReporter, prompter, tiny_model

from personalign.data.formats import read_dialogues, write_dialogues
from personalign.decoding.selection import choose
from personalign.errors import PersonalignError
from personalign.methods import pal
from personalign.methods.dry_run import estimate
from personalign.methods.lineup import compared_systems, final_stage
from personalign.methods.models import ModelStore
from personalign.methods.opening import open_model
from personalign.methods.reporting import open_run
from personalign.methods.run import PalRun
from personalign.methods.selecting import labelled_share_of_none
from personalign.methods.shipped import load_recipe, load_run_recipe
from personalign.methods.trained_selector import TrainedScorer


def test_only_adapters_are_saved_and_stage_2_goes_on_with_those_of_stage_1(
    finished: tuple[PalRun, dict[str, Any]], sources: Path
) -> None:
    folder = finished[0].folder
    for place in ("models/stage1", "models/stage2", "model"):
        names = {path.name for path in (folder / place).iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= names
        assert not any(name.startswith("model") for name in names)
        assert json.loads((folder / place / "adapter_config.json").read_text())["modules_to_save"] is None
    first, second = (
        load_file(folder / "models" / name / "adapter_model.safetensors") for name in ("stage1", "stage2")
    )
    assert first.keys() == second.keys()
    assert all("lora_" in name for name in first)
    # Two stages from scratch would differ wholly; three small steps do not.
    shift = sum(float((second[name] - first[name]).norm()) for name in first)
    size = sum(float(value.norm()) for value in first.values())
    assert 0 < shift < 0.5 * size
    assert any(float(value.norm()) > 0 for name, value in first.items() if "lora_B" in name)


def test_the_reference_of_stage_2_is_stage_1(finished: tuple[PalRun, dict[str, Any]]) -> None:
    record = finished[1]["stage2"]
    assert record["largest_log_ratio"] <= 1e-4
    assert record["start"]["pairs"] > 0
    assert record["start"]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_a_wrong_reference_stops_the_run(
    finished: tuple[PalRun, dict[str, Any]], tmp_path: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(finished[0].folder, tmp_path / "run"))
    honest = pal.with_reference

    def of_the_raw_backbone(loaded: Any, trees: Any, *, budget: int) -> Any:
        with loaded.model.disable_adapter():
            return honest(loaded, trees, budget=budget)

    monkeypatch.setattr(pal, "with_reference", of_the_raw_backbone)
    changed = PalRun(recipe(sources, "stages.stage2.beta=0.3"), folder, reporter=SilentReporter())
    with pytest.raises(PersonalignError, match="before the first step of DPO"):
        changed.run()
    assert not (folder / "steps" / "stage2.json").exists()


def test_labels_come_from_the_recipes_method(finished: tuple[PalRun, dict[str, Any]], sources: Path) -> None:
    for part, dialogues in finished[0].parts().items():
        assert dialogues, part
        assert all(dialogue.relevant is not None for dialogue in dialogues)
    assert all(item.relevant is None for item in read_dialogues(str(sources / "test.jsonl")))


def test_no_test_label_or_gold_reply_reaches_a_system_but_oracle(
    finished: tuple[PalRun, dict[str, Any]], tmp_path: Path, sources: Path
) -> None:
    """Other labels, candidates and last replies at test time change no prediction."""
    first, _ = finished
    folder = Path(shutil.copytree(first.folder, tmp_path / "run"))
    test = folder / "data" / "test.jsonl.gz"
    turned = []
    for dialogue in read_dialogues(str(test)):
        last = dialogue.reply_indices()[-1]
        assert last == len(dialogue.messages) - 1
        messages = (*dialogue.messages[:last], replace(dialogue.messages[last], content="zebra zebra"))
        labels = tuple(() if lines else (len(dialogue.persona) - 1,) for lines in dialogue.relevant or ())
        turned.append(replace(dialogue, messages=messages, relevant=labels))
    write_dialogues(test, turned)
    for marker in (folder / "steps").glob("predict-*.json"):
        marker.unlink()
    again = PalRun(recipe(sources), folder, reporter=SilentReporter())
    again.run(until="predict:pal_oracle")
    for system in ("stage1", "pal_predicted", "pal_random", "pal_unselected"):
        before, after = (
            [(row["response"], row["selected"], row["probabilities"]) for row in rows_of(place, system)]
            for place in (first.folder, folder)
        )
        assert before == after, system
    oracle = [[row["selected"] for row in rows_of(place, "pal_oracle")] for place in (first.folder, folder)]
    assert oracle[0] != oracle[1]


def test_the_share_of_none_is_that_of_the_stopping_part(finished: tuple[PalRun, dict[str, Any]]) -> None:
    labels = [lines for item in finished[0].parts()["stop"] for lines in item.relevant or ()]
    share = sum(not lines for lines in labels) / len(labels)
    for system in ("pal_predicted", "pal_random"):
        assert finished[1][f"predict:{system}"]["share_of_none"] == share


def test_rejected_replies_that_were_cut_off_are_counted(finished: tuple[PalRun, dict[str, Any]]) -> None:
    run, records = finished
    rows = [json.loads(line) for line in (run.folder / "rejected.jsonl").open(encoding="utf-8")]
    assert [len(row["ended"]) for row in rows] == [len(row["replies"]) for row in rows]
    cut = sum(row["ended"].count(False) for row in rows)
    assert 0 < cut == records["rejected"]["cut"] <= records["rejected"]["replies"]


# Which steps there are -------------------------------------------------------------------------------------


def names(sources: Path, folder: Path, *assignments: str) -> list[str]:
    return [
        step.name for step in PalRun(recipe(sources, *assignments), folder, reporter=SilentReporter()).steps()
    ]


@pytest.mark.parametrize(
    ("ablation", "stages", "after_last"),
    [
        ("none", ["stage1", "rejected", "stage2"], ("stage1", "rejected")),
        ("without_mix", ["rejected", "stage2"], ("backbone", "rejected")),
        ("without_alignment", ["stage1"], ("backbone",)),
        ("only_selection", ["stage1", "rejected", "stage2"], ("stage1", "rejected")),
        ("only_generation", ["stage1", "rejected", "stage2"], ("stage1", "rejected")),
        ("without_pairs", ["stage1", "stage2"], ("stage1",)),
    ],
)
def test_ablations_are_steps_left_out(
    sources: Path, tmp_path: Path, ablation: str, stages: list[str], after_last: tuple[str, ...]
) -> None:
    pal_run = PalRun(recipe(sources, f"ablation={ablation}"), tmp_path, reporter=SilentReporter())
    steps = {step.name: step for step in pal_run.steps()}
    found = [name for name in steps if not name.startswith("predict:")]
    assert found == ["data", "backbone", *stages, "results"]
    assert steps[stages[-1]].after == after_last
    assert final_stage(pal_run.recipe) == stages[-1]
    assert steps["predict:pal_predicted"].after == (stages[-1],)


@pytest.mark.slow
@pytest.mark.parametrize(
    "ablation", ["without_mix", "without_alignment", "only_selection", "only_generation", "without_pairs"]
)
def test_ablations_run_to_their_table(sources: Path, tmp_path: Path, ablation: str) -> None:
    records = PalRun(recipe(sources, f"ablation={ablation}"), tmp_path, reporter=SilentReporter()).run()
    assert records["results"]["systems"][-2:] == ["pal_oracle", "selected_line"]
    assert (tmp_path / "table.md").is_file()


def test_the_selected_line_itself_is_a_row_of_the_table(finished: tuple[PalRun, dict[str, Any]]) -> None:
    results = json.loads((finished[0].folder / "results.json").read_text(encoding="utf-8"))
    verbatim, replies = results["selected_line"], results["pal_predicted"]
    for name in ("share_none", "selection/accuracy", "selection/recall@1"):
        assert verbatim[name] == replies[name]
    assert verbatim["turns"] == replies["turns"]
    assert "ppl/token" not in verbatim
    assert "| the selected line itself |" in (finished[0].folder / "table.md").read_text(encoding="utf-8")


def test_a_run_answers_by_the_strategies_that_are_asked_for(sources: Path, tmp_path: Path) -> None:
    few = names(sources, tmp_path, "evaluation.strategies=[predicted, oracle]")
    assert [name for name in few if name.startswith("predict:pal_")] == [
        "predict:pal_predicted",
        "predict:pal_oracle",
    ]
    with pytest.raises(PersonalignError, match=r"evaluation\.strategies lacks predicted"):
        recipe(sources, "evaluation.strategies=[oracle]")


def test_fine_tuning_and_pal_answer_under_rewritten_personas(sources: Path, tmp_path: Path) -> None:
    rewritten = [
        replace(talk, extra={"persona_revised": [f"well , {line}" for line in talk.persona]})
        for talk in read_dialogues(str(sources / "test.jsonl"))
    ]
    write_dialogues(tmp_path / "rewritten.jsonl", rewritten)
    finetuning = "stages.finetuning={learning_rate: 0.01, batch_examples: 8, steps: 2, warmup_steps: 0}"
    asked = recipe(
        sources,
        f"data.files.test={tmp_path / 'rewritten.jsonl'}",
        "evaluation.revised=true",
        "evaluation.strategies=[predicted]",
        finetuning,
    )
    results = PalRun(asked, tmp_path / "run", reporter=SilentReporter()).run()["results"]
    systems = results["systems"]
    assert {"gold_revised", "finetuning_revised", "pal_revised"} <= set(systems)
    for system in ("finetuning", "pal"):
        rows = rows_of(tmp_path / "run", f"{system}_revised")
        original = rows_of(tmp_path / "run", "pal_predicted" if system == "pal" else "finetuning")
        assert [row["persona"] for row in rows] == [
            [f"well , {line}" for line in row["persona"]] for row in original
        ]
        assert [row["gold"] for row in rows] == [row["gold"] for row in original]
        assert [row["gold_nll"] for row in rows] != [row["gold_nll"] for row in original]
    table = (tmp_path / "run" / "table.md").read_text(encoding="utf-8")
    assert "| PAL, revised personas |" in table
    assert "| gold replies, revised personas |" in table
    judged = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert judged["gold_revised"]["part"] == judged["pal_revised"]["part"] == "revised"


def test_rewritten_personas_are_asked_for_before_anything_is_trained(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match=r"part: evaluation\.revised needs `persona_revised`"):
        PalRun(recipe(sources, "evaluation.revised=true"), tmp_path, reporter=SilentReporter()).run()
    assert not (tmp_path / "data").exists()
    with pytest.raises(PersonalignError, match=r"evaluation\.revised needs `persona_revised`"):
        estimate(recipe(sources, "evaluation.revised=true"), reporter=SilentReporter())
    with pytest.raises(PersonalignError, match="synthetic corpus has no rewritten personas"):
        load_recipe("quickstart", ["evaluation.revised=true"])
    with pytest.raises(PersonalignError, match=r"evaluation\.revised is for PAL"):
        load_run_recipe("idl-quickstart", ["evaluation.revised=true"])


def test_without_pairs_trains_on_gold_replies(
    sources: Path, tmp_path: Path, finished: tuple[PalRun, dict[str, Any]]
) -> None:
    folder = Path(shutil.copytree(finished[0].folder, tmp_path / "run"))
    changed = PalRun(recipe(sources, "ablation=without_pairs"), folder, reporter=SilentReporter())
    record = changed.run(until="stage2")["stage2"]
    assert "start" not in record
    assert record["trees"]["examples"] == sum(len(item.reply_indices()) for item in changed.parts()["align"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert "loss_reply" in rows[-1]
    assert "dpo_loss" not in rows[-1]


@pytest.mark.parametrize(
    ("assignment", "redone"),
    [
        ("stages.stage2.beta=0.2", "stage2"),
        ("stages.stage1.steps=2", "stage1"),
        ("decoding.max_new_tokens=4", "rejected"),
        ("prompts.history=3", "backbone"),
        ("evaluation.bootstrap=9", "results"),
        ("selector.kind=encoder", "predict:stage1"),
        ("data.labels.threshold=0.5", "data"),
        ("seed=2", "backbone"),
    ],
)
def test_a_change_redoes_what_it_decides_and_nothing_before(
    finished: tuple[PalRun, dict[str, Any]], sources: Path, assignment: str, redone: str
) -> None:
    changed = PalRun(recipe(sources, assignment), finished[0].folder, reporter=SilentReporter())
    states = {item.step.name: item.state for item in changed.plan()}
    order = list(states)
    assert states[redone] == "changed"
    assert all(states[name] == "done" for name in order[: order.index(redone)])


def test_a_folder_that_is_being_done_again_is_not_taken_for_finished(
    finished: tuple[PalRun, dict[str, Any]], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(finished[0].folder, tmp_path / "run"))
    open_run(folder)
    open_model(folder)

    def killed(*arguments: object) -> dict[str, Any]:
        raise MemoryError

    def changed_and_killed_in(method: str) -> None:
        changed = PalRun(recipe(sources, "stages.stage2.beta=0.3"), folder, reporter=SilentReporter())
        with monkeypatch.context() as patched:
            patched.setattr(PalRun, method, killed)
            with pytest.raises(MemoryError):
                changed.run()

    # Before anything was done: nothing is lost.
    changed_and_killed_in("_run_steps")
    with pytest.raises(PersonalignError, match="is not finished"):
        open_model(folder)
    PalRun(recipe(sources), folder, reporter=SilentReporter()).run()
    assert "beta: 0.3" not in (folder / "recipe.yaml").read_text(encoding="utf-8")
    open_model(folder)
    changed_and_killed_in("_trained")
    with pytest.raises(PersonalignError, match="is not finished: it lacks pal_predicted"):
        open_run(folder)
    with pytest.raises(PersonalignError, match="is not finished: stage2 is to be done"):
        open_model(folder)
    # What the old recipe made is done again as far as it was lost, and the folder is its own once more.
    before = (folder / "predictions" / "stage1.jsonl").stat().st_mtime_ns
    PalRun(recipe(sources), folder, reporter=SilentReporter()).run()
    assert (folder / "predictions" / "stage1.jsonl").stat().st_mtime_ns == before
    open_run(folder)
    open_model(folder)
    assert "beta: 0.3" not in (folder / "recipe.yaml").read_text(encoding="utf-8")


def test_a_backbone_of_a_name_does_not_depend_on_how_one_would_be_made(
    finished: tuple[PalRun, dict[str, Any]], sources: Path
) -> None:
    asked = recipe(sources, "stages.copying={max_steps: 3}")
    planned = PalRun(asked, finished[0].folder, reporter=SilentReporter()).plan()
    assert {item.state for item in planned} == {"done"}


def test_what_lies_in_folders_counts_by_what_it_holds(
    finished: tuple[PalRun, dict[str, Any]], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Path(shutil.copytree(sources, tmp_path / "sources"))
    monkeypatch.setenv("PERSONALIGN_JUDGES", str(tmp_path))
    (tmp_path / "strict").mkdir()
    (tmp_path / "strict" / "weights").write_text("one")

    def plan(*assignments: str) -> dict[str, str]:
        asked = recipe(sources, "evaluation.judges=[strict]", "stages.stage2.evaluate_every=1", *assignments)
        made = PalRun(asked, tmp_path / "run", reporter=SilentReporter()).plan()
        return {item.step.name: item.fingerprint for item in made}

    before = plan()
    assert plan() == before
    # What selects decides nothing of those that do not select.
    unstopped = "stages.stage2.evaluate_every=null"
    one, other = plan(unstopped), plan(unstopped, "selector.kind=encoder")
    assert [one[name] == other[name] for name in ("predict:pal_unselected", "predict:pal_predicted")] == [
        True,
        False,
    ]
    with monkeypatch.context() as patched:
        patched.setenv("PERSONALIGN_JUDGES", str(tmp_path / "none"))
        assert plan()["stage1"] == before["stage1"]
    (tmp_path / "strict" / "weights").write_text("other")
    judged = plan()
    assert {name for name in before if before[name] == judged[name]} == {
        "data", "backbone", "stage1", "rejected", "predict:stage1",
    }  # fmt: skip
    with open(sources / "backbone" / "config.json", "a", encoding="utf-8") as stream:
        stream.write("\n")
    assert plan()["backbone"] != judged["backbone"]
    assert plan()["data"] == judged["data"]


def test_a_turn_that_no_reply_fits_is_refused_before_training(sources: Path, tmp_path: Path) -> None:
    sources = shutil.copytree(sources, tmp_path / "sources")
    path = sources / "test.jsonl"
    first, *others = read_dialogues(str(path))
    long = replace(first.messages[0], content="zebra " * 400)
    write_dialogues(path, [replace(first, messages=(long, *first.messages[1:])), *others])
    pal_run = PalRun(recipe(sources), tmp_path / "run", reporter=SilentReporter())
    with pytest.raises(
        PersonalignError, match=r"part 'test': dialogue '.*', message 1: the persona and the last"
    ):
        pal_run.run()
    assert {path.name for path in (tmp_path / "run" / "steps").iterdir()} == {"data.json"}


def test_prompts_longer_than_the_model_takes_are_refused_before_training(
    sources: Path, tmp_path: Path
) -> None:
    made = recipe(sources, "prompts.max_tokens=600")
    with pytest.raises(PersonalignError, match=r"prompts\.max_tokens is 600, but the model takes 512 tokens"):
        PalRun(made, tmp_path, reporter=SilentReporter()).run(until="backbone")
    with pytest.raises(PersonalignError, match=r"prompts\.max_tokens is 600, but the model takes 512 tokens"):
        estimate(made, reporter=SilentReporter())


def test_chance_chooses_none_at_the_rate_of_the_turns_that_have_lines(
    finished: tuple[PalRun, dict[str, Any]],
) -> None:
    run = PalRun(finished[0].recipe, finished[0].folder, reporter=SilentReporter())
    stop = run.parts()["stop"]
    [random] = [item for item in compared_systems(run.recipe) if item.strategy == "random"]
    share = run._selection(random, tiny_model())[0].share_of_none
    nobody = [replace(item, persona=(), relevant=tuple(() for _ in item.reply_indices())) for item in stop]
    run._parts = run.parts() | {"stop": [*stop, *nobody]}
    assert run._selection(random, tiny_model())[0].share_of_none == share
    assert labelled_share_of_none(run.parts()["stop"]) == pytest.approx((1 + share) / 2)


@pytest.mark.parametrize("method", ["nli", "cosine"])
def test_who_labels_decides_the_data(sources: Path, tmp_path: Path, method: str) -> None:
    key = {"nli": "evaluation.judges=[other]", "cosine": "selector.encoder=other"}[method]
    first, second = (
        PalRun(
            recipe(sources, f"data.labels.method={method}", *more), tmp_path, reporter=SilentReporter()
        ).plan()[0]
        for more in ((), (key,))
    )
    assert first.fingerprint != second.fingerprint


def test_only_its_own_stages_systems_are_compared(sources: Path, tmp_path: Path) -> None:
    tuned = names(sources, tmp_path, "stages.finetuning={learning_rate: 0.1}")
    assert "finetuning" in tuned
    assert "predict:finetuning" in tuned
    assert "predict:finetuning" not in names(sources, tmp_path)
    assert not [name for name in tuned if "unseen" in name or "swapped" in name]


def test_a_trained_selector_is_made_used_and_published(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("personalign.methods.trained_selector._FEWEST_LABELLED", 5)
    monkeypatch.setattr("personalign.methods.trained_selector._FEWEST_STEPS", 5)
    asked = recipe(
        sources, "selector.kind=trained", "stages.stage2.evaluate_every=2", "ablation=without_pairs"
    )
    pal_run = PalRun(asked, tmp_path / "run", reporter=SilentReporter())
    after = {step.name: step.after for step in pal_run.steps()}
    assert {name for name, above in after.items() if "selector" in above} == {
        "stage2",  # which it stops
        "predict:stage1",
        "predict:pal_predicted",
    }
    records = pal_run.run()
    parts = pal_run.parts()
    # The stopping part sets the bias of none, and test dialogues are never learnt from.
    assert records["selector"]["turns"] == sum(
        len(dialogue.reply_indices()) for name in ("train", "align") for dialogue in parts[name]
    )
    model = open_model(pal_run.folder)
    assert isinstance(model.selection.scorer, TrainedScorer)
    rows = {(row["dialogue"], row["turn"]): row for row in rows_of(pal_run.folder, "pal_predicted")}
    for dialogue in parts["test"]:
        turns = dialogue.reply_indices()
        for turn, scores in zip(turns, model.selection.scorer(dialogue, turns), strict=True):
            choice = choose(scores, none_bias=model.selection.none_bias)
            assert rows[dialogue.id, turn]["selected"] == choice.line


# The optimizer ---------------------------------------------------------------------------------------------


def test_lora_plus_gives_b_its_own_learning_rate(sources: Path, tmp_path: Path) -> None:
    made = recipe(sources, "backbone.lora.plus_ratio=16", "stages.stage1.adam_beta2=0.95")
    store = ModelStore(made, tmp_path, reporter=SilentReporter())
    loaded = store.open("backbone", trainable=True)
    optimizer = store.optimizer(loaded, made.stages.stage1)
    assert optimizer is not None
    rate_of = {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}
    trained = {name: value for name, value in loaded.model.named_parameters() if value.requires_grad}
    assert len(rate_of) == len(trained)
    for name, value in trained.items():
        assert rate_of[id(value)] == pytest.approx(0.16 if "lora_B" in name else 0.01)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}
    plain = recipe(sources, "backbone.lora.plus_ratio=null")
    assert (
        ModelStore(plain, tmp_path, reporter=SilentReporter()).optimizer(loaded, plain.stages.stage1) is None
    )


def test_without_lora_the_whole_model_trains(sources: Path, tmp_path: Path) -> None:
    made = recipe(sources, "backbone.lora=null")
    store = ModelStore(made, tmp_path, reporter=SilentReporter())
    loaded = store.open("backbone", trainable=True)
    assert all(value.requires_grad for value in loaded.model.parameters())
    assert store.optimizer(loaded, made.stages.stage1) is None
    with torch.no_grad():
        next(iter(loaded.model.parameters())).add_(1.0)
    store.save("stage1", loaded)
    again = store.open("stage1")
    assert all(
        torch.equal(value, again.model.state_dict()[name])
        for name, value in loaded.model.state_dict().items()
    )
    # A model that is only read is kept; one that is to be trained is read afresh.
    assert store.open("stage1") is again
    assert store.open("stage1", trainable=True) is not again


def test_made_prompts_know_the_made_models_words() -> None:
    """The helpers' own check: no unknown token in what the tests above compare."""
    loaded, made = tiny_model(), prompter()
    assert loaded.tokenizer.get_vocab() == made.tokenizer.get_vocab()
    assert loaded.tokenizer.unk_token_id not in made.reply_target("yes i have a dog .")
