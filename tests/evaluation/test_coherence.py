from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.coherence import Triple, load_coherence_judge, triple_text
from personalign.evaluation.metrics import METRICS, missing


class ByLength:
    def classes(self, triples: Sequence[Triple]) -> list[int]:
        return [min(2, len(reply.split())) for _, _, reply in triples]


def test_con_counts_both_consistent_classes_and_coh_con_the_best() -> None:
    questions = [Question(str(n), 1, ("i fish",), partner=("hello", "pets ?")) for n in range(4)]
    answers = Answers(questions, [Reply(text) for text in ("", "a", "a b", "a b c")], coherence=ByLength())
    assert METRICS["con/clv"].measure(answers).figure() == 0.75
    assert METRICS["coh_con/clv"].measure(answers).figure() == 0.5
    assert missing(Answers(questions, answers.replies), METRICS["con/clv"]) == ["coherence"]
    assert questions[0].context() == ("pets ?",)


def test_a_triple_is_written_as_clv_writes_it() -> None:
    text = triple_text((("i fish .", "i run ."), ("pets ?",), "no"))
    assert text == "[PERSONA] i fish . i run . [CONTEXT] pets ? [RESPONSE] no"


def test_a_model_judges_as_it_does_alone(tiny_encoder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=3)
    model.classifier.weight.data.normal_(std=3)
    for kind in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / kind).write_bytes((tiny_encoder / kind).read_bytes())
    model.save_pretrained(tmp_path)
    judge = load_coherence_judge(tmp_path, max_length=40)
    triples: list[Triple] = [
        (("i like dogs .",), ("cats .",), reply) for reply in ("never", "i like fish .", "always i", "never")
    ]
    alone = []
    for triple in triples:
        inputs = judge.tokenizer(triple_text(triple), return_tensors="pt")
        with torch.no_grad():
            alone.append(int(judge.model(**inputs).logits.argmax()))
    assert judge.classes(triples) == alone


def test_too_long_a_triple_loses_its_context_and_never_its_reply(tiny_encoder: Path, tmp_path: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=3).save_pretrained(tmp_path)
    for kind in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / kind).write_bytes((tiny_encoder / kind).read_bytes())
    judge = load_coherence_judge(tmp_path, max_length=14)
    seen: list[str] = []
    tokenizer = judge.tokenizer

    def watched(text: object, **named: object) -> object:
        seen.extend(text if isinstance(text, list) else [])
        return tokenizer(text, **named)

    object.__setattr__(judge, "tokenizer", watched)
    judge.classes([(("i like dogs",), ("cats fish cats fish", "dogs never always"), "never cats")])
    judge.classes([(("i like dogs i like fish i like cats",), ("cats",), "never i like fish always cats")])
    assert seen[0] == "[PERSONA] i like dogs [CONTEXT] fish dogs never always [RESPONSE] never cats"
    assert seen[1].endswith("[CONTEXT]  [RESPONSE] never i like fish always cats")
    assert len(judge.shortened) == 2


def test_other_numbers_of_classes_are_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=2).save_pretrained(tmp_path)
    for kind in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / kind).write_bytes((tiny_encoder / kind).read_bytes())
    with pytest.raises(PersonalignError, match="has 2 classes"):
        load_coherence_judge(tmp_path)
    with pytest.raises(PersonalignError, match="cannot be loaded"):
        load_coherence_judge(tmp_path / "absent")


def test_an_nli_judge_is_no_judge_of_coherence(tiny_encoder: Path, tmp_path: Path) -> None:
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=3, id2label=labels)
    model.save_pretrained(tmp_path)
    for kind in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / kind).write_bytes((tiny_encoder / kind).read_bytes())
    with pytest.raises(
        PersonalignError, match=r"is an NLI judge .*, which --judge takes; .* in the id2label"
    ):
        load_coherence_judge(tmp_path)
