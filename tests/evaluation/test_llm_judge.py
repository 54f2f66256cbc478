"""A language model as judge, against a server of our own on this machine."""

import urllib.error
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest
from tests.fake_server import Answer, Fake, says, serving

from personalign import _server
from personalign._server import Server
from personalign.errors import PersonalignError
from personalign.evaluation.judge import CONTRADICTION, ENTAILMENT, NEUTRAL
from personalign.evaluation.llm_judge import LlmJudge, open_llm_judge
from personalign.methods.judges import with_cache


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as made:
        yield made


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited, where chance always draws a half."""
    waited: list[float] = []
    monkeypatch.setattr(_server.time, "sleep", waited.append)
    monkeypatch.setattr(_server._chance, "random", lambda: 0.5)
    return waited


def judge_at(fake: Fake, **changes: Any) -> LlmJudge:
    progress = changes.pop("progress", None)
    return LlmJudge("small", Server(fake.url, **{"first_wait": 0.01, **changes}), progress=progress)


def test_ratings_are_classes_and_equal_pairs_are_asked_once(fake: Fake) -> None:
    def by_reply(request: dict[str, Any]) -> Answer:
        asked = request["messages"][1]["content"]
        return says(
            '{"rating": 5}'
            if "bees" in asked.split("reply:")[1]
            else '{"rating": 1}'
            if "never" in asked
            else "3"
        )

    fake.answer = by_reply
    pairs = [
        ("i keep bees", "my bees"),
        ("i keep bees", "never"),
        ("i keep bees", "hm"),
        ("i keep bees", "my bees"),
    ]
    judge = judge_at(fake, api_key="secret")
    assert judge.judge(pairs).classes().tolist() == [ENTAILMENT, CONTRADICTION, NEUTRAL, ENTAILMENT]
    assert len(fake.requests) == 3
    assert fake.requests[0]["path"] == "/v1/chat/completions"
    assert fake.requests[0]["temperature"] == 0
    assert fake.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(judge)


@pytest.mark.parametrize(
    ("text", "rating"), [('{"rating": "4"}', 4), ("Rating: 2.", 2), (' {"why": 1, "rating": 5}', 5)]
)
def test_ratings_are_read_leniently(fake: Fake, text: str, rating: int) -> None:
    fake.answer = lambda _: says(text)
    assert judge_at(fake).rate([("a", "b")]) == [rating]


def test_what_may_pass_is_tried_again(fake: Fake) -> None:
    left = iter(
        [
            (429, {"error": "slow down"}, {"Retry-After": "0"}),
            (503, b"busy", {}),
            says("maybe 4 or 5"),
            (200, b"{", {}),
            says("4"),
        ]
    )
    fake.answer = lambda _: next(left)
    assert judge_at(fake).rate([("a", "b")]) == [4]
    assert len(fake.requests) == 5


def test_what_will_not_pass_is_said_at_once(fake: Fake) -> None:
    fake.answer = lambda _: (401, {"error": "no such key"}, {})
    with pytest.raises(
        PersonalignError, match=r"llm:small at http.* refuses: HTTP 401 .*no such key.*OPENAI_API_KEY"
    ):
        judge_at(fake).rate([("a", "b")])
    assert len(fake.requests) == 1


def test_it_gives_up_after_so_many_tries(fake: Fake) -> None:
    fake.answer = lambda _: says("no idea")
    with pytest.raises(PersonalignError, match="no rating in 3 tries: no rating in 'no idea'"):
        judge_at(fake, tries=3).rate([("a", "b")])
    assert len(fake.requests) == 3


def test_an_answer_that_breaks_off_is_tried_again(fake: Fake) -> None:
    answers = iter([(200, b"half", {"Content-Length": "400"}), says("5")])
    fake.answer = lambda _: next(answers)
    assert judge_at(fake, timeout=2.0).rate([("i fish", "i do")]) == [5]
    assert len(fake.requests) == 2


def test_an_error_whose_text_breaks_off_counts_as_its_status(fake: Fake, waits: list[float]) -> None:
    answers = iter([(503, b"bus", {"Content-Length": "100"}), says("5")])
    fake.answer = lambda _: next(answers)
    assert judge_at(fake).rate([("i fish", "i do")]) == [5]
    assert len(fake.requests) == 2
    fake.answer = lambda _: (401, b"no", {"Content-Length": "100"})
    with pytest.raises(
        PersonalignError, match=r"refuses: HTTP 401 \(without a readable explanation\); check"
    ):
        judge_at(fake).rate([("i fish", "i do")])
    assert len(fake.requests) == 3


@pytest.mark.parametrize("failure", [IncompleteRead(b""), ConnectionResetError("gone"), TimeoutError("slow")])
def test_an_error_that_cannot_be_read_is_tried_again(
    fake: Fake, waits: list[float], monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fails(*_: object) -> bytes:
        raise failure

    monkeypatch.setattr(urllib.error.HTTPError, "read", fails, raising=False)
    answers = iter([(503, b"busy", {}), says("5")])
    fake.answer = lambda _: next(answers)
    assert judge_at(fake).rate([("i fish", "i do")]) == [5]


def test_it_backs_off_for_minutes_and_workers_apart(
    fake: Fake, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer in all than the minute over which servers count requests."""
    fake.answer = lambda _: (429, "slow down", {})
    with pytest.raises(PersonalignError, match="no rating in 9 tries: HTTP 429"):
        judge_at(fake, first_wait=1.0).rate([("a", "b")])
    assert waits == [1.5, 3.0, 6.0, 12.0, 24.0, 45.0, 45.0, 45.0]
    waits.clear()
    monkeypatch.setattr(_server._chance, "random", lambda: 0.0)
    with pytest.raises(PersonalignError):
        judge_at(fake, first_wait=1.0).rate([("a", "b")])
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        ("20", 20.5),
        ("300", 300.5),
        ("0", 1.5),
        ("-3", 1.5),
        ("nan", 1.5),
        ("inf", 1.5),
        ("-inf", 1.5),
        ("1e999", 1.5),
        ("soon", 1.5),
        ("", 1.5),
    ],
)
def test_at_least_what_the_server_asks_for_is_waited(
    fake: Fake, waits: list[float], asked: str, waited: float
) -> None:
    answers = iter([(429, "slow down", {"Retry-After": asked}), says("5")])
    fake.answer = lambda _: next(answers)
    assert judge_at(fake, first_wait=1.0).rate([("a", "b")]) == [5]
    assert waits == [waited]


def test_a_server_that_asks_for_a_day_is_not_waited_for(fake: Fake, waits: list[float]) -> None:
    fake.answer = lambda _: (429, "quota", {"Retry-After": "86400"})
    with pytest.raises(
        PersonalignError, match=r"no rating and asks for a wait of 86400 seconds, where 300 .*429 .*quota"
    ):
        judge_at(fake).rate([("a", "b")])
    assert len(fake.requests) == 1
    assert waits == []


def test_nobody_there_is_said(fake: Fake) -> None:
    url = fake.url
    fake.server.server_close()
    with pytest.raises(PersonalignError, match="gave no rating in 2 tries"):
        LlmJudge("small", Server(url, tries=2, first_wait=0.01, timeout=1)).rate([("a", "b")])


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    judge = open_llm_judge("m")
    assert (judge.server.url, judge.server.api_key, judge.name) == ("http://127.0.0.1:1/v1", "k", "llm:m")
    with pytest.raises(PersonalignError, match="name of a model"):
        open_llm_judge("")
    for url in ("myserver/v1", "127.0.0.1:8000/v1", "http://"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        with pytest.raises(PersonalignError, match="write the whole address"):
            open_llm_judge("m")
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(PersonalignError, match=r"api\.openai\.com/v1, which wants a key: set OPENAI_API_KEY"):
        open_llm_judge("m")


def test_ratings_before_a_failure_are_kept_and_progress_is_one_count(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONALIGN_CACHE", str(tmp_path))
    told: list[tuple[int, int]] = []
    judge = judge_at(fake, tries=1, progress=lambda done, total: told.append((done, total)))
    pairs = [("i keep bees", f"{number:03}") for number in range(250)]
    fake.answer = lambda _: says("3") if len(fake.requests) <= 150 else (500, "broken", {})
    with pytest.raises(PersonalignError, match="all but the last 100 or fewer are kept"):
        with_cache(judge).judge(pairs)
    assert told[:100] == [(done, 250) for done in range(1, 101)]
    fake.answer = lambda _: says("3")
    fake.requests.clear()
    told.clear()
    assert with_cache(judge).judge(pairs).classes().tolist() == [NEUTRAL] * 250
    assert len(fake.requests) == 150
    assert told == [(done, 150) for done in range(1, 151)]
