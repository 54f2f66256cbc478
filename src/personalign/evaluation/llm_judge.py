"""A language model as judge, behind any server that speaks OpenAI's chat completions.

It rates from 1 to 5 how a reply stands to one persona line, the scale of PersonaGym (Samuel et al. 2024), so that it is a
judge like any other: 5 and 4 are entailment, 3 is neutral, 2 and 1 are contradiction.
"""

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from personalign.errors import PersonalignError
from personalign.evaluation.judge import CONTRADICTION, ENTAILMENT, LABELS, NEUTRAL, Pair, Progress, Verdicts

BASE_URL = "OPENAI_BASE_URL"
API_KEY = "OPENAI_API_KEY"
DEFAULT_URL = "https://api.openai.com/v1"
RATINGS_BETWEEN_SAVES = 100
"""A rating takes a request and costs money, so a cache keeps them more often than the verdicts of a local model."""

_CLASS_OF_RATING = {5: ENTAILMENT, 4: ENTAILMENT, 3: NEUTRAL, 2: CONTRADICTION, 1: CONTRADICTION}
_RUBRIC = """You grade whether a reply in a conversation fits one fact about its speaker.
Ratings:
5 - the reply states the fact.
4 - the reply implies the fact, or could hardly be given by somebody of whom it is not true.
3 - the reply leaves it open whether the fact is true.
2 - the reply suggests that the fact is not true.
1 - the reply contradicts the fact.
Words that make no sentence leave it open, whatever they are.
Answer with one JSON object and nothing else: {"rating": N}"""
_JSON_RATING = re.compile(r'"rating"\s*:\s*"?([1-5])\b')
_BARE_RATING = re.compile(r"^\D*([1-5])\D*$")
_WORTH_ANOTHER_TRY = {408, 409, 425, 429, 500, 502, 503, 504}


class _TryAgainError(Exception):
    """Why, and the seconds that the server asked to wait (None: it did not say)."""


@dataclass(frozen=True, slots=True)
class LlmJudge:
    """Rates pairs with `model` at `url`, several at a time. Build it with `open_llm_judge`.

    A request that fails for a reason that may pass (rate limit, server error, a reply without a rating) is repeated up to
    `tries` times, each time after a longer wait or the one that the server asks for.
    """

    model: str
    url: str
    api_key: str | None = field(default=None, repr=False)
    workers: int = 4
    tries: int = 6
    timeout: float = 60.0
    first_wait: float = 1.0
    progress: Progress | None = None

    @property
    def name(self) -> str:
        return f"llm:{self.model}"

    @property
    def key(self) -> str:
        """What decides a verdict, for a cache."""
        return json.dumps([self.url, self.model, _RUBRIC])

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        """All probability is on the class of the rating."""
        classes = [_CLASS_OF_RATING[rating] for rating in self.rate(pairs)]
        return Verdicts(np.eye(len(LABELS), dtype=np.float32)[np.array(classes, dtype=np.int64)])

    def rate(self, pairs: Sequence[Pair]) -> list[int]:
        """1 to 5 for each pair of persona line and reply; equal pairs are asked once.

        Raises PersonalignError for a pair that no try brings a rating of, and for a server that refuses.
        """
        distinct = list(dict.fromkeys(pairs))
        ratings: dict[Pair, int] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            for pair, rating in zip(distinct, pool.map(self._rate, distinct), strict=True):
                ratings[pair] = rating
                if self.progress is not None:
                    self.progress(len(ratings), len(distinct))
        return [ratings[pair] for pair in pairs]

    def _rate(self, pair: Pair) -> int:
        asked = f"Fact about the speaker: {pair[0]}\nThe speaker's reply: {pair[1]}"
        request = {
            "model": self.model,
            "messages": [{"role": "system", "content": _RUBRIC}, {"role": "user", "content": asked}],
            "temperature": 0,
            "max_tokens": 16,
        }
        wait = self.first_wait
        for attempt in range(1, self.tries + 1):
            try:
                return _rating(self._ask(request))
            except _TryAgainError as reason:
                why, asked_wait = reason.args
                if attempt == self.tries:
                    raise PersonalignError(
                        f"{self.name} at {self.url} gave no rating in {self.tries} tries: {why}; wait, or choose another "
                        f"judge (where verdicts are cached, all but the last {RATINGS_BETWEEN_SAVES} or fewer are kept)"
                    ) from None
                time.sleep(wait if asked_wait is None else asked_wait)
                wait *= 2
        raise AssertionError("unreachable")

    def _ask(self, request: Mapping[str, Any]) -> str:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        message = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(request).encode(), headers
        )
        try:
            with urllib.request.urlopen(message, timeout=self.timeout) as answer:
                body = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")[:200]
            if error.code in _WORTH_ANOTHER_TRY:
                raise _TryAgainError(
                    f"HTTP {error.code} {text}", _seconds(error.headers.get("Retry-After"))
                ) from None
            raise PersonalignError(
                f"{self.name} at {self.url} refuses: HTTP {error.code} {text}; check the model's name, {BASE_URL} and "
                f"{API_KEY}"
            ) from None
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            raise _TryAgainError(f"{type(error).__name__}: {error}", None) from None
        try:
            content = body["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise _TryAgainError(f"not a chat completion: {json.dumps(body)[:200]}", None) from None
        return content if isinstance(content, str) else ""


def open_llm_judge(model: str, *, progress: Progress | None = None) -> LlmJudge:
    """The judge `model` at OPENAI_BASE_URL, with the key of OPENAI_API_KEY where the server wants one."""
    if not model:
        raise PersonalignError("llm: needs the name of a model, for example llm:gpt-4o-mini")
    url = os.environ.get(BASE_URL) or DEFAULT_URL
    if url == DEFAULT_URL and not os.environ.get(API_KEY):
        raise PersonalignError(
            f"llm:{model} would be asked at {DEFAULT_URL}, which wants a key: set {API_KEY}, or set {BASE_URL} to "
            "another server"
        )
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise PersonalignError(
            f"{BASE_URL} is '{url}'; write the whole address, such as http://127.0.0.1:8000/v1"
        )
    return LlmJudge(model, url, os.environ.get(API_KEY), progress=progress)


def _rating(text: str) -> int:
    found = _JSON_RATING.search(text) or _BARE_RATING.match(text.strip())
    if found is None:
        raise _TryAgainError(f"no rating in {text[:80]!r}", None)
    return int(found.group(1))


def _seconds(value: str | None) -> float | None:
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None
