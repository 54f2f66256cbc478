"""IDL from sessions to a table: nobody's words leak, every comparison has what its name says, a run is resumed."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.made_runs import SilentReporter, tiny_model
from typer.testing import CliRunner

from personalign.cli.main import app
from personalign.data.formats import read_dialogues, write_dialogues
from personalign.data.people import people_of
from personalign.data.synthetic import generate
from personalign.errors import PersonalignError
from personalign.methods.idl_lineup import idl_systems
from personalign.methods.idl_parts import load_people
from personalign.methods.idl_recipe import TEST, IdlRecipe, parse_idl_recipe
from personalign.methods.idl_run import IdlRun
from personalign.methods.idl_tables import idl_tables
from personalign.methods.opening import open_model
from personalign.methods.recipe import override
from personalign.methods.reporting import answers_of_runs, open_run
from personalign.methods.stages import stage_settings
from personalign.methods.steps import Step
from personalign.prompts import Prompter


def values() -> dict[str, Any]:
    stage = {"learning_rate": 0.01, "batch_examples": 12, "steps": 2, "warmup_steps": 0}
    people = {"train": 5, "align": 5, "test": 2, "sessions": 6, "exchanges": 2}
    return {
        "name": "remembering",
        "method": "idl",
        "data": {"synthetic": people},
        "backbone": {
            "scratch": {"shape": "llama", "width": 16, "layers": 1, "heads": 2, "max_positions": 512},
            "device": "cpu",
            "dtype": "float32",
        },
        "prompts": {"max_tokens": 400, "reserve": 20},
        "sessions": {"extractor": "oracle", "identification": "every", "supervise": "every"},
        "stages": {"finetuning": stage, "gold": stage, "stage1": stage, "stage2": stage},
        "decoding": {"max_new_tokens": 5},
        "compared": {"sessions": [0, 2], "out_of_cluster": True, "attention": 3},
        "evaluation": {"judges": ["oracle"], "bootstrap": 10},
    }


def recipe(*assignments: str) -> IdlRecipe:
    return parse_idl_recipe(override(values(), assignments), source="made.yaml")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True, slots=True)
class Prompted:
    """A prompt that was made: of which session, for which turn of what the system sees, and during which step."""

    session: str
    turn: int
    step: str
    text: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[IdlRun, dict[str, Any], list[Prompted]]:
    """A run, its records, and every prompt of a reply that was made."""
    seen: list[Prompted] = []
    doing = [""]
    made = Prompter.reply

    def watched(self: Prompter, dialogue: Any, turn: int, **rest: Any) -> list[int]:
        prompt = made(self, dialogue, turn, **rest)
        seen.append(Prompted(dialogue.id, turn, doing[0], self.tokenizer.decode(prompt)))
        return prompt

    def during(step: Step) -> Step:
        def work() -> dict[str, Any]:
            doing[0] = step.name
            return step.work()

        return replace(step, work=work)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Prompter, "reply", watched)
        run = IdlRun(recipe(), tmp_path_factory.mktemp("runs") / "made", reporter=SilentReporter())
        steps = run.steps()
        patched.setattr(run, "steps", lambda: [during(step) for step in steps])
        records = run.run()
    return IdlRun(recipe(), run.folder, reporter=SilentReporter()), records, seen


def rows_of(folder: Path, system: str) -> list[dict[str, Any]]:
    lines = (folder / "predictions" / f"{system}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_system_answers_every_turn_of_the_tested_people(finished: Any) -> None:
    run, records, _ = finished
    test = run.parts()["test"]
    expected = {(item.id, turn) for item in test for turn in item.reply_indices()}
    assert len(expected) == 2 * 6 * 2
    for system in idl_systems(run.recipe):
        rows = rows_of(run.folder, system.name)
        assert {(row["dialogue"], row["turn"]) for row in rows} == expected, system
        by_id = {item.id: item for item in test}
        for row in rows:
            assert row["gold"] == by_id[row["dialogue"]].messages[row["turn"]].content
            assert row["persona"] == list(by_id[row["dialogue"]].persona)
    assert set(records["results"]["systems"]) == {
        "gold_replies",
        *(item.name for item in idl_systems(run.recipe)),
    }


def test_what_each_stage_and_system_starts_from(finished: Any) -> None:
    run, records, _ = finished
    steps = {step.name: step for step in run.steps()}
    assert steps["stage2"].after == steps["stage2_dpo"].after == ("stage1", "triples")
    assert steps["predict:without_dpa"].after == ("stage1",)
    assert steps["predict:icl"].after == steps["predict:system"].after == ("backbone",)
    assert records["stage2"]["largest_log_ratio"] <= 1e-4
    # The three replies of a turn against the two.
    assert records["stage2"]["trees"]["examples"] == records["stage2_dpo"]["trees"]["examples"]
    assert (
        records["stage2"]["trees"]["supervised_tokens"] > records["stage2_dpo"]["trees"]["supervised_tokens"]
    )


def test_profiles_and_sessions_stand_in_the_prompts_of_those_alone_that_are_named_after_them(
    finished: Any,
) -> None:
    """And nobody reads what is said at the turn that is answered, or after it."""
    run, _, seen = finished
    sessions = {item.id: item for part in run.parts().values() for item in part}
    profiled = {"gold", "predict:gold", "predict:system"}
    alone = {"finetuning", "predict:finetuning", "predict:icl_0", "predict:idl_0", *profiled}
    steps = {item.step for item in seen}
    assert (
        profiled | alone | {"stage1", "stage2", "stage2_dpo", "predict:idl", "predict:icl", "attention"}
        <= steps
    )
    for item in seen:
        if item.step == "attention" and item.turn % 2 == 0:
            # Of the told sessions alone, to know where they end.
            continue
        session = sessions[item.session]
        profile = item.text.partition("User:")[0]
        shown = sum(line in profile for line in session.persona)
        assert shown == (len(session.persona) if item.step in profiled else 0), item
        said = item.text.count("User:")
        assert said == item.turn // 2 + 1
        if item.step in alone:
            assert item.turn < len(session.messages)
        # What is asked stands there, what is answered and all after it does not.
        place = item.turn % len(session.messages)
        assert item.text.rstrip().endswith(f"User: {session.messages[place - 1].content}\nAssistant:"), item


def test_the_labels_are_those_that_a_told_session_expresses(finished: Any) -> None:
    run, _, _ = finished
    by_person = {person.name: person.sessions for person in people_of(run.parts()["test"])}
    labelled = 0
    for session in read_dialogues(str(run.folder / "tested" / "test.jsonl.gz")):
        others = [item for item in by_person[str(session.person)] if item.id != session.id]
        told = {line for item in others for lines in item.relevant or () for line in lines}
        original = next(item for item in by_person[str(session.person)] if item.id == session.id)
        assert session.relevant is not None
        for kept, lines in zip(session.relevant, original.relevant or (), strict=True):
            assert kept == tuple(line for line in lines if line in told)
            labelled += len(kept)
    assert labelled > 0


def test_who_is_told_nothing_counts_no_sessions_and_baselines_learn_from_all(finished: Any) -> None:
    run, records, _ = finished
    told = {name: system["told"] for name, system in records_of(run).items() if "told" in system}
    assert told["finetuning"] == told["gold"] == told["system"] == told["idl_0"] == 0
    assert told["idl"] == told["icl"] == 5
    assert told["idl_2"] == 2
    assert "references" not in records["predict:gold"]
    every = sum(len(item.reply_indices()) for name in ("train", "align") for item in run.parts()[name])
    for stage in ("finetuning", "gold"):
        assert records[stage]["trees"]["examples"] == every


def test_of_either_clusters_as_many_are_told_as_the_prompts_have_room_for(
    finished: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    shutil.copytree(finished[0].folder, folder)
    # It would be done again with other prompts.
    (folder / "steps" / "backbone.json").unlink()
    counts = {}
    for tokens in (110, 400):
        run = IdlRun(recipe(f"prompts.max_tokens={tokens}"), folder, reporter=SilentReporter())
        pair = [system for system in idl_systems(run.recipe) if system.clusters is not None]
        near, far = ([len(item.references) for item in run._told(system)] for system in pair)
        assert near == far
        counts[tokens] = sum(near)
    assert 0 < counts[110] < counts[400]


def records_of(run: IdlRun) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
    return found


def test_what_cannot_be_answered_or_would_tell_itself_is_left_out(tmp_path: Path) -> None:
    corpus = generate("en", seed=3, people={"train": 6, "test": 2}, sessions_per_person=3, exchanges=2)
    test = list(corpus.test)
    asking = tuple(turn for turn in test[0].messages if turn.role == "user")
    silent = replace(test[0], id="silent", messages=asking, relevant=None)
    heard = replace(test[1], extra={"conversation": "c"})
    mirrored = replace(test[2], extra={"conversation": "c"})
    write_dialogues(tmp_path / "train.jsonl", corpus.train)
    write_dialogues(tmp_path / "test.jsonl", [silent, test[0], heard, mirrored, *test[3:]])
    made = values() | {
        "data": {
            "files": {
                "train": [str(tmp_path / "train.jsonl")],
                "test": {"test": {"file": str(tmp_path / "test.jsonl")}},
                "align_share": 0.4,
            }
        },
        "backbone": {"scratch": {"shape": "llama", "width": 16, "layers": 1, "heads": 2, "tokenizer": "bpe"}},
        "sessions": {},
        "evaluation": {"judges": []},
    }
    reporter = SilentReporter()
    parts = load_people(parse_idl_recipe(made, source="made"), say=reporter.said.append)
    assert [item.id for item in parts["test"]] == [test[0].id, test[1].id, *(item.id for item in test[3:])]
    assert any(
        "2 of 7 sessions left out: in 1 the person says nothing, 1 are" in said for said in reporter.said
    )


def test_somebody_without_a_profile_leaves_the_others_judged(finished: Any) -> None:
    run, _, _ = finished
    rows = rows_of(run.folder, "idl")
    stranger = rows[0]["dialogue"].rpartition("-")[0]
    profiled = [row for row in rows if not row["dialogue"].startswith(stranger)]
    assert 0 < len(profiled) < len(rows)
    judges = {"oracle": run._judge("oracle")}
    asked = [row | {"persona": row["persona"] if row in profiled else [], "relevant": None} for row in rows]
    mixed = run._measured(asked, "IDL", TEST, judges, {})
    alone = run._measured([row for row in asked if row["persona"]], "IDL", TEST, judges, {})
    assert mixed["judge:oracle"] == alone["judge:oracle"]
    assert (mixed["turns"], mixed["judged_turns"]) == (len(rows), len(profiled))
    table = idl_tables({"idl": mixed | {"people": 2}}, {"counts": {}, "examples": {}}, {})
    assert (
        f"Consistency, oracle, without {len(rows) - len(profiled)} turns of people who have no profile:"
        in table
    )
    nobody = [row | {"persona": []} for row in asked]
    assert "judge:oracle" not in run._measured(nobody, "IDL", TEST, judges, {})


def test_the_tables_name_people_and_criteria(finished: Any) -> None:
    run, records, _ = finished
    table = (run.folder / "table.md").read_text(encoding="utf-8")
    assert "2 people, 24 turns." in table
    for title in ("in-context learning", "IDL w/o DPA, SPI, DPI", "IDL, 2 sessions", "### inversion"):
        assert title in table
    counts = records["triples"]["counts"]
    kinds = ("inconsistency", "fabrication", "inversion")
    assert sum(counts.get(kind, 0) for kind in kinds) == records["stage2"]["trees"]["examples"] + sum(
        records["stage2"]["dropped"].values()
    )
    judged = records["results"]["criteria"]["oracle"]
    # The grammar's conflicts are conflicts, and nothing that is worse is entailed.
    assert judged["inconsistency"]["contradicts"] == 1.0
    assert all(judged[kind]["entailed"] == 0 for kind in kinds)
    assert judged["gold"]["contradicts"] == 0


def test_a_report_reads_the_run(finished: Any) -> None:
    run, _, _ = finished
    opened = open_run(run.folder)
    assert opened.bounds() == frozenset()
    systems = answers_of_runs([opened], language="en")
    assert {"IDL", "in-context learning", "gold replies"} <= set(systems)
    # Every session is answered, so that each has the others for its past.
    assert all(question.past for question in systems["IDL"][0].questions)


def test_the_report_shows_numbers_of_sessions_and_attention(finished: Any, tmp_path: Path) -> None:
    run, records, _ = finished
    result = CliRunner().invoke(app, ["report", str(run.folder), "--out", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    for heading in ("Number of sessions", "Attention", "stage2: DPOC loss", "stage2: implicit rewards"):
        assert heading in page
    assert page.count("bold: words of the profile") == 2
    assert records["attention"]["IDL"]["sessions"] == 3
    assert 0 < records["attention"]["IDL"]["all"] < 1
    assert "of the 100 tokens most attended to" in (run.folder / "table.md").read_text(encoding="utf-8")


def test_attention_is_not_looked_at_where_layers_see_windows(
    finished: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    shutil.copytree(finished[0].folder, folder)
    run = IdlRun(recipe(), folder, reporter=(said := SilentReporter()))
    opened = run._models.open("stage2")
    windowed = replace(opened, plan=replace(opened.plan, window=5))
    monkeypatch.setattr(run._models, "open", lambda stage: windowed)
    assert run._attention() == {}
    assert any("Attention is not looked at" in text for text in said.said)


def test_the_published_model_opens(finished: Any) -> None:
    run, _, _ = finished
    model = open_model(run.folder)
    assert model.prompter.hash == run.prompter().hash


def test_what_is_done_is_not_done_again(finished: Any) -> None:
    run, _, _ = finished
    again = IdlRun(recipe(), run.folder, reporter=SilentReporter())
    assert {item.state for item in again.plan()} == {"done"}
    changed = IdlRun(recipe("stages.stage2.penalty=1"), run.folder, reporter=SilentReporter())
    redone = {item.step.name for item in changed.plan() if item.state != "done"}
    assert "stage1" not in redone
    assert {"stage2", "predict:idl", "predict:idl_2", "results"} <= redone
    assert {"stage2_dpo", "predict:without_dpa", "predict:without_criterion"}.isdisjoint(redone)
    judged = IdlRun(recipe("evaluation.judges=[]"), run.folder, reporter=SilentReporter())
    assert {item.step.name for item in judged.plan() if item.state != "done"} == {"results"}
    shorter = IdlRun(recipe("prompts.max_tokens=380"), run.folder, reporter=SilentReporter())
    redone = {item.step.name for item in shorter.plan() if item.state != "done"}
    assert {"predict:icl", "predict:system"} <= redone
    ordered = IdlRun(recipe("sessions.ordering=none"), run.folder, reporter=SilentReporter())
    redone = {item.step.name for item in ordered.plan() if item.state != "done"}
    assert "finetuning" not in redone
    assert {"stage1", "triples", "stage2", "predict:icl"} <= redone


def test_the_penalty_reaches_the_trainer() -> None:
    stage = recipe(
        "stages.stage2.penalty=7", "stages.stage2.penalty_in=inside", "stages.stage2.beta=0.7"
    ).stages.stage2
    settings = stage_settings(stage, seed=1, loaded=tiny_model(), objective="dpoc")
    assert (settings.objective, settings.penalty, settings.penalty_in, settings.beta) == (
        "dpoc",
        7,
        "inside",
        0.7,
    )


def test_people_who_share_a_line_with_the_tested_are_not_learnt_from(tmp_path: Path) -> None:
    corpus = generate("en", seed=3, people={"train": 6, "test": 2}, sessions_per_person=3, exchanges=2)
    train, test = list(corpus.train), list(corpus.test)
    line = test[0].persona[0]
    train[0:3] = [replace(item, persona=(line, *item.persona[1:])) for item in train[0:3]]
    write_dialogues(tmp_path / "train.jsonl", train)
    write_dialogues(tmp_path / "test.jsonl", test)
    made = values() | {
        "data": {
            "files": {
                "train": [str(tmp_path / "train.jsonl")],
                "test": {"test": {"file": str(tmp_path / "test.jsonl"), "answer": "last"}},
                "align_share": 0.4,
                "limit": 5,
            }
        },
        "backbone": {"scratch": {"shape": "llama", "width": 16, "layers": 1, "heads": 2, "tokenizer": "bpe"}},
        "sessions": {},
        "evaluation": {"judges": []},
    }
    reporter = SilentReporter()
    run = IdlRun(parse_idl_recipe(made, source="made"), tmp_path / "run", reporter=reporter)
    run.run(until="data")
    learnt = {item.person for name in ("train", "align") for item in run.parts()[name]}
    assert learnt == {person.name for person in people_of(corpus.train)} - {train[0].person}
    assert any("1 of 6 people left out" in said for said in reporter.said)
    assert {item.person for item in run.parts()["train"]}.isdisjoint(
        {item.person for item in run.parts()["align"]}
    )


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("data.files={train: [a], test: {other: {file: b}}}", "name the people that the report is on `test`"),
        ("stages.stage2.only_labelled=true", "stages.stage2.only_labelled has no meaning in IDL"),
        ("stages.stage1.evaluate_every=3", "stages.stage1.evaluate_every has no meaning in IDL"),
        ("stages.gold.reply_weight=0.5", "stages.gold.reply_weight has no meaning in IDL"),
        ("prompts.template=paper", "template is trunk-first"),
        ("prompts.history=3", "history null"),
        ("evaluation.strategies=[predicted]", "evaluation.strategies are ways of selecting"),
        ("compared.sessions=[1, 1]", "each number once"),
        ("decoding.engine=openai", "decoding.engine: IDL decodes here"),
        ("sessions.ordering=nearest", "sessions.ordering"),
        ("sessions.clusters=0", "sessions.clusters"),
        ("data.split_seed=2", "data.split_seed decides which people of files"),
        ("sessions={clusterer: dbscan, clusters: 4}", "dbscan finds the number of clusters itself"),
        ("backbone.name=some/model", "give either `name` or `scratch`"),
        ("penalty=3", "there is no key `penalty`"),
    ],
)
def test_mistakes_are_named(assignment: str, message: str) -> None:
    made = values()
    if assignment.startswith("data.files"):
        made["data"] = {}
        made["backbone"]["scratch"]["tokenizer"] = "bpe"
    with pytest.raises(PersonalignError, match=r"made\.yaml") as raised:
        parse_idl_recipe(override(made, [assignment]), source="made.yaml")
    assert message in str(raised.value)


def test_clusters_mean_nothing_to_the_release() -> None:
    release = "sessions={identification: release, clusters: 4}"
    with pytest.raises(PersonalignError, match="leave clusterer and clusters out"):
        recipe(release, "compared.out_of_cluster=false")
    assert recipe(release).sessions.clusters == 4


def test_the_oracle_knows_the_synthetic_corpus_alone() -> None:
    made = values()
    made["data"] = {"files": {"train": ["a"], "test": {"test": {"file": "b"}}}}
    made["backbone"]["scratch"]["tokenizer"] = "bpe"
    with pytest.raises(PersonalignError, match="the oracle knows the synthetic corpus alone"):
        parse_idl_recipe(made, source="made.yaml")
