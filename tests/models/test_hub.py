import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from personalign.errors import PersonalignError
from personalign.models.hub import hub_answers, hub_arguments


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    hub_answers.cache_clear()
    yield
    hub_answers.cache_clear()


@pytest.fixture
def without_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An installation that may go online, on a machine that cannot; returns what names were asked for."""
    asked: list[Any] = []

    def fails(host: Any, *_: Any) -> None:
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", fails)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return asked


def test_a_folder_asks_nobody(tmp_path: Path, without_network: list[Any]) -> None:
    assert hub_arguments(tmp_path) == {}
    assert without_network == []


def test_a_mistyped_folder_is_told_at_once_where_the_hub_does_not_answer(without_network: list[Any]) -> None:
    for _ in range(2):
        with pytest.raises(PersonalignError, match=r"no folder 'runs/nope' here; .* hub cannot be reached"):
            hub_arguments("runs/nope")
    assert without_network == ["huggingface.co"]


def test_the_cache_serves_without_a_network(
    monkeypatch: pytest.MonkeyPatch, without_network: list[Any], tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(tmp_path / "config.json"))
    assert hub_arguments("someone/model") == {"local_files_only": True}


def test_a_proxy_may_reach_it(monkeypatch: pytest.MonkeyPatch, without_network: list[Any]) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:1")
    assert hub_arguments("someone/model") == {}
