"""Requests to a server that speaks OpenAI's protocol: patient with what may pass, clear about what will not."""

import json
import os
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

Value = TypeVar("Value")


class TryAgainError(Exception):
    """Why, and the seconds that the server asked to wait (None: it did not say)."""


@dataclass(frozen=True, slots=True)
class Server:
    """`url` as OpenAI's clients take it, up to `/v1`.

    A request that fails for a reason that may pass (rate limit, server error, an answer that cannot be used) is repeated
    up to `tries` times, each time after a longer wait or the one that the server asks for.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    tries: int = 6
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

        Raises PersonalignError for a server that refuses, and after the last try, in words of who asked, what was lost,
        and what to do.
        """
        wait = self.first_wait
        for attempt in range(1, self.tries + 1):
            try:
                return read(self._send(path, request, who=who))
            except TryAgainError as reason:
                why, asked_wait = reason.args
                if attempt == self.tries:
                    raise PersonalignError(
                        f"{who} at {self.url} {lost} in {self.tries} tries: {why}; {advice}"
                    ) from None
                time.sleep(wait if asked_wait is None else asked_wait)
                wait *= 2
        raise AssertionError("unreachable")

    def get(self, path: str, *, who: str) -> Any:
        """The answer to a single request. Raises PersonalignError where there is none."""
        try:
            return self._send(path, None, who=who)
        except TryAgainError as reason:
            raise PersonalignError(f"{who} at {self.url} does not answer: {reason.args[0]}") from None

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
            text = error.read().decode("utf-8", "replace")[:200]
            if error.code in _WORTH_ANOTHER_TRY:
                raise TryAgainError(
                    f"HTTP {error.code} {text}", _seconds(error.headers.get("Retry-After"))
                ) from None
            raise PersonalignError(
                f"{who} at {self.url} refuses: HTTP {error.code} {text}; check the model's name, {BASE_URL} and {API_KEY}"
            ) from None
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            raise TryAgainError(f"{type(error).__name__}: {error}", None) from None


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


def _seconds(value: str | None) -> float | None:
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None
