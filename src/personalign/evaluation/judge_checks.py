"""What a judge is worth, on each kind of file that can tell: labels, rankings, another model's scores, Chinese."""

import ast
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from personalign.errors import PersonalignError
from personalign.evaluation.classification import classification_scores
from personalign.evaluation.judge import CONTRADICTION, ENTAILMENT, LABELS, NEUTRAL, Judge, Pair
from personalign.evaluation.judge_training import evaluate_judge
from personalign.evaluation.nli_rows import read_nli_rows, read_objects

# KvPI's labels by inspection: irrelevant, entailed, contradicted.
_KVPI = {0: NEUTRAL, 1: ENTAILMENT, 2: CONTRADICTION}
_PUBLISHED_ENTAILED = 0.5

Rows = Mapping[str, Mapping[str, Any]]
"""By their places in a file."""


def check_judge(judge: Judge, path: Path | str, *, split: str = "valid") -> dict[str, Any]:
    """Measure a judge on a file, by what its rows hold; `kind` in the result says what that was.

    - `premise`, `hypothesis`, `label` (also as `sentence1`, `sentence2`, `gold_label`): `evaluate_judge` on one split.
    - `persona`, `candidates` with `label` and `neg`: does a reply that fits outrank one that contradicts?
    - `personas`, `response`, `entail_scores`: agreement with another model's entailment.
    - `b1`, `b2`, `label`: CDConv (Zheng et al. 2022), a reply against the same bot's earlier one.
    - `profile`, `response`, `label`: KvPI (Song et al. 2020), a reply against a profile of keys and values.

    Raises PersonalignError for a file of none of these.
    """
    first = next(iter(read_objects(path)), None)
    if first is None:
        raise PersonalignError(f"{path} holds no rows; give a file of labelled pairs")
    keys = set(first[1])
    if {"premise", "hypothesis"} <= keys or {"sentence1", "sentence2"} <= keys:
        return {"kind": "labels", **_on_labels(judge, path, split=split)}
    rows = dict(read_objects(path))
    for needed, kind, check in (
        ({"persona", "candidates", "set"}, "ranking", _on_ranking),
        ({"personas", "response", "entail_scores"}, "scores", _on_scores),
        ({"b1", "b2", "label"}, "cdconv", _on_cdconv),
        ({"profile", "response", "label"}, "kvpi", _on_kvpi),
    ):
        if needed <= keys:
            try:
                return {"kind": kind, "rows": len(rows), **check(judge, rows)}
            except (KeyError, TypeError, ValueError) as error:
                raise PersonalignError(f"{path}: a row is not as a {kind} file has it: {error!r}") from error
    raise PersonalignError(
        f"{path} has rows with {', '.join(sorted(keys))}: neither labelled pairs (premise, hypothesis, label) nor one of "
        "the other files that `personalign judge eval` knows"
    )


def _on_labels(judge: Judge, path: Path | str, *, split: str) -> dict[str, Any]:
    every = read_nli_rows(path)
    rows = [row for row in every if row.split == split]
    if not rows:
        splits = ", ".join(sorted({row.split for row in every}))
        raise PersonalignError(f"{path} has no rows of split '{split}'; it has {splits}: give --split")
    return {"split": split, "rows": len(rows), **evaluate_judge(judge, rows)}


def _on_ranking(judge: Judge, rows: Rows) -> dict[str, Any]:
    """Share of (`label`, `neg`) pairs of an item whose entailing candidate scores higher, mean over items, and by set.

    A candidate's score is the maximum over the persona lines of P(entailed) - P(contradicted). Ties are lost.
    """
    pairs: list[Pair] = []
    spans: list[tuple[int, int]] = []
    for row in rows.values():
        for kind in ("label", "neg"):
            for candidate in row["candidates"][kind]:
                start = len(pairs)
                pairs += [(line, candidate) for line in row["persona"]]
                spans.append((start, len(pairs)))
    probabilities = judge.judge(pairs).probabilities
    margins = probabilities[:, ENTAILMENT] - probabilities[:, CONTRADICTION]
    scores = iter([float(margins[start:end].max()) for start, end in spans])
    by_set: dict[str, list[float]] = {}
    for row in rows.values():
        fitting = np.array([next(scores) for _ in row["candidates"]["label"]])
        against = np.array([next(scores) for _ in row["candidates"]["neg"]])
        if len(fitting) and len(against):
            right = float((fitting[:, None] > against[None, :]).mean())
            by_set.setdefault(str(row["set"]), []).append(right)
    every = [value for values in by_set.values() for value in values]
    return {
        "ranked_right": float(np.mean(every)),
        "ranked_right_by_set": {name: float(np.mean(values)) for name, values in sorted(by_set.items())},
    }


def _on_scores(judge: Judge, rows: Rows) -> dict[str, Any]:
    """Area under the ROC curve of our P(entailed) for pairs that the other model gives more than one half."""
    for place, row in rows.items():
        scores, lines = len(row["entail_scores"]), len(row["personas"])
        if scores != lines:
            raise PersonalignError(
                f"{place}: {scores} entail_scores for {lines} personas; write one for each"
            )
    pairs = [(line, row["response"]) for row in rows.values() for line in row["personas"]]
    theirs = np.array([score for row in rows.values() for score in row["entail_scores"]], dtype=np.float64)
    ours = judge.judge(pairs).probabilities[:, ENTAILMENT].astype(np.float64)
    return {"pairs": len(pairs), "auc": area_under_curve(ours, theirs > _PUBLISHED_ENTAILED)}


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a positive scores above a negative, ties counting half: from ranks (Mann and Whitney 1947)."""
    from scipy.stats import rankdata

    ups = int(positive.sum())
    downs = len(positive) - ups
    if not ups or not downs:
        raise ValueError("all pairs are of one kind")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - ups * (ups + 1) / 2) / (ups * downs))


def _on_cdconv(judge: Judge, rows: Rows) -> dict[str, Any]:
    """Contradiction or none, of the second reply given the first."""
    verdicts = judge.judge([(row["b1"], row["b2"]) for row in rows.values()]).classes() == CONTRADICTION
    labels = np.array([int(row["label"] > 0) for row in rows.values()])
    return _against_majority(labels, verdicts.astype(np.int64), 2)


def _on_kvpi(judge: Judge, rows: Rows) -> dict[str, Any]:
    pairs = [(profile_text(row["profile"]), row["response"]) for row in rows.values()]
    verdicts = judge.judge(pairs).classes()
    return _against_majority(np.array([_KVPI[row["label"]] for row in rows.values()]), verdicts, len(LABELS))


def profile_text(profile: str) -> str:
    """KvPI's profile, a Python dict that not always quotes its values, as a line of text."""
    try:
        values = ast.literal_eval(profile)
    except (ValueError, SyntaxError):
        values = dict(re.findall(r"'(\w+)': ([^,}]*)", profile))
    names = {"constellation": "星座", "loc": "所在地", "gender": "性别"}
    words = {"female": "女", "male": "男"}
    return "，".join(
        f"{names.get(key, key)}：{words.get(str(value), value)}" for key, value in values.items()
    )


def _against_majority(labels: np.ndarray, verdicts: np.ndarray, classes: int) -> dict[str, Any]:
    scores = classification_scores(labels, verdicts, class_count=classes)
    most = Counter(labels.tolist()).most_common(1)[0][1]
    return {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1, "majority": most / len(labels)}
