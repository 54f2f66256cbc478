"""What a system's rows are worth, by hand; and the tables that show it."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.made_runs import baker, greeter, prompter, tiny_model

from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Selection
from personalign.evaluation.judge import Verdicts
from personalign.evaluation.metrics import METRICS
from personalign.methods.systems import System, evaluate, gold_rows, predict
from personalign.methods.tables import legend, read_results, results_table, summary_rows, with_interval
from personalign.prompts import UNSELECTED


@dataclass(frozen=True)
class WordJudge:
    """A reply contradicts a line that it repeats behind "never", and entails any other that it repeats."""

    name: str = "words"

    def judge(self, pairs: Any) -> Verdicts:
        classes = [2 if f"never {line}" in reply else 0 if line in reply else 1 for line, reply in pairs]
        return Verdicts(np.eye(3, dtype=np.float32)[classes])


def row(
    response: str, *, relevant: list[int] | None, selected: int | None, dialogue: str = "d", **rest: Any
) -> dict[str, Any]:
    return {
        "dialogue": dialogue,
        "turn": 1,
        "persona": ["dogs", "tea"],
        "response": response,
        "gold": "i like dogs",
        "relevant": relevant,
        "selected": selected,
        "selects": True,
        "gold_nll": 2.0,
        "gold_tokens": 4,
        **rest,
    }


ROWS = [
    row("i like dogs", relevant=[0], selected=0),
    row("tea and dogs", relevant=[1], selected=None, dialogue="e"),
    row("hello", relevant=[], selected=None, dialogue="e"),
    row("tea", relevant=[], selected=1, dialogue="f", gold_nll=6.0, gold_tokens=2),
]


def measured(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return evaluate(rows, {"words": WordJudge()}, language="en", bootstrap=50, seed=1)


def test_hand_made_rows() -> None:
    result = measured(ROWS)
    assert result["turns"] == 4
    assert result["selection/accuracy"] == 0.5
    assert result["selection/accuracy_always_none"] == 0.5
    assert result["selection/accuracy_needed"] == 0.5
    assert result["share_none"] == 0.5
    assert result["ppl/token"] == pytest.approx(math.exp(12 / 14))
    judged = result["judge:words"]
    means = {name: value["mean"] for name, value in judged.items()}
    assert means == {
        "c_score/max/all": 0.75,
        "c_score/sum/all": 1.0,
        "entail_rate/all": 0.75,
        "contradict_rate/all": 0.0,
        "c_score/max/needs_line": 1.0,
        "c_score/sum/needs_line": 1.5,
        "entail_rate/needs_line": 1.0,
        "contradict_rate/needs_line": 0.0,
        "c_score/max/needs_none": 0.5,
        "c_score/sum/needs_none": 0.5,
        "entail_rate/needs_none": 0.5,
        "contradict_rate/needs_none": 0.0,
        "recall": 1.0,
    }
    for value in judged.values():
        assert value["low"] <= value["mean"] <= value["high"]


def test_recall_asks_for_the_labelled_line_and_no_other() -> None:
    right = measured([row("dogs", relevant=[0], selected=0), row("dogs", relevant=[1], selected=0)])
    assert right["judge:words"]["recall"]["mean"] == 0.5
    assert right["judge:words"]["entail_rate/needs_line"]["mean"] == 1.0
    assert "recall" not in measured(ROWS[2:])["judge:words"]


def test_the_best_line_hides_a_contradiction_from_the_maximum_alone() -> None:
    judged = measured([row("never tea but dogs", relevant=[1], selected=1), *ROWS[:1]])["judge:words"]
    assert judged["c_score/max/all"]["mean"] == 1.0
    assert judged["c_score/sum/all"]["mean"] == 0.5
    assert judged["contradict_rate/all"]["mean"] == 0.5
    assert judged["recall"]["mean"] == 0.5


def test_systems_that_do_not_select_have_no_selection_metrics() -> None:
    result = measured([item | {"selects": False, "selected": None} for item in ROWS])
    assert not any(name.startswith(("selection/", "share_none")) for name in result)


def test_unlabelled_turns_are_not_taken_for_turns_labelled_none() -> None:
    result = measured([item | {"relevant": None} for item in ROWS])
    assert not any(name.startswith("selection/") for name in result)
    assert {name.split("/")[-1] for name in result["judge:words"]} == {"all"}


def test_every_metric_goes_by_its_registered_name() -> None:
    result = measured(ROWS)
    names = {name for name in result if not name.startswith("judge:")} - {"turns", "copy_rate"}
    names |= {name.rsplit("/", 1)[0] for name in result["judge:words"] if "/" in name}
    assert names <= METRICS.keys()
    assert {
        "copy_rate",
        "bleu-1/coco",
        "rouge-l/coco",
        "entropy-4/corpus",
        "distinct-2/corpus",
    } <= result.keys()


def test_gold_rows_are_the_gold_replies() -> None:
    rows = gold_rows([baker(), greeter()])
    assert [item["response"] for item in rows] == [
        dialogue.messages[turn].content
        for dialogue in (baker(), greeter())
        for turn in dialogue.reply_indices()
    ]
    assert [item["relevant"] for item in rows] == [[0], [], [1, 0], [], [0]]
    result = measured(rows)
    assert result["bleu-1/coco"] == pytest.approx(100)
    assert "ppl/token" not in result


@pytest.mark.parametrize("strategy", ["unselected", "oracle"])
def test_predictions_are_one_row_per_turn_with_the_gold_replys_score(strategy: Any) -> None:
    loaded = tiny_model()
    system = System("made", "made", "stage", strategy)
    rows = predict(
        system,
        loaded,
        prompter(),
        [baker(), greeter()],
        selection=Selection(strategy),
        decoding=DecodingSettings(max_new_tokens=4),
        budget=200,
    )
    json.dumps(rows)
    assert [(item["dialogue"], item["turn"]) for item in rows] == [
        ("baker", 1), ("baker", 3), ("baker", 5), ("greeter", 1), ("greeter", 3),
    ]  # fmt: skip
    lines = {"unselected": [UNSELECTED] * 5, "oracle": [0, None, 1, None, 0]}[strategy]
    for item, line in zip(rows, lines, strict=True):
        dialogue = {"baker": baker(), "greeter": greeter()}[item["dialogue"]]
        prompt = prompter().reply(dialogue, item["turn"], line=line)
        target = prompter().reply_target(dialogue.messages[item["turn"]].content)
        ids = torch.tensor([[*prompt, *target]])
        with torch.no_grad():
            log_probs = loaded.model(input_ids=ids).logits[0].log_softmax(-1)
        places = torch.arange(len(prompt), ids.shape[1])
        assert item["gold_nll"] == pytest.approx(
            -float(log_probs[places - 1, ids[0, places]].sum()), abs=1e-3
        )
        assert item["gold_tokens"] == len(target)
        assert item["selects"] == (strategy == "oracle")
        assert item["selected"] == (line if strategy == "oracle" else None)


# Tables ----------------------------------------------------------------------------------------------------


def test_a_figure_that_does_not_exist_is_no_number() -> None:
    nan = math.nan
    assert with_interval({"mean": 0.5, "low": nan, "high": nan}) == "0.500"
    assert with_interval({"mean": 0.5, "low": None, "high": None}) == "0.500"
    assert with_interval({"mean": 0.5, "low": 0.25, "high": 0.75}) == "0.500 [0.250, 0.750]"
    assert [with_interval({"mean": mean, "low": nan, "high": nan}) for mean in (nan, None)] == ["-", "-"]
    # One dialogue, whose only turn needs no line.
    of_one = {"pal": {"title": "PAL", "part": "test", **measured(ROWS[2:3])}}
    assert math.isnan(of_one["pal"]["selection/accuracy_needed"])
    assert "nan" not in results_table(of_one)
    header, rows = summary_rows(of_one)
    assert "states" not in header
    assert "nan" not in rows[0]


def test_tables_show_every_metric_under_its_name(tmp_path: Path) -> None:
    results = {
        "gold": {
            "title": "gold replies",
            "part": "test",
            **measured([{k: v for k, v in r.items() if "gold_" not in k} | {"selects": False} for r in ROWS]),
        },
        "pal": {"title": "PAL", "part": "test", **measured(ROWS)},
    }
    assert "Another persona" not in results_table(results)
    results["other"] = {
        "title": "PAL, shuffled",
        "part": "shuffled",
        **measured(ROWS),
        "old_persona": {"words": 0.25},
    }
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert read_results(tmp_path) == results
    table = results_table(results)
    for name in (
        "bleu-1/coco",
        "entropy-4/corpus",
        "selection/macro_f1",
        "ppl/token",
        "c_score/max",
        "recall",
    ):
        assert name in table
    assert "## Consistency, words" in table
    assert "### On turns labelled none" in table
    assert "| PAL, shuffled | words | - | 0.250 |" in table
    assert legend(results)["states"].endswith("states that line (recall, judge words)")
    assert f"- *contra.*: {legend(results)['contra.']}.\n" in table
    header, rows = summary_rows(results)
    assert rows[2][1] == "-"
    assert header[:5] == ["system", "states", "contra.", "selects", "none"]
    assert rows[1][:5] == ["PAL", "1.00", "0.00", "0.50", "0.50"]
    assert rows[1][5:] == [f"{results['pal']['bleu-1/coco']:.1f}", f"{math.exp(12 / 14):.2f}"]
    assert [cell for cell in rows[0] if cell == "-"] == ["-"] * 3
    # Every line of a table has as many cells as its header.
    for block in table.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_a_gold_reply_beyond_what_the_model_takes_is_scored_as_far_as_it_goes() -> None:
    """It comes after all decoding, which one long reply must not throw away."""
    loaded, dialogue = tiny_model(), baker()
    system = System("plain", "Plain", "stage1", "unselected")

    def answered(longest: int | None) -> list[dict[str, Any]]:
        limited = replace(loaded, plan=replace(loaded.plan, longest=longest))
        return predict(
            system,
            limited,
            prompter(),
            [dialogue],
            selection=Selection("unselected"),
            decoding=DecodingSettings(max_new_tokens=2),
            budget=1000,
        )

    prompt = prompter().reply(dialogue, 5, line=UNSELECTED)
    target = prompter().reply_target(dialogue.messages[5].content)
    whole, cut = answered(None), answered(len(prompt) + 3)
    assert [row["gold_tokens"] for row in whole][-1] == len(target) > 3
    assert cut[-1]["gold_tokens"] == 3
    with torch.no_grad():
        logits = loaded.model(torch.tensor([[*prompt, *target]])).logits[0].log_softmax(-1)
    first = [float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(target[:3])]
    assert cut[-1]["gold_nll"] == pytest.approx(-sum(first), abs=1e-4)
    assert cut[:-1] == whole[:-1]
