"""CLV's Con.Score and Coh-Con.Score (Tang et al. 2023): one classifier over persona, context and reply.

Its three classes are: 0 the reply is inconsistent with the persona, 1 it is consistent only, 2 it is consistent and
coherent with the context. The authors fine-tuned XLM-R on such triples; any sequence classifier with three classes in
this order serves here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from personalign.errors import PersonalignError
from personalign.evaluation.judge import class_of
from personalign.evaluation.sums import Sums, mean_of

CLASSES = 3
Triple = tuple[Sequence[str], Sequence[str], str]
"""Persona lines, messages of the context, reply."""


class CoherenceJudge(Protocol):
    def classes(self, triples: Sequence[Triple]) -> list[int]: ...


def triple_text(triple: Triple) -> str:
    """`[PERSONA] lines [CONTEXT] messages [RESPONSE] reply`, as CLV writes it."""
    persona, context, reply = triple
    return f"[PERSONA] {' '.join(persona)} [CONTEXT] {' '.join(context)} [RESPONSE] {reply}"


def consistent(classes: Sequence[int]) -> Sums:
    """`con/clv`: share of classes 1 and 2."""
    return mean_of([float(number > 0) for number in classes])


def coherent(classes: Sequence[int]) -> Sums:
    """`coh_con/clv`: share of class 2."""
    return mean_of([float(number == CLASSES - 1) for number in classes])


@dataclass(frozen=True, slots=True)
class CoherenceModel:
    """A sequence classifier as CLV's judge. Build it with `load_coherence_judge`.

    `shortened`: the triples so far that were longer than `max_length` tokens. Such a one loses the beginning of its
    context, then the end of its persona; the reply comes last and would be what is cut, were it left to the tokenizer.
    """

    model: Any
    tokenizer: Any
    batch_size: int = 64
    max_length: int = 512
    shortened: set[str] = field(default_factory=set)

    def classes(self, triples: Sequence[Triple]) -> list[int]:
        """Equal triples are judged once, in batches of like length."""
        import torch

        texts = [self._fitting(triple) for triple in triples]
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        found: dict[str, int] = {}
        with torch.inference_mode():
            for start in range(0, len(distinct), self.batch_size):
                some = distinct[start : start + self.batch_size]
                inputs = self.tokenizer(
                    some, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
                )
                logits = self.model(**inputs.to(self.model.device)).logits
                found |= dict(zip(some, logits.argmax(-1).tolist(), strict=True))
        return [found[text] for text in texts]

    def _fitting(self, triple: Triple) -> str:
        persona, context, reply = " ".join(triple[0]).split(), " ".join(triple[1]).split(), triple[2]
        text = triple_text(triple)
        # A word is one token at least, so as many words as there are tokens too many may go at a time.
        while (excess := len(self.tokenizer(text)["input_ids"]) - self.max_length) > 0 and persona + context:
            self.shortened.add(triple_text(triple))
            if context:
                context = context[excess:]
            else:
                persona = persona[: max(0, len(persona) - excess)]
            text = triple_text((persona, context, reply))
        return text


def load_coherence_judge(folder: Path | str, *, max_length: int = 512) -> CoherenceModel:
    """From a folder or hub id, in fp32.

    Raises PersonalignError for what cannot be loaded, has not three classes, or has those of an NLI judge.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from personalign.models.hub import hub_arguments

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **hub_arguments(folder))
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, **hub_arguments(folder)
        )
    except (OSError, ValueError) as error:
        raise PersonalignError(f"'{folder}' cannot be loaded as a judge: {error}") from error
    if model.config.num_labels != CLASSES:
        raise PersonalignError(
            f"'{folder}' has {model.config.num_labels} classes; this judge needs three: inconsistent, consistent, "
            "consistent and coherent"
        )
    if _names_nli(model.config.id2label):
        raise PersonalignError(
            f"'{folder}' is an NLI judge by the names of its classes, which --judge takes; if it was trained on persona, "
            "context and reply, name them inconsistent, consistent, coherent in the id2label of its config.json"
        )
    return CoherenceModel(model.eval(), tokenizer, max_length=max_length)


def _names_nli(names: Mapping[int, str]) -> bool:
    try:
        return len({class_of(name) for name in names.values()}) == CLASSES
    except PersonalignError:
        return False
