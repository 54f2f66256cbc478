"""Extractors of facts by the name that a recipe gives them."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalign.data.synthetic.grammar import find_values
from personalign.methods.recipe import ORACLE
from personalign.personas.extraction import BySentence, Extractor, Triple


@dataclass(frozen=True, slots=True)
class GrammarExtractor:
    """Knows the synthetic corpus: the kind and the value of every fact that a text states."""

    language: str
    name: str = ORACLE

    def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
        return [
            tuple(Triple("i", kind, value) for kind, value in find_values(text, language=self.language))
            for text in texts
        ]


def open_extractor(name: str | None, *, language: str) -> Extractor | None:
    """The oracle of the synthetic corpus, or the extractor of a folder, which reads every sentence; None for None.

    Raises PersonalignError for what is no extractor.
    """
    if name is None:
        return None
    if name == ORACLE:
        return GrammarExtractor(language)
    return BySentence(load_extractor(Path(name)))


def load_extractor(folder: Path, *, device: str = "cpu") -> Extractor:
    """A tagger or a language model, whichever `personalign extract train` made. Raises PersonalignError for neither."""
    from personalign.personas.generative import KIND, GenerativeExtractor
    from personalign.personas.tagger import RECORD, load_tagger

    record: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if record.get("kind") != KIND:
        return load_tagger(folder, device=device)
    from personalign.models import load_model

    return GenerativeExtractor(folder.name, load_model(folder, device=device), stacked=int(record["stacked"]))
