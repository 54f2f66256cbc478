"""Real replies for oracles to agree on; asked for where PERSONALIGN_DATA is set."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any


def rows_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


@cache
def gold_replies(folder: Path) -> list[str]:
    """The 7,801 of ConvAI2's validation part."""
    return [
        message["content"]
        for dialogue in rows_of(folder / "convai2_valid.jsonl.gz")
        for message in dialogue["messages"]
        if message["role"] == "assistant"
    ]


@cache
def published_replies(folder: Path) -> dict[str, list[str]]:
    """Of seven published systems, in the order of `gold_replies`."""
    return {
        system["system"]: [reply for replies in system["responses"] for reply in replies]
        for system in rows_of(folder / "model_outputs_convai2_valid.jsonl.gz")
        if system["responses"]
    }
