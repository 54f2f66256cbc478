"""Extractors of facts by the name that a recipe gives them."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """The oracle of the synthetic corpus, or the tagger of a folder; None where none is named.

    Raises PersonalignError for what is no tagger.
    """
    if name is None:
        return None
    if name == ORACLE:
        return GrammarExtractor(language)
    from personalign.personas.tagger import load_tagger

    return BySentence(load_tagger(name))
