import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from personalign.errors import PersonalignError
from personalign.evaluation.judge import Pair, Verdicts
from personalign.evaluation.judge_checks import area_under_curve, check_judge, profile_text


class ByWord:
    """Entailed where the reply holds a word of the line, contradicted where it holds "not" too, else neutral."""

    name = "by word"

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        rows = []
        for line, reply in pairs:
            shared = bool(set(line.split()) & set(reply.split()))
            rows.append([0, 1, 0] if not shared else [0.1, 0.1, 0.8] if "not" in reply else [0.7, 0.2, 0.1])
        return Verdicts(np.array(rows, dtype=np.float32).reshape(-1, 3))


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_labelled_pairs(tmp_path: Path) -> None:
    rows = [
        {"premise": "fish", "hypothesis": "i fish", "label": "positive", "split": "valid"},
        {"premise": "fish", "hypothesis": "not fish", "label": "neutral", "split": "valid"},
        {"premise": "fish", "hypothesis": "hm", "label": "neutral", "split": "train"},
    ]
    found = check_judge(ByWord(), written(tmp_path / "nli.jsonl", *rows))
    assert (found["kind"], found["rows"], found["accuracy"]) == ("labels", 2, 0.5)
    # Sure to .7 and right, sure to .8 and wrong.
    assert found["calibration_error"] == pytest.approx((0.3 + 0.8) / 2)
    assert check_judge(ByWord(), tmp_path / "nli.jsonl", split="train")["accuracy"] == 1.0


def test_ranking_takes_the_best_line_and_the_mean_over_items(tmp_path: Path) -> None:
    def item(name: str, label: list[str], neg: list[str]) -> dict[str, Any]:
        return {
            "set": name,
            "persona": ["fish", "run"],
            "candidates": {"label": label, "neg": neg, "rand": ["x"]},
        }

    rows = [
        item(
            "a", ["i fish", "hm"], ["not fish"]
        ),  # .6 and 0 against -.7, whose other line says 0: the tie is lost.
        item("b", ["i run"], ["not run or fish", "i fish"]),  # .6 against -.7, and against .6
        item("b", [], ["x"]),
    ]
    found = check_judge(ByWord(), written(tmp_path / "rank.jsonl", *rows))
    assert found["kind"] == "ranking"
    assert found["ranked_right_by_set"] == {"a": 0.5, "b": 0.5}
    assert found["ranked_right"] == 0.5


def test_agreement_with_published_scores(tmp_path: Path) -> None:
    row = {
        "personas": ["fish", "run", "swim"],
        "query": "q",
        "response": "i fish",
        "entail_scores": [0.9, 0.1, 0.7],
    }
    found = check_judge(ByWord(), written(tmp_path / "scores.jsonl", row))
    # Of the two positives one scores above the negative and one ties with it.
    assert (found["kind"], found["pairs"], found["auc"]) == ("scores", 3, 0.75)


@pytest.mark.parametrize("scores", [[0.9], [0.9, 0.1, 0.7]])
def test_as_many_published_scores_as_lines(tmp_path: Path, scores: list[float]) -> None:
    right = {"personas": ["fish", "run"], "response": "i fish", "entail_scores": [0.9, 0.1]}
    path = written(tmp_path / "scores.jsonl", right, {**right, "entail_scores": scores})
    message = rf"scores.jsonl, line 2: {len(scores)} entail_scores for 2 personas; write one for each"
    with pytest.raises(PersonalignError, match=message):
        check_judge(ByWord(), path)


def test_the_area_equals_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 9, 80).astype(float), generator.random(80) < 0.4
    assert area_under_curve(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_chinese_files_stand_beside_the_majority(tmp_path: Path) -> None:
    rows = [
        {"u1": "", "b1": "鱼", "u2": "", "b2": b, "label": n}
        for b, n in (("鱼 not 鱼", 3), ("好", 0), ("好", 0))
    ]
    found = check_judge(ByWord(), written(tmp_path / "cdconv.jsonl", *rows))
    assert (found["kind"], found["accuracy"], found["majority"]) == ("cdconv", 1.0, pytest.approx(2 / 3))
    profile = "{'constellation': '射手座', 'loc': '福建 莆田', 'gender': 'female'}"
    found = check_judge(
        ByWord(),
        written(tmp_path / "kvpi.jsonl", {"profile": profile, "response": "好", "label": 0, "domain": 1}),
    )
    assert (found["kind"], found["accuracy"], found["majority"]) == ("kvpi", 1.0, 1.0)
    assert profile_text(profile) == "星座：射手座，所在地：福建 莆田，性别：女"
    unquoted = "{'constellation': 水瓶座, 'loc': 湖北 潜江, 'gender': male}"
    assert profile_text(unquoted) == "星座：水瓶座，所在地：湖北 潜江，性别：男"


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="rows with a, b: neither labelled pairs"):
        check_judge(ByWord(), written(tmp_path / "x.jsonl", {"a": 1, "b": 2}))
    with pytest.raises(PersonalignError, match="no rows"):
        check_judge(ByWord(), written(tmp_path / "x.jsonl"))
    with pytest.raises(PersonalignError, match="not as a ranking file has it"):
        check_judge(ByWord(), written(tmp_path / "x.jsonl", {"set": "a", "persona": [], "candidates": {}}))
