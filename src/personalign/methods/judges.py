"""Judges by the name that a recipe gives them."""

import os
from pathlib import Path

from personalign.errors import PersonalignError
from personalign.evaluation.judge import Judge, OracleJudge
from personalign.models.precision import Dtype

JUDGE_FOLDER = "PERSONALIGN_JUDGES"


def open_judge(name: str, *, language: str, dtype: Dtype = "float32") -> Judge:
    """`oracle` for the synthetic corpus; else a folder, a folder below PERSONALIGN_JUDGES, or a hub id."""
    if name == "oracle":
        from personalign.data.synthetic import SyntheticOracle

        return OracleJudge(SyntheticOracle(language))
    from personalign.evaluation.nli_judge import load_judge

    shelf = os.environ.get(JUDGE_FOLDER)
    below = Path(shelf) / name if shelf else None
    if below is not None and below.is_dir():
        return load_judge(below, dtype=dtype)
    if Path(name).is_dir() or "/" in name:
        return load_judge(name, dtype=dtype)
    raise PersonalignError(
        f"there is no judge '{name}': train one with `personalign judge train`, then give its folder with "
        f"--set 'evaluation.judges=[FOLDER]', or set {JUDGE_FOLDER} to the folder that holds it"
    )
