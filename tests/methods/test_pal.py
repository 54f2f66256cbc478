"""PAL's examples and pairs: what stands in each prompt, what is dropped, and what the reference is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path as FilePath

import pytest
import torch
from tests.methods.made_runs import baker, greeter, prompter, tiny_model

from personalign.data.dialogue import Dialogue, Turn
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import without_persona
from personalign.errors import PersonalignError
from personalign.methods import pal
from personalign.models import LoadedModel, LoraSettings, add_lora, load_model, lora_parameter_groups
from personalign.models.adapters import save_adapter
from personalign.models.precision import Precision
from personalign.prompts import UNSELECTED
from personalign.training.examples import Example, GrownTree, grow, one_per_example
from personalign.training.step import StageSettings, forward_trees
from personalign.training.trainer import train_stage

Maker = Callable[[list[Dialogue]], list[Example]]
REJECTED = {"baker": ["no cat .", "yes .", "tea ."], "greeter": ["cat .", "dog ."]}


def stage1(dialogues: Sequence[Dialogue], **settings: object) -> list[Example]:
    return pal.persona_aware_learning(dialogues, prompter(), dropped=pal.Dropped(), **settings)  # type: ignore[arg-type]


def tuning(dialogues: Sequence[Dialogue], **settings: object) -> list[Example]:
    return pal.fine_tuning(dialogues, prompter(), dropped=pal.Dropped(), **settings)  # type: ignore[arg-type]


def preferences(dialogues: Sequence[Dialogue], **settings: object) -> list[Example]:
    rejected = [REJECTED[dialogue.id] for dialogue in dialogues]
    return pal.alignment_pairs(dialogues, rejected, prompter(), dropped=pal.Dropped(), **settings)  # type: ignore[arg-type]


def text(ids: Sequence[int]) -> str:
    return str(prompter().tokenizer.decode(ids))


def garbled(dialogue: Dialogue, turn: int) -> Dialogue:
    """The same up to `turn`; that message and all later ones are zebras, as many as there were messages."""
    messages = tuple(
        Turn(item.role, "zebra zebra zebra") if index >= turn else item
        for index, item in enumerate(dialogue.messages)
    )
    return replace(dialogue, messages=messages)


@pytest.mark.parametrize("make", [stage1, tuning, preferences])
def test_no_token_of_the_answered_turn_or_later_is_in_a_prompt(make: Maker) -> None:
    for dialogue in (baker(), greeter()):
        examples = {example.turn: example for example in make([dialogue])}
        for turn in dialogue.reply_indices():
            changed = {example.turn: example for example in make([garbled(dialogue, turn)])}
            for path, other in zip(examples[turn].paths, changed[turn].paths, strict=True):
                assert list(path.prompt) == list(other.prompt)


def test_fine_tuning_shows_all_lines_and_highlights_none() -> None:
    examples = tuning([baker()])
    assert [example.turn for example in examples] == [1, 3, 5]
    for example in examples:
        (path,) = example.paths
        assert path.kind == "reply"
        assert list(path.prompt) == prompter().reply(baker(), example.turn, line=UNSELECTED)
        assert list(path.target) == prompter().reply_target(baker().messages[example.turn].content)
        assert path.target[-1] in prompter().end_ids


def test_stage_1_mixes_selection_and_generation() -> None:
    labels = [0, None, 1]
    for example, line in zip(stage1([baker()]), labels, strict=True):
        selection, reply = example.paths
        assert (selection.kind, reply.kind) == ("selection", "reply")
        assert list(selection.prompt) == prompter().select(baker(), example.turn)
        assert list(selection.target) == prompter().select_target(baker(), line)
        assert list(reply.prompt) == prompter().reply(baker(), example.turn, line=line)
        assert list(reply.target) == prompter().reply_target(baker().messages[example.turn].content)


def test_the_reply_hangs_off_its_selection() -> None:
    for example in stage1([baker()]):
        selection, reply = example.paths
        written = [*selection.prompt, *selection.target]
        assert list(reply.prompt)[: len(selection.prompt)] == list(selection.prompt)
        # One tree holds both tasks in hardly more than the longer of them.
        (tree,) = grow([example], budget=10_000)
        assert len(tree) < len(written) + len(reply.target) + 4


@pytest.mark.parametrize(
    ("ablation", "kinds"),
    [
        ("none", ["selection", "reply"]),
        ("only_selection", ["selection"]),
        ("only_generation", ["reply"]),
        ("without_alignment", ["selection", "reply"]),
        ("without_pairs", ["selection", "reply"]),
    ],
)
def test_ablations_of_table_5(ablation: str, kinds: list[str]) -> None:
    for example in stage1([baker(), greeter()], ablation=ablation):
        assert [path.kind for path in example.paths] == kinds


def test_without_pairs_trains_on_gold_replies_under_the_gold_line() -> None:
    alone = pal.gold_alone([baker()], prompter(), dropped=pal.Dropped())
    pairs = preferences([baker()])
    assert [list(e.paths[0].prompt) for e in alone] == [list(e.paths[0].prompt) for e in pairs]
    assert [list(e.paths[0].target) for e in alone] == [list(e.paths[0].target) for e in pairs]
    assert all(len(example.paths) == 1 for example in alone)
    dropped = pal.Dropped()
    labelled = pal.gold_alone([baker(), greeter()], prompter(), dropped=dropped, only_labelled=True)
    paired = preferences([baker(), greeter()], only_labelled=True)
    assert [example.key for example in labelled] == [example.key for example in paired]
    assert dropped.counts["labelled none"] > 0


def test_reply_weight_scales_the_replies_and_nothing_else() -> None:
    plain, weighted = stage1([baker(), greeter()]), stage1([baker(), greeter()], reply_weight=0.25)
    for one, other in zip(plain, weighted, strict=True):
        assert [(path.kind, path.prompt, path.target) for path in one.paths] == [
            (path.kind, path.prompt, path.target) for path in other.paths
        ]
        assert [path.weight for path in one.paths] == [1.0, 1.0]
        assert [path.weight for path in other.paths] == [1.0, 0.25]


@pytest.mark.parametrize("make", [stage1, tuning])
def test_trunk_weight_adds_each_dialogues_longest_history_once(make: Callable[..., list[Example]]) -> None:
    plain, weighted = make([baker(), greeter()]), make([baker(), greeter()], trunk_weight=0.2)
    trunks = [path for example in weighted for path in example.paths if path.kind == "trunk"]
    assert len(trunks) == 2
    for trunk, turn, dialogue in zip(trunks, (5, 3), (baker(), greeter()), strict=True):
        whole = [*trunk.prompt, *trunk.target]
        assert trunk.weight == 0.2
        assert len(trunk.prompt) == 1
        assert whole == list(next(e.paths[0].prompt for e in plain if e.key == (dialogue.id, turn)))
    rest = [[path for path in example.paths if path.kind != "trunk"] for example in weighted]
    assert rest == [list(example.paths) for example in plain]


def test_the_trunk_of_generation_alone_holds_no_selected_line() -> None:
    for example in stage1([baker(), greeter()], ablation="only_generation", trunk_weight=0.2):
        for trunk in (path for path in example.paths if path.kind == "trunk"):
            dialogue = {"baker": baker(), "greeter": greeter()}[example.dialogue]
            plain = prompter().reply(dialogue, example.turn, line=UNSELECTED)
            assert [*trunk.prompt, *trunk.target] == list(plain)


def test_targets_beyond_the_room_for_them_are_dropped_and_counted() -> None:
    long = replace(greeter(), messages=(*greeter().messages[:3], Turn("assistant", " ".join(["zebra"] * 60))))
    asked = prompter(max_tokens=80, reserve=20)
    for make in (pal.fine_tuning, pal.persona_aware_learning):
        dropped = pal.Dropped()
        examples = make([long], asked, dropped=dropped)  # type: ignore[operator]
        assert [example.turn for example in examples] == [1]
        assert dropped.counts["target longer than the room for it"] == 1
    dropped = pal.Dropped()
    pairs = pal.alignment_pairs([greeter()], [["dog .", "zebra " * 60]], asked, dropped=dropped)
    assert [example.turn for example in pairs] == [1]
    assert dropped.counts["target longer than the room for it"] == 1


def test_pairs_share_the_prompt_with_the_gold_line() -> None:
    for dialogue, found in ((baker(), [0, None, 1]), (greeter(), [None, 0])):
        replies = REJECTED[dialogue.id]
        examples = pal.alignment_pairs([dialogue], [replies], prompter(), dropped=pal.Dropped())
        for example, line, reply in zip(examples, found, replies, strict=True):
            chosen, rejected = example.paths
            assert (chosen.kind, rejected.kind) == ("chosen", "rejected")
            expected = prompter().reply(dialogue, example.turn, line=line)
            assert list(chosen.prompt) == list(rejected.prompt) == expected
            assert list(chosen.target) == prompter().reply_target(dialogue.messages[example.turn].content)
            assert list(rejected.target) == prompter().reply_target(reply)


def test_empty_and_equal_rejected_replies_are_dropped_and_counted() -> None:
    dropped = pal.Dropped()
    replies = [["  yes i  have a dog . ", " ", "tea ."]]
    examples = pal.alignment_pairs([baker()], replies, prompter(), dropped=dropped)
    assert [example.turn for example in examples] == [5]
    assert dropped.counts == {"rejected reply equals gold": 1, "empty rejected reply": 1}


def test_replies_that_are_the_same_tokens_are_equal() -> None:
    """As those that differ in capitals alone are to a tokenizer that knows none."""
    made, dropped = prompter(), pal.Dropped()
    told = made.reply_target
    made.reply_target = lambda text: told(text.lower())  # type: ignore[method-assign]
    pal.alignment_pairs([baker()], [["Yes i have a Dog .", "tea .", "tea ."]], made, dropped=dropped)
    assert dropped.counts == {"rejected reply equals gold": 1}


def test_only_labelled_keeps_turns_that_need_a_line() -> None:
    dropped = pal.Dropped()
    examples = pal.alignment_pairs(
        [baker(), greeter()], list(REJECTED.values()), prompter(), dropped=dropped, only_labelled=True
    )
    assert [example.key for example in examples] == [("baker", 1), ("baker", 5), ("greeter", 3)]
    assert dropped.counts == {"labelled none": 2}


def test_missing_rejected_replies_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        pal.alignment_pairs([baker()], [["one reply for three turns"]], prompter(), dropped=pal.Dropped())


def test_over_long_turns_are_counted_and_trimmed_ones_kept() -> None:
    talk = baker()
    long = replace(talk, messages=(Turn("user", "hello " * 40), *talk.messages[1:]))
    # The first reply's last turn has 40 words, which must stay; for the other replies it is the oldest turn.
    dropped = pal.Dropped()
    examples = pal.persona_aware_learning([long], prompter(max_tokens=70, reserve=20), dropped=dropped)
    assert [example.turn for example in examples] == [3, 5]
    assert dropped.counts == {"longer than max_tokens": 1, "kept, oldest turns trimmed": 2}
    for example in examples:
        assert all("hello hello" not in text(path.prompt) for path in example.paths)
        assert "i have a dog ." in text(example.paths[0].prompt)
    dropped = pal.Dropped()
    assert pal.persona_aware_learning([long], prompter(max_tokens=30, reserve=20), dropped=dropped) == []
    assert dropped.counts == {"longer than max_tokens": 3}


def test_rejected_replies_come_from_a_prompt_without_persona() -> None:
    """Other lines, or none, give the very same replies."""
    loaded = tiny_model()
    decoding = DecodingSettings(max_new_tokens=8)
    talk = baker()
    other = replace(talk, persona=("you like tea .", "no cat ."))
    replies = without_persona(loaded, prompter(), [talk], decoding=decoding)
    assert replies == without_persona(loaded, prompter(), [other], decoding=decoding)
    assert any(replies[0])
    assert all("bakery" not in text(prompter().without_persona(talk, turn)) for turn in talk.reply_indices())


# The reference ---------------------------------------------------------------------------------------------


def referenced(loaded: LoadedModel, *, budget: int = 2000) -> list[GrownTree]:
    trees = grow(preferences([baker(), greeter()]), budget=1000)
    return pal.with_reference(loaded, trees, budget=budget)


def test_the_reference_is_the_model_as_it_is() -> None:
    loaded = tiny_model()
    trees = referenced(loaded)
    for tree in trees:
        assert tree.reference is not None
        with torch.no_grad():
            batch, log_probs = forward_trees(loaded.model, [tree])
        torch.testing.assert_close(tree.reference, batch.branch_sums(log_probs), atol=1e-5, rtol=1e-5)
    assert [tree.examples for tree in trees] == [
        t.examples for t in grow(preferences([baker(), greeter()]), budget=1000)
    ]


def test_stage_2_starts_at_ln_2() -> None:
    loaded = tiny_model()
    trees = referenced(loaded)
    measured = pal.measure_pairs(loaded, trees, beta=0.1, budget=60)
    assert measured["pairs"] == 5
    assert measured["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(measured["chosen_log_ratio"]) < 1e-4
    assert pal.check_reference(loaded, trees, budget=60) <= 1e-4
    shuffled = pal.with_reference(loaded, one_per_example(preferences([baker(), greeter()])), budget=2000)
    assert pal.check_reference(loaded, shuffled, budget=60) <= 1e-4


def test_another_reference_is_refused() -> None:
    trees = referenced(tiny_model(seed=2))
    with pytest.raises(
        PersonalignError, match="before the first step of DPO the policy and its reference differ"
    ):
        pal.check_reference(tiny_model(seed=1), trees, budget=1000)


def test_a_reference_that_is_no_number_is_refused() -> None:
    loaded = tiny_model()
    trees = [tree.with_reference(torch.full((len(tree.kinds()),), math.nan)) for tree in referenced(loaded)]
    with pytest.raises(PersonalignError, match="nan per token"):
        pal.check_reference(loaded, trees, budget=1000)


def test_bf16_has_a_bound_of_its_own() -> None:
    loaded = replace(tiny_model(), precision=Precision("bfloat16", "cpu", "to try its bound"))
    largest = pal.check_reference(loaded, referenced(loaded), budget=60)
    assert largest <= pal.LARGEST_LOG_RATIO["bfloat16"]
    with pytest.raises(PersonalignError, match="allowed in bfloat16"):
        pal.check_reference(loaded, referenced(tiny_model(seed=2)), budget=1000)


def test_measuring_no_pairs_says_so() -> None:
    assert pal.measure_pairs(tiny_model(), [], beta=0.1, budget=100) == {"pairs": 0.0}
    assert pal.check_reference(tiny_model(), [], budget=100) == 0.0


def train(loaded: LoadedModel, trees: Sequence[GrownTree], folder: FilePath, **settings: object) -> None:
    train_stage(
        loaded.model,
        trees,
        settings=StageSettings(learning_rate=1e-2, max_steps=6, batch_examples=4, warmup_steps=0, **settings),  # type: ignore[arg-type]
        folder=folder,
        stage="made",
    )


def test_dpo_on_the_pairs_prefers_the_gold_replies(tmp_path: FilePath) -> None:
    loaded = tiny_model()
    trees = referenced(loaded)
    train(loaded, trees, tmp_path, objective="dpo")
    measured = pal.measure_pairs(loaded, trees, beta=0.1, budget=1000)
    assert measured["pair_accuracy"] == 1.0
    assert measured["loss"] < math.log(2) - 0.05


# Adapters --------------------------------------------------------------------------------------------------


def backbone_folder(folder: FilePath) -> FilePath:
    loaded = tiny_model()
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def logits(loaded: LoadedModel) -> torch.Tensor:
    ids = torch.tensor([prompter().reply(baker(), 3, line=None)])
    with torch.no_grad():
        return loaded.model(input_ids=ids).logits  # type: ignore[no-any-return]


def test_stage_2_goes_on_with_the_stage_1_adapter(tmp_path: FilePath) -> None:
    """Reference, training and file are the adapter's; the backbone below never changes."""
    base = backbone_folder(tmp_path / "backbone")
    settings = LoraSettings(r=2, alpha=4, targets=("q_proj", "v_proj", "down_proj"))
    loaded = add_lora(load_model(base, dtype="float32", device="cpu", trainable=True), settings, seed=1)
    backbone = {n: v.clone() for n, v in loaded.model.state_dict().items() if "lora_" not in n}
    train(loaded, grow(stage1([baker(), greeter()]), budget=1000), tmp_path / "checkpoints1")
    after_stage1 = logits(loaded)
    save_adapter(loaded, tmp_path / "stage1")
    names = {path.name for path in (tmp_path / "stage1").iterdir()}
    assert "adapter_model.safetensors" in names
    assert "model.safetensors" not in names

    second = load_model(tmp_path / "stage1", dtype="float32", device="cpu", trainable=True)
    torch.testing.assert_close(logits(second), after_stage1, atol=1e-6, rtol=1e-6)
    # The reference is the stage-1 model, and not the backbone that a switched-off adapter would give.
    trees = referenced(second)
    assert pal.check_reference(second, trees, budget=1000) <= 1e-4
    with second.model.disable_adapter(), pytest.raises(PersonalignError, match="differ by"):
        pal.check_reference(second, trees, budget=1000)
    trainable = {name for name, value in second.model.named_parameters() if value.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    before = {name: value.clone() for name, value in second.model.state_dict().items()}
    train(second, trees, tmp_path / "checkpoints2", objective="dpo")
    moved = {
        name for name, value in second.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == trainable
    assert all(torch.equal(second.model.state_dict()[name], value) for name, value in backbone.items())
    save_adapter(second, tmp_path / "stage2")
    torch.testing.assert_close(
        logits(load_model(tmp_path / "stage2", dtype="float32", device="cpu")),
        logits(second),
        atol=1e-6,
        rtol=1e-6,
    )
    assert (logits(second) - after_stage1).abs().max() > 1e-3


def test_an_interrupted_adapter_goes_on_to_the_same_weights(tmp_path: FilePath) -> None:
    base = backbone_folder(tmp_path / "backbone")
    trees = grow(stage1([baker(), greeter()]), budget=150)

    def stage(folder: str, *, stop: int | None, resume: bool) -> dict[str, torch.Tensor]:
        import os
        import signal

        loaded = add_lora(load_model(base, dtype="float32", device="cpu"), LoraSettings(r=2), seed=1)
        groups = lora_parameter_groups(loaded.model, learning_rate=1e-2, ratio=16.0)
        train_stage(
            loaded.model,
            trees,
            settings=StageSettings(
                learning_rate=1e-2, max_steps=5, epochs=99, batch_examples=2, warmup_steps=2
            ),
            folder=tmp_path / folder,
            stage="made",
            optimizer=torch.optim.AdamW(groups, lr=1e-2),
            progress=lambda step, total, values: (
                os.kill(os.getpid(), signal.SIGINT) if step == stop else None
            ),
            resume=resume,
        )
        return {n: v.detach().clone() for n, v in loaded.model.named_parameters() if v.requires_grad}

    expected = stage("whole", stop=None, resume=False)
    stage("cut", stop=3, resume=False)
    resumed = stage("cut", stop=None, resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
