"""A language model as judge, behind any server that speaks OpenAI's chat completions.

It rates from 1 to 5 how a reply stands to one persona line, the scale of PersonaGym (Samuel et al. 2024), so that it is a
judge like any other: 5 and 4 are entailment, 3 is neutral, 2 and 1 are contradiction.
"""

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from personalign._server import Server, TryAgainError, server_from_environment
from personalign.errors import PersonalignError
from personalign.evaluation.judge import CONTRADICTION, ENTAILMENT, LABELS, NEUTRAL, Pair, Progress, Verdicts

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


@dataclass(frozen=True, slots=True)
class LlmJudge:
    """Rates pairs with `model` at `server`, several at a time. Build it with `open_llm_judge`."""

    model: str
    server: Server
    workers: int = 4
    progress: Progress | None = None

    @property
    def name(self) -> str:
        return f"llm:{self.model}"

    @property
    def key(self) -> str:
        """What decides a verdict, for a cache."""
        return json.dumps([self.server.url, self.model, _RUBRIC])

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
        return self.server.post(
            "chat/completions",
            request,
            _rating_of,
            who=self.name,
            lost="gave no rating",
            advice="wait, or choose another judge (where verdicts are cached, all but the last "
            f"{RATINGS_BETWEEN_SAVES} or fewer are kept)",
        )


def open_llm_judge(model: str, *, progress: Progress | None = None) -> LlmJudge:
    """The judge `model` at OPENAI_BASE_URL, with the key of OPENAI_API_KEY where the server wants one."""
    if not model:
        raise PersonalignError("llm: needs the name of a model, for example llm:gpt-4o-mini")
    return LlmJudge(model, server_from_environment(f"llm:{model}"), progress=progress)


def _rating_of(body: Any) -> int:
    try:
        content = body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise TryAgainError(f"not a chat completion: {json.dumps(body)[:200]}", None) from None
    return _rating(content if isinstance(content, str) else "")


def _rating(text: str) -> int:
    found = _JSON_RATING.search(text) or _BARE_RATING.match(text.strip())
    if found is None:
        raise TryAgainError(f"no rating in {text[:80]!r}", None)
    return int(found.group(1))
