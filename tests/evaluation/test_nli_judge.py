import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from personalign.errors import PersonalignError
from personalign.evaluation.nli_judge import label_columns, load_judge
from personalign.models import precision
from personalign.models.precision import Precision


@pytest.fixture(scope="module")
def judge_folder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained judge that keeps its classes in another order than ours."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_encoder, num_labels=3, id2label={0: "CONTRADICTION", 1: "ENTAILMENT", 2: "Neutral"}
    )
    torch.nn.init.normal_(model.classifier.weight, std=3)
    folder = tmp_path_factory.mktemp("models") / "little"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return folder


def random_pairs(number: int) -> list[tuple[str, str]]:
    generator = random.Random(0)
    words = ["i", "like", "dogs", "cats", "never", "."]
    texts = [" ".join(generator.choices(words, k=generator.randint(1, 9))) for _ in range(2 * number)]
    return list(zip(texts[:number], texts[number:], strict=True))


def test_verdicts_equal_the_model_run_pair_by_pair(judge_folder: Path) -> None:
    pairs = random_pairs(12)
    pairs += pairs[:3]
    verdicts = load_judge(judge_folder, batch_size=5).judge(pairs)
    model = AutoModelForSequenceClassification.from_pretrained(judge_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(judge_folder)
    for pair, ours in zip(pairs, verdicts.probabilities, strict=True):
        with torch.no_grad():
            theirs = model(**tokenizer(*pair, return_tensors="pt")).logits.softmax(-1)[0]
        assert ours == pytest.approx(theirs[[1, 2, 0]].numpy(), abs=1e-5)
    assert len({tuple(verdict) for verdict in verdicts.probabilities.round(3)}) > 5
    assert verdicts.probabilities.dtype == np.float32


def test_equal_pairs_are_judged_once_and_progress_is_told(judge_folder: Path) -> None:
    told: list[tuple[int, int]] = []
    judge = load_judge(judge_folder, batch_size=2, progress=lambda done, total: told.append((done, total)))
    judge.judge([("i", "like"), ("i", "like"), ("i", "dogs"), ("like", "i")])
    assert told == [(2, 3), (3, 3)]
    assert judge.name == "little"
    assert judge.judge([]).probabilities.shape == (0, 3)


def test_premise_and_hypothesis_are_not_the_same_place(judge_folder: Path) -> None:
    judge = load_judge(judge_folder)
    there, back = judge.judge([("i like dogs", "cats"), ("cats", "i like dogs")]).probabilities
    assert np.abs(there - back).max() > 1e-4


def test_bfloat16_is_close_to_float32(judge_folder: Path) -> None:
    pairs = random_pairs(5)
    exact = load_judge(judge_folder).judge(pairs).probabilities
    judge = load_judge(judge_folder)
    rounded = replace(judge, precision=Precision("bfloat16", "cpu", "to compare")).judge(pairs).probabilities
    assert 0 < np.abs(exact - rounded).max() < 0.1


def test_what_the_machine_cannot_do_is_refused_as_for_models(
    judge_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: False)
    with pytest.raises(PersonalignError, match="neither AMX nor"):
        load_judge(judge_folder, dtype="bfloat16")
    assert load_judge(judge_folder, dtype="auto").precision.dtype == "float32"
    for device in ("tpu", "cuda:x"):
        with pytest.raises(PersonalignError, match=f"device: '{device}' is unknown"):
            load_judge(judge_folder, device=device)


def test_over_long_pairs_are_cut(judge_folder: Path) -> None:
    long = ("i like dogs . " * 30, "cats " * 30)
    assert load_judge(judge_folder, max_length=32).judge([long]).probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "id2label",
    [
        {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"},
        {0: "entailment", 1: "not_entailment"},
        {0: "entailment", 1: "neutral", 2: "Entailed"},
    ],
)
def test_labels_without_names_are_never_guessed(id2label: dict[int, str]) -> None:
    with pytest.raises(PersonalignError, match=r"set id2label in its config\.json"):
        label_columns(id2label)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="cannot be loaded as a judge"):
        load_judge(tmp_path)


def test_the_key_of_a_cache_holds_how_texts_are_cut_and_what_computes(
    judge_folder: Path, tmp_path: Path
) -> None:
    import json
    import shutil

    def key_with(file: str, **changes: object) -> str:
        folder = tmp_path / f"{file}-{'-'.join(changes)}"
        shutil.copytree(judge_folder, folder)
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**settings, **changes}))
        return load_judge(folder).key

    usual = load_judge(judge_folder).key
    assert key_with("config.json") == usual
    assert key_with("config.json", num_attention_heads=4) != usual
    assert key_with("config.json", layer_norm_eps=1e-3) != usual
    assert key_with("tokenizer.json", normalizer={"type": "Lowercase"}) != usual
    judge = load_judge(judge_folder)
    judge.judge(random_pairs(3))
    assert judge.key == usual
