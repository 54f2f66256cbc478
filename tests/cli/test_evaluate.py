"""`personalign evaluate` and `personalign metrics`: what they print and refuse."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from personalign._files import write_jsonl
from personalign.cli.main import build_app
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import write_dialogues


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def last_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    dialogues = [
        Dialogue(
            f"d{index}",
            ("i keep bees .",),
            (
                Turn("user", "pets ?"),
                Turn("assistant", f"{index} bees ."),
                Turn("user", "hm"),
                Turn("assistant", "yes ."),
            ),
            relevant=((0,), ()),
        )
        for index in range(12)
    ]
    write_dialogues(tmp_path / "data.jsonl", dialogues)
    for name, reply in (("good", "{} bees ."), ("bad", "no idea {}"), ("worse", "no")):
        rows = [
            {"dialogue": f"d{index}", "turn": turn, "response": reply.format(index) if turn == 1 else "yes ."}
            for index in range(12)
            for turn in (1, 3)
        ]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def test_systems_are_scored_and_tested_against_one(folder: Path) -> None:
    result = run(
        "evaluate", folder / "good.jsonl", f"base={folder / 'bad.jsonl'}", "--data", folder / "data.jsonl",
        "--metrics", "f1,bleu-1/coco", "--metrics", "length", "--against", "base", "--json",
    )  # fmt: skip
    found = last_json(result)
    assert found["turns"] == 24
    assert set(found["systems"]) == {"good", "base"}
    assert found["systems"]["good"]["f1/convai2"]["mean"] == pytest.approx(100)
    difference = found["differences"]["good"]["f1/convai2"]
    assert difference["difference"] == pytest.approx(30)
    assert difference["p_holm"] < 0.05
    assert "100.00** [100.00, 100.00]" in result.stdout
    assert "24 turns of 12 dialogues" in result.stdout


def test_all_metrics_by_default_and_what_is_missing_is_said(folder: Path) -> None:
    result = run("evaluate", folder / "good.jsonl", "--data", folder / "data.jsonl", "--json")
    found = last_json(result)
    assert found["systems"]["good"]["rouge-l/coco"]["mean"] == pytest.approx(100)
    assert found["left_out"]["ppl/token"] == "good lacks 'gold_nll' and 'gold_tokens' in every prediction"
    lines = result.stderr.splitlines()
    assert "left out, good lacks 'rank' in every prediction: hits@1, mrr" in lines
    assert "bleu-1/idl_legacy_char" not in found["systems"]["good"]


def test_a_part_and_seeds(folder: Path) -> None:
    files = f"two={folder / 'bad.jsonl'},{folder / 'worse.jsonl'}"
    found = last_json(
        run(
            "evaluate",
            files,
            "--data",
            folder / "data.jsonl",
            "--metrics",
            "length",
            "--part",
            "needs_line",
            "--json",
        )
    )
    assert found["turns"] == 12
    assert found["systems"]["two"]["length/tokens"]["seeds"] == [3.0, 1.0]
    assert found["systems"]["two"]["length/tokens"]["mean"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl is no file"),
        (["{0}/good.jsonl", "--metrics", "blue-1"], "there is no metric 'blue-1'"),
        (["{0}/good.jsonl", "--against", "x"], "'x' is none of the systems: 'good'"),
        (["{0}/good.jsonl", "{0}/good.jsonl"], "two systems are called 'good'"),
        (["{0}/data.jsonl"], "data.jsonl does not fit the data"),
        (["{0}/good.jsonl", "--judge", "nobody"], "there is no judge 'nobody'"),
        (["{0}/good.jsonl", "--metrics", ""], "--metrics names no metric"),
        (["two={0}/good.jsonl,{0}/good.jsonl"], "names one file twice"),
        # A mistake is told before a judge is opened.
        (["{0}/good.jsonl", "--against", "x", "--judge", "nobody"], "'x' is none of the systems"),
    ],
)
def test_mistakes_are_one_message(folder: Path, arguments: list[str], message: str) -> None:
    given = [argument.format(folder) for argument in arguments]
    result = run("evaluate", *given, "--data", folder / "data.jsonl")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


def test_one_system_alone_is_held_against_nothing(folder: Path) -> None:
    result = run("evaluate", folder / "good.jsonl", "--data", folder / "data.jsonl", "--against", "good")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no system to hold against 'good'" in result.stderr


def test_no_metric_at_all_is_an_error(folder: Path) -> None:
    result = run("evaluate", folder / "good.jsonl", "--data", folder / "data.jsonl", "--metrics", "hits@1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "none of the metrics can be computed" in result.stderr


def test_differences_are_printed_with_their_intervals(folder: Path) -> None:
    files = [folder / "good.jsonl", f"base={folder / 'bad.jsonl'}"]
    result = run("evaluate", *files, "--data", folder / "data.jsonl", "--metrics", "f1", "--against", "base")
    assert "good minus base" in result.stdout
    assert re.search(r"f1/convai2 .*\+\d+\.\d+ .*\+\d+\.\d+ to \+\d+\.\d+ .*better \*+", result.stdout)


def test_one_dialogue_has_figures_without_intervals(tmp_path: Path) -> None:
    turns = (Turn("user", "hi"), Turn("assistant", "hello there"))
    write_dialogues(tmp_path / "data.jsonl", [Dialogue("d", ("i fish .",), turns, relevant=((),))])
    for name, reply in (("good", "hello there"), ("bad", "no")):
        row = {"dialogue": "d", "turn": 1, "response": reply, "selected": None}
        write_jsonl(tmp_path / f"{name}.jsonl", [row])
    result = run(
        "evaluate", tmp_path / "good.jsonl", tmp_path / "bad.jsonl", "--data", tmp_path / "data.jsonl",
        "--metrics", "f1,selection/accuracy_needed", "--against", "bad",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "nan" not in result.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines()]
    assert ["f1/convai2", "100.00", "0.000"] in rows
    assert ["selection/accuracy_needed", "-", "-"] in rows
    assert ["f1/convai2", "+100.00", "-", "-", "better"] in rows
    assert ["selection/accuracy_needed", "-", "-", "-", ""] in rows


def test_the_oracle_refuses_lines_that_it_does_not_know(folder: Path) -> None:
    result = run("evaluate", folder / "good.jsonl", "--data", folder / "data.jsonl", "--judge", "oracle")
    assert result.exit_code == 1
    assert "the oracle knows the lines of the synthetic corpus alone" in result.stderr


@pytest.mark.parametrize(("language", "told"), [("en", True), ("zh", False)])
def test_chinese_that_is_cut_as_english_is_told(tmp_path: Path, language: str, told: bool) -> None:
    turns = (Turn("user", "你好吗"), Turn("assistant", "我很好"))
    write_dialogues(tmp_path / "data.jsonl", [Dialogue("a", ("我爱狗",), turns)])
    (tmp_path / "p.txt").write_text("我很好\n", encoding="utf-8")
    result = run(
        "evaluate",
        tmp_path / "p.txt",
        "--data",
        tmp_path / "data.jsonl",
        "--metrics",
        "length",
        "--language",
        language,
    )
    assert result.exit_code == 0
    assert ("most replies of the data are Chinese" in result.stderr) is told


def test_five_dialogues_are_too_few_to_test(tmp_path: Path) -> None:
    turns = (Turn("user", "hi"), Turn("assistant", "hello there"))
    for count, told in ((5, True), (6, False)):
        write_dialogues(tmp_path / "data.jsonl", [Dialogue(f"d{n}", (), turns) for n in range(count)])
        (tmp_path / "good.txt").write_text("hello there\n" * count)
        (tmp_path / "bad.txt").write_text("no\n" * count)
        files = [tmp_path / "good.txt", tmp_path / "bad.txt"]
        result = run(
            "evaluate", *files, "--data", tmp_path / "data.jsonl", "--metrics", "f1", "--against", "bad"
        )
        assert ("are too few to test" in result.stderr) is told


def test_the_synthetic_oracle_judges(tmp_path: Path) -> None:
    from personalign.data.synthetic import generate

    test = list(generate("en", seed=1, people={"test": 20}).test)
    write_dialogues(tmp_path / "data.jsonl", test)
    golds = [
        message.content for dialogue in test for message in dialogue.messages if message.role == "assistant"
    ]
    (tmp_path / "gold.txt").write_text("\n".join(golds) + "\n", encoding="utf-8")
    found = last_json(
        run(
            "evaluate",
            tmp_path / "gold.txt",
            "--data",
            tmp_path / "data.jsonl",
            "--judge",
            "oracle",
            "--json",
        )
    )["systems"]["gold"]
    assert found["recall"]["mean"] == 1.0
    assert found["contradict_rate"]["mean"] == 0.0
    assert found["self_contradiction/reply"]["mean"] == 0.0
    assert 0 < found["entail_rate"]["mean"] < 1


def test_metrics_are_listed_and_shown() -> None:
    listed = last_json(run("metrics", "list", "--json"))["metrics"]
    assert {"bleu-4/sacrebleu", "c_score/max", "hits@1"} <= {metric["name"] for metric in listed}
    result = run("metrics", "show", "bleu-4", "distinct-1/corpus")
    assert "smooth:exp" in result.stdout
    assert "jackknife by dialogue" in result.stdout
    assert run("metrics", "show", "bleu-9").exit_code == 1


def test_names_are_printed_as_they_are(folder: Path) -> None:
    (folder / "good.jsonl").rename(folder / "good[a].jsonl")
    result = run("evaluate", folder / "good[a].jsonl", f"[/x]={folder / 'bad.jsonl'}", "--data", folder / "data.jsonl",
                 "--metrics", "length")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "good[a]" in result.stdout
    assert "[/x]" in result.stdout


def test_no_name_is_cut_where_there_is_no_terminal(folder: Path) -> None:
    names = [f"a system with a very long name, number {number}" for number in range(4)]
    systems = [f"{name}={folder / 'good.jsonl'}" for name in names]
    arguments = ["evaluate", *systems, "--data", str(folder / "data.jsonl"), "--against", names[0]]
    result = CliRunner().invoke(build_app(), arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "…" not in result.stdout
    rows = [line for line in result.stdout.splitlines() if "distinct-1/corpus" in line]
    # One line in the table of figures, and one in each table of differences.
    assert len(rows) == 4
    [header] = [line for line in result.stdout.splitlines() if names[3] in line and "minus" not in line]
    assert all(name in header for name in names)
