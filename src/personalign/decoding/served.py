"""Replies by a server that holds the model, such as vLLM or SGLang, through OpenAI's completions.

It is given the very token ids that a local model would read, so that no chat template of the server comes between.
"""

import hashlib
import json
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personalign._files import disk_errors, read_whole_lines
from personalign._server import Server, TryAgainError, server_from_environment
from personalign.decoding.generation import DecodingSettings
from personalign.errors import PersonalignError


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply's text, whether it came to its end, and how many tokens it took."""

    text: str
    ended: bool
    tokens: int


@dataclass(slots=True)
class ServedModel:
    """The model that a server has under `name`. Build it with `open_served`.

    Every reply is kept in `store` as it comes, and what stands in one of the files `kept` is not asked for again, so that
    an interruption loses those alone that were under way. One thread per request, `workers` at a time.
    """

    name: str
    server: Server
    decoding: DecodingSettings
    end_ids: tuple[int, ...]
    store: Path
    kept: Sequence[Path] = ()
    workers: int = 16
    _kept: dict[str, Reply] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.decoding.strategy == "beam":
            raise PersonalignError(
                "decoding.strategy is beam, which servers do not offer; write greedy or sample, or engine local"
            )
        for path in self.kept:
            for row in read_whole_lines(path):
                self._kept[row["key"]] = Reply(row["text"], row["ended"], row["tokens"])

    def check(self, folder: Path) -> None:
        """Raise PersonalignError where the server does not answer, or has no model of that name."""
        body = self.server.get("models", who=self._who)
        try:
            names = [item["id"] for item in body["data"]]
        except (KeyError, TypeError):
            raise PersonalignError(
                f"{self._who} at {self.server.url}: the list of models cannot be read"
            ) from None
        if self.name not in names:
            raise PersonalignError(
                f"the server at {self.server.url} has no model '{self.name}', only {', '.join(names) or 'none'}; "
                f"start it with that model, for example `vllm serve {folder} --served-model-name {self.name}`, and go on "
                "with --resume"
            )

    def continue_(self, prompts: Sequence[Sequence[int]], keys: Sequence[str]) -> list[Reply]:
        """Continue each prompt of token ids; `keys` name them for sampling, as in `generate`."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._reply, prompts, keys))

    @property
    def _who(self) -> str:
        return f"the model '{self.name}'"

    def _reply(self, prompt: Sequence[int], key: str) -> Reply:
        request = self._request(prompt, key)
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        if digest not in self._kept:
            reply = self.server.post(
                "completions",
                request,
                _read,
                who=self._who,
                lost="gave no reply",
                advice="see to the server, and go on with --resume: what was answered is kept",
            )
            self._keep(digest, reply)
        return self._kept[digest]

    def _request(self, prompt: Sequence[int], key: str) -> dict[str, Any]:
        decoding = self.decoding
        request: dict[str, Any] = {
            "model": self.name,
            "prompt": list(prompt),
            "max_tokens": decoding.max_new_tokens,
            "temperature": 0.0,
            "stop_token_ids": list(self.end_ids),
        }
        if decoding.strategy == "sample":
            request |= {
                "temperature": decoding.temperature,
                "top_p": decoding.top_p,
                "seed": zlib.crc32(f"{decoding.seed}/{key}".encode()) & 0x7FFFFFFF,
            }
            request |= {"top_k": decoding.top_k} if decoding.top_k else {}
        return request

    def _keep(self, digest: str, reply: Reply) -> None:
        row = {"key": digest, "text": reply.text, "ended": reply.ended, "tokens": reply.tokens}
        with self._lock:
            self.store.parent.mkdir(parents=True, exist_ok=True)
            with disk_errors(self.store), open(self.store, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._kept[digest] = reply


def open_served(
    name: str,
    *,
    folder: Path,
    decoding: DecodingSettings,
    end_ids: Sequence[int],
    store: Path,
    kept: Sequence[Path] = (),
) -> ServedModel:
    """The model `name` at OPENAI_BASE_URL, checked to be there; `folder` is what a server is to be started with."""
    server = server_from_environment(f"the model '{name}'")
    model = ServedModel(name, server, decoding, tuple(end_ids), store, kept)
    model.check(folder)
    return model


def _read(body: Any) -> Reply:
    try:
        choice = body["choices"][0]
        text, reason = choice["text"], choice["finish_reason"]
        tokens = body["usage"]["completion_tokens"]
    except (KeyError, IndexError, TypeError):
        raise TryAgainError(f"not a completion: {json.dumps(body)[:200]}", None) from None
    if not isinstance(text, str) or not isinstance(tokens, int):
        raise TryAgainError(f"not a completion: {json.dumps(body)[:200]}", None)
    return Reply(text.strip(), reason == "stop", tokens)
