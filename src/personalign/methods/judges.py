"""Judges by the name that a recipe gives them."""

import os
from pathlib import Path

from personalign.errors import PersonalignError
from personalign.evaluation.judge import Judge, OracleJudge
from personalign.models.precision import Dtype

JUDGE_FOLDER = "PERSONALIGN_JUDGES"


ORACLE = "oracle"


def find_judge(name: str) -> str:
    """What a recipe's name stands for: the oracle, a folder, a folder below PERSONALIGN_JUDGES, or a hub id."""
    if name == ORACLE:
        return name
    shelf = os.environ.get(JUDGE_FOLDER)
    if shelf and (Path(shelf) / name).is_dir():
        return str(Path(shelf) / name)
    if Path(name).is_dir() or "/" in name:
        return name
    raise PersonalignError(
        f"there is no judge '{name}': train one with `personalign judge train`, then give its folder with "
        f"--set 'evaluation.judges=[FOLDER]', or set {JUDGE_FOLDER} to the folder that holds it"
    )


def open_judge(name: str, *, language: str, dtype: Dtype = "float32") -> Judge:
    """The judge that `find_judge` finds; `oracle` judges the synthetic corpus."""
    source = find_judge(name)
    if source == ORACLE:
        from personalign.data.synthetic import SyntheticOracle

        return OracleJudge(SyntheticOracle(language))
    from personalign.evaluation.nli_judge import load_judge

    return load_judge(source, dtype=dtype)
