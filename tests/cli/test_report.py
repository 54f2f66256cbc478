"""`personalign report` on runs and on predictions, and `personalign rank`."""

import csv
import json
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.evaluation.report.made_report import made_systems
from tests.methods.made_runs import shrunken
from typer.testing import CliRunner, Result

from personalign.cli.main import app
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import read_dialogues, write_dialogues
from personalign.evaluation.coherence import Triple
from personalign.evaluation.evaluate import evaluate
from personalign.evaluation.judge import Verdicts
from personalign.evaluation.metrics import find_metrics
from personalign.evaluation.significance import holm
from personalign.methods.recipe import override
from personalign.methods.reporting import REPORT_FILES, open_run, selection_section, share_a_backbone


def personalign(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


def last_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def data_of(page: str) -> Any:
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def another_run(finished: Path, folder: Path, *changes: str) -> Path:
    """A copy of a run whose recipe says something else."""
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("report"))
    recipe = folder / "recipe.yaml"
    values = override(yaml.safe_load(recipe.read_text(encoding="utf-8")), changes)
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


def predictions_of(finished: Path, *names: str) -> list[object]:
    """Arguments that name predictions of the run, and what they answer."""
    files = [f"{name}={finished / 'predictions' / f'{name}.jsonl'}" for name in names]
    return [*files, "--data", finished / "data" / "test.jsonl.gz"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    settings = [item for assignment in shrunken() for item in ("--set", assignment)]
    result = personalign("run", "quickstart-scratch", "--out", folder, *settings)
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
    assert "</svg>margin</li>" in page
    test = read_dialogues(finished / "data" / "test.jsonl.gz")
    cases = data_of(page)
    assert len(cases["cases"]) == printed["turns"] == sum(len(d.reply_indices()) for d in test)
    assert cases["judged"]
    # The oracle judges the gold replies: every labelled line is entailed and nothing contradicted.
    for _, _, relevant, _, _, verdicts, _ in cases["cases"]:
        assert all(verdicts[0][line] == "e" for line in relevant)
        assert "c" not in verdicts[0]
    rows = rows_in(finished / "report")
    recall = next(row for row in rows if (row["system"], row["metric"]) == ("gold replies", "recall"))
    assert float(recall["value"]) == 1.0
    results = json.loads((finished / "results.json").read_text())
    bleu = next(row for row in rows if (row["system"], row["metric"]) == ("PAL", "bleu-1/coco"))
    assert float(bleu["value"]) == pytest.approx(results["pal_predicted"]["bleu-1/coco"])
    assert r"\toprule" in (finished / "report" / "table.tex").read_text()
    assert "| PAL |" in (finished / "report" / "table.md").read_text()


def test_gold_replies_are_a_reference_and_no_competitor(finished: Path, tmp_path: Path) -> None:
    result = personalign(
        "report", finished, "--out", tmp_path / "out", "--metrics", "bleu-1/coco,recall", "--samples", 200
    )
    assert result.exit_code == 0, result.output
    rows = rows_in(tmp_path / "out")
    tested = {row["system"] for row in rows if row["test"]}
    assert "PAL" in tested
    assert not {"gold replies", "fine-tuning"} & tested
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert '<tr class="reference"><th scope="row">gold replies</th>' in page
    assert "gold replies minus" not in page
    assert "**100" not in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


def test_runs_of_one_recipe_are_seeds(finished: Path, tmp_path: Path) -> None:
    again = another_run(finished, tmp_path / "again", "seed=7", "name=again", "description=once more")
    result = personalign(
        "report", finished, again, "--out", tmp_path / "both", "--metrics", "recall,length", "--samples", 200, "--json"
    )  # fmt: skip
    assert last_json(result)["systems"].count("PAL") == 1
    page = (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    assert "quickstart; again" in page
    assert "one backbone" not in page
    assert "The replies are those of the first seed" in page
    assert {row["test"] for row in rows_in(tmp_path / "both")} == {"", "t-test over seeds"}


def test_seeds_may_share_the_backbone_that_one_of_them_made(finished: Path, tmp_path: Path) -> None:
    def beginning_from(maker: Path, name: str) -> Path:
        shared = f"backbone.name={maker / 'models' / 'backbone'}"
        rest = ("backbone.scratch=null", "stages.copying=null", "stages.pretrain=null")
        return another_run(finished, tmp_path / name, "seed=7", shared, *rest)

    arguments = ("--metrics", "length", "--samples", 200)
    again = beginning_from(finished, "again")
    result = personalign("report", finished, again, "--out", tmp_path / "both", *arguments)
    assert result.exit_code == 0, result.output
    assert "Seeds, all from one backbone" in (tmp_path / "both" / "table.md").read_text(encoding="utf-8")
    assert "1; 7, all from one backbone" in (tmp_path / "both" / "report.html").read_text(encoding="utf-8")
    wider = another_run(finished, tmp_path / "wider", "backbone.scratch.width=64")
    other = beginning_from(wider, "other")
    result = personalign("report", finished, other, "--out", tmp_path / "neither", *arguments)
    assert "`backbone.scratch.width` is" in " ".join(result.stderr.split())


def test_seeds_that_each_begin_from_a_backbone_of_their_own_share_none(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (another_run(finished, tmp_path / name) for name in ("first", "second"))

    def begun_from(backbone: object, name: str) -> Path:
        rest = ("backbone.scratch=null", "stages.copying=null", "stages.pretrain=null")
        return another_run(finished, tmp_path / name, f"backbone.name={backbone}/models/backbone", *rest)

    ones = [begun_from(first, "one"), begun_from(first, "once more"), begun_from("first", "relative")]
    other = begun_from(second, "other")
    # The name that is relative was so to a folder which is not the working folder any more.
    monkeypatch.chdir(finished)

    def share(*folders: Path) -> bool:
        return share_a_backbone([open_run(folder) for folder in folders])

    assert share(*ones)
    assert share(first, ones[0])
    assert not share(ones[0], other)
    assert not share(second, ones[0])
    assert not share(first, second)
    assert not share(ones[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "both have the seed 1"),
        (
            ["seed=2", "stages.stage1.epochs=3.0"],
            "`stages.stage1.epochs` is 1.0 in the first, 3.0 in the second",
        ),
        (["seed=2", "stages.finetuning=null"], "`stages.finetuning.learning_rate` is"),
    ],
)
def test_runs_that_are_no_seeds_are_refused(
    finished: Path, tmp_path: Path, changes: Sequence[str], message: str
) -> None:
    again = another_run(finished, tmp_path / "again", *changes)
    result = personalign("report", finished, again, "--out", tmp_path / "both")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 1
    assert message in said
    assert str(finished) in said
    assert str(again) in said


def test_runs_on_other_dialogues_are_refused(finished: Path, tmp_path: Path) -> None:
    again = another_run(finished, tmp_path / "again", "seed=2")
    dialogues = read_dialogues(again / "data" / "test.jsonl.gz")
    # The same turns and replies, of other people.
    others = [replace(dialogue, persona=dialogue.persona[::-1]) for dialogue in dialogues]
    write_dialogues(again / "data" / "test.jsonl.gz", others)
    result = personalign("report", finished, again, "--out", tmp_path / "both")
    assert "was tested on other dialogues than" in result.stderr


def test_predictions_are_reported_against_one_of_them(finished: Path, tmp_path: Path) -> None:
    result = personalign(
        "report", *predictions_of(finished, "finetuning", "pal_predicted"), "--judge", "oracle", "--against",
        "finetuning", "--out", tmp_path / "out", "--samples", 200, "--title", "Mine & yours",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<h1>Mine &amp; yours</h1>" in page
    assert ">Differences</h2>" in page
    assert ">Training</h2>" not in page


@pytest.mark.parametrize("name", REPORT_FILES)
def test_a_file_that_is_there_is_only_overwritten_when_asked(
    finished: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    (out / "notes.txt").write_text("mine too")
    given = ["report", *predictions_of(finished, "finetuning"), "--metrics", "length", "--out", out]
    # It is said before a judge is looked for, which would take hours.
    refused = personalign(*given, "--judge", "nobody")
    assert refused.exit_code == 1
    assert f"{out / name}: there already" in " ".join(refused.stderr.split())
    assert (out / name).read_text() == "mine"
    result = personalign(*given, "--force")
    assert result.exit_code == 0, result.output
    assert (out / name).read_text() != "mine"
    assert (out / "notes.txt").read_text() == "mine too"
    assert {path.name for path in out.iterdir()} == {*REPORT_FILES, "notes.txt"}


def test_the_report_of_a_run_is_not_overwritten_either(finished: Path, tmp_path: Path) -> None:
    run = another_run(finished, tmp_path / "run")
    given = ["report", run, "--metrics", "length", "--samples", 100]
    assert personalign(*given).exit_code == 0
    assert "there already" in personalign(*given).stderr
    assert personalign(*given, "--force").exit_code == 0


def test_a_report_in_the_working_folder_leaves_what_is_there(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    monkeypatch.chdir(tmp_path)
    result = personalign(
        "report", *predictions_of(finished, "finetuning"), "--metrics", "length", "--out", "."
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {*REPORT_FILES, "thesis.tex"}


def test_a_file_cannot_be_the_folder(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    result = personalign("report", finished, "--out", tmp_path / "taken" / "deeper", "--judge", "nobody")
    assert "taken is a file; name a folder with --out" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "nobody"], "'nobody' is none of the systems: 'finetuning'"),
        (["--against", "gold replies"], "'gold replies' is none of the systems: 'finetuning'"),
        (["--part", "needs_line"], "the part needs_line needs"),
        (["gold replies={0}/predictions/stage1.jsonl"], "a system cannot be called 'gold replies'"),
        (["{0}/recipe.yaml"], "recipe.yaml"),
    ],
)
def test_what_is_wrong_is_said_before_a_judge_is_opened(
    finished: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    dialogues = read_dialogues(finished / "data" / "test.jsonl.gz")
    write_dialogues(
        tmp_path / "unlabelled.jsonl", [replace(dialogue, relevant=None) for dialogue in dialogues]
    )
    predictions = finished / "predictions" / "finetuning.jsonl"
    result = personalign(
        "report", predictions, *(argument.format(finished) for argument in arguments),
        "--data", tmp_path / "unlabelled.jsonl", "--judge", "nobody", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert "there is no judge" not in result.stderr


def test_a_judge_of_coherence_scores_too(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Agreeing:
        shortened: frozenset[str] = frozenset()

        def classes(self, triples: Sequence[Triple]) -> list[int]:
            return [1] * len(triples)

    asked: list[str] = []

    def load(folder: str) -> Agreeing:
        asked.append(folder)
        return Agreeing()

    monkeypatch.setattr("personalign.evaluation.coherence.load_coherence_judge", load)
    result = personalign(
        "report", *predictions_of(finished, "finetuning"), "--metrics", "con,coh_con/clv",
        "--coherence-judge", "judges/clv", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert asked == ["judges/clv"]
    figures = {(row["system"], row["metric"]): float(row["value"]) for row in rows_in(tmp_path / "out")}
    assert figures["finetuning", "con/clv"] == 1.0
    assert figures["finetuning", "coh_con/clv"] == 0.0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<dt>coherence judge</dt><dd>judges/clv</dd>" in page


class Always:
    """A judge called after its folder, which says the same of every pair."""

    def __init__(self, folder: str) -> None:
        self.name = Path(folder).name
        self._kind = folder.startswith("kind")

    def judge(self, pairs: Sequence[tuple[str, str]]) -> Verdicts:
        verdict = [1.0, 0.0, 0.0] if self._kind else [0.0, 0.0, 1.0]
        return Verdicts(np.array([verdict] * len(pairs), dtype=np.float32).reshape(-1, 3))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personalign.methods.judges.open_judge", lambda name, **_: Always(name))


@pytest.mark.usefixtures("always")
def test_every_judge_that_is_named_scores(finished: Path, tmp_path: Path) -> None:
    result = personalign(
        "report", *predictions_of(finished, "finetuning"), "--metrics", "contradict_rate,length",
        "--judge", "kind", "--judge", "hard", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rates = {
        row["judge"]: float(row["value"])
        for row in rows_in(tmp_path / "out")
        if (row["system"], row["metric"]) == ("finetuning", "contradict_rate")
    }
    assert rates == {"kind": 0.0, "hard": 1.0}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Consistency with the persona, by hard" in page
    # The cases show what the first judge says.
    assert "c" not in "".join(data_of(page)["cases"][0][5])


@pytest.mark.usefixtures("always")
def test_judges_of_one_name_are_told_apart(finished: Path, tmp_path: Path) -> None:
    result = personalign(
        "report", *predictions_of(finished, "finetuning"), "--metrics", "contradict_rate,length",
        "--judge", "kind/nli", "--judge", "hard/nli", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = [row for row in rows_in(tmp_path / "out") if row["system"] == "finetuning"]
    rates = {row["judge"]: float(row["value"]) for row in rows if row["metric"] == "contradict_rate"}
    assert rates == {"kind/nli": 0.0, "hard/nli": 1.0}
    assert "length/tokens" in {row["metric"] for row in rows}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Consistency with the persona, by hard/nli" in page
    assert "<dt>judge</dt><dd>kind/nli; hard/nli</dd>" in page


def test_stars_are_corrected_for_the_tests_of_all_judges(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict(Always):
        def judge(self, pairs: Sequence[tuple[str, str]]) -> Verdicts:
            classes = [len(self.name + reply) % 3 for _, reply in pairs]
            return Verdicts(np.eye(3, dtype=np.float32)[classes].reshape(-1, 3))

    monkeypatch.setattr("personalign.methods.judges.open_judge", lambda name, **_: Strict(name))
    result = personalign(
        "report", *predictions_of(finished, "finetuning", "pal_predicted"), "--metrics", "contradict_rate,c_score,f1",
        "--judge", "one", "--judge", "other", "--against", "finetuning", "--out", tmp_path / "out", "--samples", 100,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    tested = [row for row in rows_in(tmp_path / "out") if row["p"]]
    assert {row["judge"] for row in tested} == {"one", "other", ""}
    corrected = holm([float(row["p"]) for row in tested])
    assert [float(row["p_holm"]) for row in tested] == pytest.approx(corrected)
    note = f"Holm's correction for {len(tested)} tests, of all judges together"
    assert note in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"<dt>tests</dt><dd>{max(100, 20 * len(tested))} resamples by dialogue</dd>" in page


def test_strategies_are_shown_in_chinese_too() -> None:
    made = made_systems()
    titles = {"PAL": "good", "PAL, random selection": "liar & co_1", "fine-tuning": "dull"}
    systems = {
        title: [replace(answers, language="zh") for answers in made[name]] for title, name in titles.items()
    }
    found = evaluate(systems, metrics=find_metrics(["recall", "bleu-1/coco", "length"]))
    charts = selection_section(found).charts
    assert [chart.split("<figcaption>")[1].split("<")[0] for chart in charts] == [
        "recall@char",
        "bleu-1/coco@char",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{0}", "{0}/predictions/stage1.jsonl"], "give either run folders, or files"),
        (["{0}/predictions/stage1.jsonl"], "need --data"),
        (["{0}x"], "quickstartx is neither a run folder nor a file"),
        (["{0}", "{0}x"], "quickstartx is neither a run folder nor a file"),
        (["{0}/predictions"], "is no run: it has no recipe.yaml"),
        (["{0}", "--against", "nobody"], "'nobody' is none of the systems"),
        (["{0}", "--metrics", "blue"], "there is no metric 'blue'"),
        (["{0}", "--judge", "oracle", "--judge", "oracle"], "are one; name every judge once"),
        (["{0}", "--judge", "{0}/models", "--judge", "{0}/data/../models"], "are one; name every judge once"),
    ],
)
def test_mistakes_are_one_message(finished: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [argument.format(finished) for argument in arguments]
    result = personalign("report", *given, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_says_how_to_go_on(finished: Path, tmp_path: Path) -> None:
    cut = another_run(finished, tmp_path / "it's cut")
    (cut / "predictions" / "pal_oracle.jsonl").unlink()
    result = personalign("report", cut)
    assert "is not finished: it lacks pal_oracle; go on with" in result.stderr
    [told] = re.findall("go on with `(.*)`", result.stderr)
    wanted = ["personalign", "run", str(cut / "recipe.yaml"), "--out", str(cut), "--resume"]
    assert shlex.split(told) == wanted


def test_candidates_are_ranked_and_what_is_written_can_be_evaluated(finished: Path, tmp_path: Path) -> None:
    test = read_dialogues(finished / "data" / "test.jsonl.gz")
    golds = [
        message.content for dialogue in test for message in dialogue.messages if message.role == "assistant"
    ]
    listed = [
        replace(
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


def test_ranking_says_what_makes_its_figures_mean_little(finished: Path, tmp_path: Path) -> None:
    known = read_dialogues(finished / "data" / "test.jsonl.gz")[0]
    foreign = (Turn("user", "quelle heure ?"), Turn("assistant", "midi pile"))
    alone = [(known.messages[turn].content,) for turn in known.reply_indices()]
    dialogues = [
        replace(known, candidates=tuple(alone)),
        Dialogue("fr", ("j'aime le vin",), foreign, candidates=(("midi pile", "non merci"),)),
    ]
    told = []
    for some in (dialogues[:1], dialogues[1:]):
        write_dialogues(tmp_path / "data.jsonl", some)
        result = personalign("rank", finished, tmp_path / "data.jsonl")
        told.append(result.stderr)
        # One dialogue has no interval.
        assert re.search(r"^hits@1 +[01]\.\d{3}$", result.stdout, re.MULTILINE)
    count = len(alone)
    assert f"{count} of {count} turns have no candidate but the gold reply, and count as hits" in told[0]
    assert "does not know" not in told[0]
    assert "of the words of these dialogues" in told[1]
    assert "no candidate but" not in told[1]
