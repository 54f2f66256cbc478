"""A run that goes on later, elsewhere or with other software: by a server, with damaged files, in another precision."""

import contextlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.fake_server import Answer, serving
from tests.methods.made_adapted import recipe, rows_of
from tests.methods.made_runs import SilentReporter, dying_before_its_marker

from personalign._ranks import Ranks
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.plain import plain_generate
from personalign.errors import PersonalignError
from personalign.evaluation.judge import SharedJudge
from personalign.evaluation.judge_cache import CachedJudge
from personalign.methods.models import ModelStore
from personalign.methods.run import PalRun
from personalign.prompts.wording import VERSION

# A server -------------------------------------------------------------------------------------------------


def test_a_run_through_a_server_leaves_the_same_replies_and_no_store(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has the model of one stage at a time; the run says which it lacks, and goes on."""
    local = PalRun(recipe(sources), tmp_path / "local", reporter=SilentReporter())
    local.run()
    asked = recipe(sources, "decoding.engine=openai")
    remote = PalRun(asked, tmp_path / "remote", reporter=SilentReporter())
    with serving() as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        fake.answer = lambda request: completion(
            ModelStore(asked, tmp_path / "remote" / "models", reporter=SilentReporter()), request
        )
        served = {
            item.step.name: f"{item.step.name}-{item.fingerprint[:8]}"
            for item in remote.plan()
            if item.step.name in ("stage1", "stage2")
        }
        for stage in served.values():
            fake.listed = (200, {"data": [{"id": "other"}]}, {})
            with pytest.raises(PersonalignError, match=f"has no model '{stage}', only other"):
                remote.run()
            fake.listed = (200, {"data": [{"id": stage}]}, {})
            with contextlib.suppress(PersonalignError):
                remote.run()
        fake.listed = (200, {"data": [{"id": stage} for stage in served.values()]}, {})
        remote.run()
    for path in sorted((tmp_path / "local" / "predictions").iterdir()):
        assert [row["response"] for row in rows_of(tmp_path / "remote", path.stem)] == [
            row["response"] for row in rows_of(tmp_path / "local", path.stem)
        ]
    rejected = [(tmp_path / name / "rejected.jsonl").read_bytes() for name in ("local", "remote")]
    assert rejected[0] == rejected[1]
    assert not list((tmp_path / "remote" / "checkpoints").iterdir())


def test_what_a_server_answered_outlives_a_kill_before_its_step_is_done(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(sources, "decoding.engine=openai")
    folder = tmp_path / "remote"
    with serving() as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        run = PalRun(asked, folder, reporter=SilentReporter())
        [stage1] = [item.fingerprint[:8] for item in run.plan() if item.step.name == "stage1"]
        fake.listed = (200, {"data": [{"id": f"stage1-{stage1}"}]}, {})
        fake.answer = lambda request: completion(
            ModelStore(asked, folder / "models", reporter=SilentReporter()), request
        )

        with dying_before_its_marker("rejected"):
            run.run(until="rejected")
        answered, rejected = len(fake.requests), (folder / "rejected.jsonl").read_bytes()
        assert answered
        # By another process than asked for them.
        [held] = (folder / "checkpoints" / "rejected").iterdir()
        held.rename(held.with_name(held.name.replace("-0.", "-1.")))
        PalRun(asked, folder, reporter=SilentReporter()).run(until="rejected")
    assert len(fake.requests) == answered
    assert (folder / "rejected.jsonl").read_bytes() == rejected
    assert not (folder / "checkpoints" / "rejected").exists()


# What may not change within a run ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("steps/data.json", "remove it"),
        ("rejected.jsonl", r"remove .*steps/rejected\.json"),
        ("predictions/pal_predicted.jsonl", r"remove .*steps/predict-pal_predicted\.json"),
        ("calibration/stage2.json", r"remove .*steps/predict-pal_predicted\.json"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(
    finished: tuple[PalRun, dict[str, Any]], sources: Path, tmp_path: Path, path: str, advice: str
) -> None:
    run, _ = finished
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    os.truncate(folder / path, 10)
    for marker in ("stage2", "results"):
        (folder / "steps" / f"{marker}.json").unlink()
    with pytest.raises(PersonalignError, match=rf"{path}.* damaged .*; {advice}"):
        PalRun(run.recipe, folder, reporter=SilentReporter()).run()


def test_other_words_of_the_prompts_are_other_stages(
    finished: tuple[PalRun, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = finished
    monkeypatch.setattr("personalign.methods.step_run.VERSION", VERSION + 1)
    states = {item.step.name: item for item in run.plan()}
    assert states["data"].state == "done"
    for step in ("backbone", "stage1"):
        assert states[step].changes == (f"prompts.wording: {VERSION} -> {VERSION + 1}",)


def test_another_chat_template_in_the_middle_of_a_run_is_refused(
    finished: tuple[PalRun, dict[str, Any]], tmp_path: Path
) -> None:
    """As another version of a model on the hub may bring along."""
    run, _ = finished
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    marker = folder / "steps" / "backbone.json"
    record = json.loads(marker.read_text())
    record["record"]["prompt_hash"] = "other"
    marker.write_text(json.dumps(record))
    with pytest.raises(PersonalignError, match=r"begun with other prompts, .* --out"):
        PalRun(run.recipe, folder, reporter=SilentReporter()).prompter()


@pytest.mark.parametrize("begun", ["bfloat16", "float32"])
def test_auto_stays_what_it_was_when_the_run_began(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    made = recipe(sources, "backbone.dtype=auto")
    run = PalRun(made, tmp_path, reporter=SilentReporter())
    # So small a model computes in float32 by itself.
    if begun == "bfloat16":
        monkeypatch.setattr("personalign.models.precision.LARGE_ENOUGH_FOR_BF16_ON_CPU", 0)
    monkeypatch.setattr("personalign.models.precision.cpu_multiplies_bf16", lambda: True)
    assert run.run(until="backbone")["backbone"]["precision"] == begun
    monkeypatch.setattr(
        "personalign.models.precision.LARGE_ENOUGH_FOR_BF16_ON_CPU", 10**12 if begun == "bfloat16" else 0
    )
    assert run._models.open("backbone").precision.dtype == begun
    monkeypatch.setattr("personalign.models.precision.cpu_multiplies_bf16", lambda: False)
    again = PalRun(made, tmp_path, reporter=SilentReporter())
    if begun == "float32":
        assert again._models.open("backbone").precision.dtype == begun
    else:
        with pytest.raises(PersonalignError, match="begun in bfloat16, but this CPU has neither"):
            again._models.open("backbone")


def test_processes_that_judge_together_keep_their_verdicts(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    run = PalRun(recipe(sources), tmp_path, reporter=SilentReporter(), ranks=Ranks(0, 2))
    judge = run._judge("llm:small")
    assert isinstance(judge, SharedJudge)
    assert isinstance(judge.inner, CachedJudge)


ONE_AT_A_TIME = threading.Lock()


def completion(store: ModelStore, request: dict[str, Any]) -> Answer:
    settings = DecodingSettings(max_new_tokens=request["max_tokens"])
    with ONE_AT_A_TIME:
        loaded = store.open(request["model"].split("-")[0])
        [[grown]] = plain_generate(
            loaded, [[request["prompt"]]], decoding=settings, end_ids=request["stop_token_ids"]
        )
    text = loaded.tokenizer.decode(grown.tokens, skip_special_tokens=True)
    choice = {"text": text, "finish_reason": "stop" if grown.ended else "length"}
    return 200, {"choices": [choice], "usage": {"completion_tokens": len(grown.tokens)}}, {}
