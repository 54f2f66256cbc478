"""Replies through a server: the same as the local model's, patient, and never asked for twice."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.decoding.tiny_chat_models import PERSONA, chat_model
from tests.fake_server import Answer, Fake, serving

from personalign import _server
from personalign._server import Server
from personalign.data.dialogue import Dialogue, Turn
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.plain import plain_generate
from personalign.decoding.respond import Selection, respond, without_persona
from personalign.decoding.served import ServedModel, open_served
from personalign.errors import PersonalignError
from personalign.prompts import Prompter, PromptSettings

LOADED = chat_model()
PROMPTER = Prompter(LOADED.tokenizer, PromptSettings(max_tokens=300, reserve=32))
GREEDY = DecodingSettings(max_new_tokens=8)


def talks() -> list[Dialogue]:
    turns = (
        Turn("user", "any pets ?"),
        Turn("assistant", "i have a dog ."),
        Turn("user", "what do you work ?"),
        Turn("assistant", "baker ."),
    )
    return [Dialogue(f"d{at}", PERSONA[at:], turns, relevant=((), (0,))) for at in range(3)]


def completes(request: dict[str, Any]) -> Answer:
    """What vLLM would answer: the tiny model's own greedy continuation."""
    settings = replace(GREEDY, max_new_tokens=request["max_tokens"])
    [[grown]] = plain_generate(
        LOADED, [[request["prompt"]]], decoding=settings, end_ids=request["stop_token_ids"]
    )
    choice = {
        "text": " " + LOADED.tokenizer.decode(grown.tokens, skip_special_tokens=True),
        "finish_reason": "stop" if grown.ended else "length",
    }
    return 200, {"choices": [choice], "usage": {"completion_tokens": len(grown.tokens)}}, {}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with serving() as made:
        made.answer = completes
        monkeypatch.setenv("OPENAI_BASE_URL", made.url)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        yield made


def served(fake: Fake, folder: Path, decoding: DecodingSettings = GREEDY, **server: Any) -> ServedModel:
    return ServedModel(
        "small",
        Server(fake.url, first_wait=0.01, **server),
        decoding,
        tuple(PROMPTER.end_ids),
        folder / "served.jsonl",
        kept=sorted(folder.glob("served.jsonl")),
    )


@pytest.mark.parametrize("strategy", ["predicted", "random", "unselected", "oracle"])
def test_replies_are_those_of_the_local_model(fake: Fake, tmp_path: Path, strategy: Any) -> None:
    selection = Selection(strategy, share_of_none=0.3)
    local, remote = (
        respond(LOADED, PROMPTER, talks(), selection=selection, decoding=GREEDY, served=model)
        for model in (None, served(fake, tmp_path))
    )
    assert local == remote
    assert any(item.text for item in local)
    assert len(fake.requests) == 6
    assert {request["path"] for request in fake.requests} == {"/v1/completions"}


def test_replies_without_a_persona_too(fake: Fake, tmp_path: Path) -> None:
    local, remote = (
        without_persona(LOADED, PROMPTER, talks(), decoding=GREEDY, served=model)
        for model in (None, served(fake, tmp_path))
    )
    assert local == remote


def test_what_was_answered_is_kept_and_not_asked_again(fake: Fake, tmp_path: Path) -> None:
    prompts = [[3, 4, 5], [3, 4], [3, 4, 5, 6], [7]]
    keys = list("abcd")

    def third_fails(request: dict[str, Any]) -> Answer:
        return (400, "no", {}) if len(request["prompt"]) == 4 else completes(request)

    fake.answer = third_fails
    model = served(fake, tmp_path)
    model.workers = 1
    with pytest.raises(PersonalignError, match=r"the model 'small' at .* refuses: HTTP 400"):
        model.continue_(prompts, keys)
    # As a process leaves it that dies while it writes.
    with open(tmp_path / "served.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"key": "torn')
    asked = len(fake.requests)
    fake.answer = completes
    again = served(fake, tmp_path).continue_(prompts, keys)
    assert [len(request["prompt"]) for request in fake.requests[asked:]] in ([4], [4, 1], [1, 4])
    fresh = served(fake, tmp_path / "elsewhere").continue_(prompts, keys)
    assert again == fresh


def test_it_waits_for_a_server_that_is_busy(fake: Fake, tmp_path: Path) -> None:
    def busy_at_first(request: dict[str, Any]) -> Answer:
        return (429, "slow down", {"Retry-After": "0.01"}) if len(fake.requests) <= 3 else completes(request)

    fake.answer = busy_at_first
    [reply] = served(fake, tmp_path).continue_([[3, 4]], ["a"])
    assert len(fake.requests) == 4
    assert reply.tokens > 0


@pytest.mark.parametrize(
    "body", [{}, {"choices": []}, {"choices": [{"text": 3, "finish_reason": "stop"}], "usage": {}}, []]
)
def test_what_is_no_completion_ends_with_what_to_do(fake: Fake, tmp_path: Path, body: Any) -> None:
    fake.answer = lambda _: (200, body, {})
    with pytest.raises(PersonalignError, match=r"gave no reply in 2 tries: not a completion.*--resume"):
        served(fake, tmp_path, tries=2).continue_([[3, 4]], ["a"])
    assert not (tmp_path / "served.jsonl").exists()


def test_sampling_hands_on_its_settings_and_a_seed_of_its_own_per_reply(fake: Fake, tmp_path: Path) -> None:
    sampling = DecodingSettings("sample", max_new_tokens=5, temperature=0.7, top_p=0.9, top_k=20, seed=3)
    model = served(fake, tmp_path, sampling)
    model.continue_([[3, 4], [3, 4]], ["d0/1", "d1/1"])
    first, second = fake.requests
    assert (first["temperature"], first["top_p"], first["top_k"], first["max_tokens"]) == (0.7, 0.9, 20, 5)
    assert first["seed"] != second["seed"]
    with pytest.raises(PersonalignError, match="beam, which servers do not offer"):
        served(fake, tmp_path, DecodingSettings("beam"))


def test_a_model_that_is_not_served_is_told_at_once(fake: Fake, tmp_path: Path) -> None:
    def opened(name: str) -> ServedModel:
        return open_served(
            name, folder=tmp_path / "stage1", decoding=GREEDY, end_ids=[1], store=tmp_path / "served.jsonl"
        )

    assert opened("small").name == "small"
    with pytest.raises(
        PersonalignError, match=r"no model 'stage1', only small; .*/stage1 --served-model-name stage1`"
    ):
        opened("stage1")
    fake.listed = (200, ["what"], {})
    with pytest.raises(PersonalignError, match="the list of models cannot be read"):
        opened("small")
    fake.server.server_close()
    with pytest.raises(
        PersonalignError, match=r"does not answer: .*refused.*; start the server, or correct OPENAI_BASE"
    ):
        opened("small")
    assert not fake.requests


def test_a_server_that_is_busy_when_the_run_begins_is_waited_for(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(_server.time, "sleep", waits.append)
    monkeypatch.setattr(_server._chance, "random", lambda: 0.0)
    fake.listed_first = [(429, "slow down", {"Retry-After": "7"}), (200, b"{", {"Content-Length": "100"})]
    model = served(fake, tmp_path)
    model.check(tmp_path)
    assert waits == [7.0, 0.02]
    assert not fake.listed_first
    fake.listed = (503, "later", {})
    with pytest.raises(
        PersonalignError, match=r"the model 'small' at .* does not answer in 9 tries: HTTP 503"
    ):
        model.check(tmp_path)
