"""Requests to a server that speaks OpenAI's protocol: patient with what may pass, clear about what will not."""

import json
import math
import os
import random
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import urlsplit

from personalign.errors import PersonalignError

BASE_URL = "OPENAI_BASE_URL"
API_KEY = "OPENAI_API_KEY"
DEFAULT_URL = "https://api.openai.com/v1"
_WORTH_ANOTHER_TRY = {408, 409, 425, 429, 500, 502, 503, 504}
# Seconds. Waits stop growing there: a server that is back is to be noticed.
_LONGEST_STEP = 30.0
# Whoever asks for more will not be back in this run's time, and nobody should wait unawares.
_LONGEST_ASKED = 300.0
# A generator of its own: what a run draws must not depend on how often it had to wait.
_chance = random.Random()

Value = TypeVar("Value")


class TryAgainError(Exception):
    """Why, and the seconds that the server asked to wait (None: it did not say)."""


class _NobodyThereError(TryAgainError):
    """There is no such address, or nothing listens there."""


@dataclass(frozen=True, slots=True)
class Server:
    """`url` as OpenAI's clients take it, up to `/v1`.

    A request that fails for a reason that may pass (rate limit, server error, an answer that cannot be used) is sent up
    to `tries` times: some minutes in all, more than the minute over which servers usually count requests. Waits grow, are
    at least what the server asks for, and differ by chance, so that workers do not all come back at once.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    tries: int = 9
    timeout: float = 60.0
    first_wait: float = 1.0

    def post(
        self,
        path: str,
        request: Mapping[str, Any],
        read: Callable[[Any], Value],
        *,
        who: str,
        lost: str,
        advice: str,
    ) -> Value:
        """What `read` makes of the answer; `read` raises TryAgainError for one that it cannot use.

        Raises PersonalignError for a server that refuses, for one that asks for a wait of more than five minutes, and
        after the last try, in words of who asked, what was lost, and what to do.
        """
        return self._patiently(
            lambda: read(self._send(path, request, who=who)), who=who, lost=lost, advice=advice
        )

    def get(self, path: str, *, who: str) -> Any:
        """The answer to a request without content.

        Raises PersonalignError as `post` does, and at once where nobody listens: that is a wrong address, or a server
        that was not started.
        """

        def ask() -> Any:
            try:
                return self._send(path, None, who=who)
            except _NobodyThereError as reason:
                raise PersonalignError(
                    f"{who} at {self.url} does not answer: {reason.args[0]}; start the server, or correct {BASE_URL}"
                ) from None

        return self._patiently(ask, who=who, lost="does not answer", advice="see to the server")

    def _patiently(self, ask: Callable[[], Value], *, who: str, lost: str, advice: str) -> Value:
        step = self.first_wait
        for attempt in range(1, self.tries + 1):
            try:
                return ask()
            except TryAgainError as reason:
                why, asked = reason.args
            if asked is not None and asked > _LONGEST_ASKED:
                raise PersonalignError(
                    f"{who} at {self.url} {lost} and asks for a wait of {asked:g} seconds, where {_LONGEST_ASKED:g} are "
                    f"waited at most: {why}; {advice}"
                )
            if attempt < self.tries:
                time.sleep(max(step, asked or 0.0) + step * _chance.random())
                step = min(2 * step, _LONGEST_STEP)
        raise PersonalignError(f"{who} at {self.url} {lost} in {self.tries} tries: {why}; {advice}")

    def _send(self, path: str, request: Mapping[str, Any] | None, *, who: str) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        body = None if request is None else json.dumps(request).encode()
        message = urllib.request.Request(f"{self.url.rstrip('/')}/{path}", body, headers)
        try:
            with urllib.request.urlopen(message, timeout=self.timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = _text_of(error)
            if error.code in _WORTH_ANOTHER_TRY:
                raise TryAgainError(
                    f"HTTP {error.code} {text}", _seconds(error.headers.get("Retry-After"))
                ) from None
            raise PersonalignError(
                f"{who} at {self.url} refuses: HTTP {error.code} {text}; check the model's name, {BASE_URL} and {API_KEY}"
            ) from None
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            absent = isinstance(getattr(error, "reason", None), ConnectionRefusedError | socket.gaierror)
            kind = _NobodyThereError if absent else TryAgainError
            raise kind(f"{type(error).__name__}: {error}", None) from None


def server_from_environment(who: str) -> Server:
    """The server at OPENAI_BASE_URL, with the key of OPENAI_API_KEY where it wants one.

    Raises PersonalignError, in which `who` wants to ask, for an address that is none, and for OpenAI's own without a key.
    """
    url = os.environ.get(BASE_URL) or DEFAULT_URL
    if url == DEFAULT_URL and not os.environ.get(API_KEY):
        raise PersonalignError(
            f"{who} would be asked at {DEFAULT_URL}, which wants a key: set {API_KEY}, or set {BASE_URL} to "
            "another server"
        )
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise PersonalignError(
            f"{BASE_URL} is '{url}'; write the whole address, such as http://127.0.0.1:8000/v1"
        )
    return Server(url, os.environ.get(API_KEY))


def _text_of(error: urllib.error.HTTPError) -> str:
    """The beginning of what came with a status. Where that breaks off, the status says enough."""
    try:
        return error.read().decode("utf-8", "replace")[:200]
    except (HTTPException, OSError):
        return "(without a readable explanation)"


def _seconds(value: str | None) -> float | None:
    try:
        seconds = math.nan if value is None else float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
