"""An extractor that is a language model: sentences in, a line of facts for each out (IDL, appendix A.2)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from personalign.decoding.generation import DecodingSettings
from personalign.decoding.plain import plain_generate
from personalign.models import LoadedModel
from personalign.personas.extraction import Triple
from personalign.prompts.segments import SegmentEncoder, end_of_text, leading_bos, one_line

KIND = "generative"
"""In `extractor.json`."""

# The paper stacks 35,000 sentences into some 4,000 rows.
STACKED = 8
_NOTHING = "<>"
_CUE = "\nFacts:\n"
_FACT = re.compile(r"<([^,<>]+), ([^,<>]+), ([^<>]+)>")
_TOKENS_A_SENTENCE = 32
_MOST_SIGNS = 300


def written(triples: Sequence[Triple]) -> str:
    """The line of a sentence: its facts as `<subject, relation, object>`, `<>` where it has none."""
    return (
        " ".join(f"<{subject}, {relation}, {thing}>" for subject, relation, thing in map(_clean, triples))
        or _NOTHING
    )


def read_facts_of(line: str) -> tuple[Triple, ...]:
    """What a written line says; what is not as `written` writes it is passed over."""
    return tuple(Triple(*(part.strip() for part in match.groups())) for match in _FACT.finditer(line))


def _clean(triple: Triple) -> Triple:
    """Without the marks that part triples and their elements; an object may hold commas."""
    subject, relation, thing = (re.sub(r"[<>\s]+", " ", part).strip() for part in triple)
    return Triple(subject.replace(",", " "), relation.replace(",", " "), thing)


class FactPrompter:
    """Prompts and targets of a generative extractor, as token ids, for one tokenizer."""

    def __init__(self, tokenizer: object) -> None:
        self._encoder = SegmentEncoder(tokenizer)
        self._begin = leading_bos(tokenizer)
        self.end = end_of_text(tokenizer)

    def prompt(self, sentences: Sequence[str]) -> list[int]:
        """The sentences, a line each, and the cue; of a very long one its beginning, so that all have room."""
        said = "\n".join(one_line(sentence)[:_MOST_SIGNS] for sentence in sentences)
        return [*self._begin, *self._encoder.content(said), *self._encoder.structure(_CUE)]

    def target(self, facts: Sequence[Sequence[Triple]]) -> list[int]:
        """The facts of each sentence, a line each, and the end."""
        return [*self._encoder.content("\n".join(map(written, facts))), self.end]


@dataclass(frozen=True, slots=True)
class GenerativeExtractor:
    """An Extractor: any causal language model that was trained on `FactPrompter`'s rows.

    Sentences are read `stacked` at a time, in order; the answer's lines are theirs in that order. Lines that are missing
    are sentences without facts.
    """

    name: str
    loaded: LoadedModel
    stacked: int = STACKED

    def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
        distinct = [text for text in dict.fromkeys(texts) if text.strip()]
        rows = [distinct[start : start + self.stacked] for start in range(0, len(distinct), self.stacked)]
        prompter = FactPrompter(self.loaded.tokenizer)
        answers = plain_generate(
            self.loaded,
            [[prompter.prompt(row) for row in rows]],
            decoding=DecodingSettings(max_new_tokens=_TOKENS_A_SENTENCE * self.stacked),
            end_ids=[prompter.end],
        )
        found: dict[str, tuple[Triple, ...]] = {}
        for row, answer in zip(rows, answers[0] if rows else [], strict=True):
            lines = self.loaded.tokenizer.decode(answer.tokens, skip_special_tokens=True).rstrip().split("\n")
            found.update(zip(row, map(read_facts_of, lines), strict=False))
        return [found.get(text, ()) for text in texts]
