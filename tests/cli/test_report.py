"""`personalign report` on runs and on predictions, and `personalign rank`."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.made_runs import shrunken
from typer.testing import CliRunner, Result

from personalign.cli.main import app
from personalign.data.formats import read_dialogues, write_dialogues


def personalign(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


def last_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def data_of(page: str) -> Any:
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    settings = [item for assignment in shrunken() for item in ("--set", assignment)]
    result = personalign("run", "quickstart", "--out", folder, *settings)
    assert result.exit_code == 0, result.output
    return folder


def test_a_run_is_reported_whole(finished: Path) -> None:
    result = personalign("report", finished, "--samples", 200, "--json")
    printed = last_json(result)
    assert printed["systems"][:3] == ["gold replies", "fine-tuning", "PAL stage 1"]
    assert not {"PAL, unseen values", "PAL, persona swapped"} & set(printed["systems"])
    page = (finished / "report" / "report.html").read_text(encoding="utf-8")
    for heading in ("Training", "Selection strategies", "Differences", "Cases", "Method"):
        assert f">{heading}</h2>" in page
    assert "stage2: implicit rewards" in page
    assert "margin" in page
    test = read_dialogues(finished / "data" / "test.jsonl.gz")
    cases = data_of(page)
    assert len(cases["cases"]) == printed["turns"] == sum(len(d.reply_indices()) for d in test)
    assert cases["judged"]
    # The oracle judges the gold replies: every labelled line is entailed and nothing contradicted.
    for _, _, relevant, _, _, verdicts, _ in cases["cases"]:
        assert all(verdicts[0][line] == "e" for line in relevant)
        assert "c" not in verdicts[0]
    rows = list(csv.DictReader((finished / "report" / "table.csv").open(encoding="utf-8")))
    recall = next(row for row in rows if (row["system"], row["metric"]) == ("gold replies", "recall"))
    assert float(recall["value"]) == 1.0
    results = json.loads((finished / "results.json").read_text())
    bleu = next(row for row in rows if (row["system"], row["metric"]) == ("PAL", "bleu-1/coco"))
    assert float(bleu["value"]) == pytest.approx(results["pal_predicted"]["bleu-1/coco"])
    assert r"\toprule" in (finished / "report" / "table.tex").read_text()
    assert "| PAL |" in (finished / "report" / "table.md").read_text()


def test_runs_of_one_recipe_are_seeds(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "again", ignore=shutil.ignore_patterns("report"))
    result = personalign(
        "report", finished, tmp_path / "again", "--out", tmp_path / "both", "--metrics", "recall,length",
        "--samples", 200, "--json",
    )  # fmt: skip
    assert last_json(result)["systems"].count("PAL") == 1
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert "quickstart, again" in page


def test_predictions_are_reported_against_one_of_them(finished: Path, tmp_path: Path) -> None:
    files = [
        f"{name}={finished / 'predictions' / f'{name}.jsonl'}" for name in ("finetuning", "pal_predicted")
    ]
    result = personalign(
        "report", *files, "--data", finished / "data" / "test.jsonl.gz", "--judge", "oracle", "--against", "finetuning",
        "--out", tmp_path / "out", "--samples", 200, "--title", "Mine & yours",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<h1>Mine &amp; yours</h1>" in page
    assert ">Differences</h2>" in page
    assert ">Training</h2>" not in page
    # Again into the same folder: a report may be replaced, nothing else.
    (tmp_path / "out" / "report.html").rename(tmp_path / "kept.html")
    again = personalign(
        "report", *files, "--data", finished / "data" / "test.jsonl.gz", "--out", tmp_path / "out"
    )
    assert "holds something else than a report" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}", "{0}/predictions/stage1.jsonl"], "give either run folders, or files"),
        (["{0}/predictions/stage1.jsonl"], "need --data"),
        (["{0}/predictions"], "is no run: it has no recipe.yaml"),
        (["{0}", "--against", "nobody"], "'nobody' is none of the systems"),
        (["{0}", "--metrics", "blue"], "there is no metric 'blue'"),
    ],
)
def test_mistakes_are_one_message(finished: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [argument.format(finished) for argument in arguments]
    result = personalign("report", *given, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_says_how_to_go_on(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "cut")
    (tmp_path / "cut" / "predictions" / "pal_oracle.jsonl").unlink()
    result = personalign("report", tmp_path / "cut")
    assert "is not finished: it lacks pal_oracle; go on with" in result.stderr
    assert "--resume" in result.stderr


def test_candidates_are_ranked_and_what_is_written_can_be_evaluated(finished: Path, tmp_path: Path) -> None:
    import dataclasses

    test = read_dialogues(finished / "data" / "test.jsonl.gz")
    golds = [
        message.content for dialogue in test for message in dialogue.messages if message.role == "assistant"
    ]
    listed = [
        dataclasses.replace(
            dialogue,
            candidates=tuple(
                tuple(dict.fromkeys([*golds[turn : turn + 4], dialogue.messages[turn].content]))
                for turn in dialogue.reply_indices()
            ),
        )
        for dialogue in test
    ]
    write_dialogues(tmp_path / "data.jsonl", listed)
    out = tmp_path / "ranks.jsonl"
    printed = last_json(personalign("rank", finished, tmp_path / "data.jsonl", "--out", out, "--json"))
    assert printed["turns"] == len(golds)
    found = last_json(
        personalign(
            "evaluate", out, "--data", tmp_path / "data.jsonl", "--metrics", "hits@1,mrr,selection", "--json"
        )
    )["systems"]["ranks"]
    assert found["hits@1"]["mean"] == printed["hits@1"]["mean"]
    assert found["mrr"]["mean"] == pytest.approx(printed["mrr"]["mean"])
    assert "selection/recall@1" in found
