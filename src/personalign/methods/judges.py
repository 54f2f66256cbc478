"""Judges by the name that a recipe gives them."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from personalign.errors import PersonalignError
from personalign.evaluation.judge import Judge, OracleJudge, Progress
from personalign.evaluation.judge_cache import PAIRS_BETWEEN_SAVES, CachedJudge, OverallProgress, cache_file
from personalign.methods.parts import contents_of
from personalign.methods.recipe import ORACLE
from personalign.models.precision import Dtype

JUDGE_FOLDER = "PERSONALIGN_JUDGES"
LLM = "llm:"


def find_judge(name: str) -> str:
    """What a name stands for: the oracle, llm:MODEL, a folder, one below PERSONALIGN_JUDGES, or a hub id."""
    if name == ORACLE or name.startswith(LLM):
        return name
    shelf = os.environ.get(JUDGE_FOLDER)
    if shelf and (Path(shelf) / name).is_dir():
        return str(Path(shelf) / name)
    if Path(name).is_dir() or "/" in name:
        return name
    raise PersonalignError(
        f"there is no judge '{name}': train one with `personalign judge train`, then give its folder, or "
        f"set {JUDGE_FOLDER} to the folder that holds it"
    )


def judges_asked(names: Sequence[str]) -> dict[str, str]:
    """What decides the verdicts of judges that are folders here, by name: one may be trained anew under its name."""
    found = {}
    for name in names:
        # One that is missing is told when it is needed.
        with suppress(PersonalignError):
            source = find_judge(name)
            if (contents := contents_of(source)) is not None and contents != source:
                found[name] = contents
    return found


def open_judge(
    name: str,
    *,
    language: str,
    dtype: Dtype = "float32",
    device: str = "cpu",
    max_length: int = 128,
    progress: Progress | None = None,
) -> Judge:
    """The judge that `find_judge` finds: the oracle of the synthetic corpus, an NLI model, or a model behind an API."""
    source = find_judge(name)
    if source == ORACLE:
        from personalign.data.synthetic import SyntheticOracle

        return OracleJudge(SyntheticOracle(language))
    if source.startswith(LLM):
        from personalign.evaluation.llm_judge import open_llm_judge

        return open_llm_judge(source.removeprefix(LLM), progress=progress)
    from personalign.evaluation.nli_judge import load_judge

    return load_judge(source, dtype=dtype, device=device, max_length=max_length, progress=progress)


def check_knows(judge: Judge, lines: Sequence[str]) -> None:
    """Raises PersonalignError where most of the persona lines that the oracle meets are not of the synthetic corpus."""
    from personalign.data.synthetic import SyntheticOracle

    if not isinstance(judge, OracleJudge) or not isinstance(judge.oracle, SyntheticOracle):
        return
    distinct = list(dict.fromkeys(lines))
    unknown = [line for line in distinct if not judge.oracle.knows(line)]
    if 2 * len(unknown) > len(distinct):
        raise PersonalignError(
            f"the oracle knows the lines of the synthetic corpus alone; {len(unknown):,} of {len(distinct):,} persona "
            f"lines are others, such as {unknown[0][:60]!r}; name another judge (personalign judge train makes one)"
        )


def described(name: str) -> str:
    """A judge's name and, of one that `personalign judge train` made, how often it was right."""
    try:
        record = json.loads((Path(find_judge(name)) / "judge.json").read_text(encoding="utf-8"))
        return f"{record['name']} (accuracy {record['valid']['accuracy']:.3f} on its own validation rows)"
    except (PersonalignError, OSError, ValueError, KeyError, TypeError):
        return name


def with_cache(judge: Judge) -> Judge:
    """The judge behind the verdicts that are kept on disk; an oracle is quicker than any file.

    Its progress then counts all pairs that are not kept yet, however many calls they take.
    """
    from personalign.evaluation.llm_judge import RATINGS_BETWEEN_SAVES, LlmJudge
    from personalign.evaluation.nli_judge import NliJudge

    if not isinstance(judge, NliJudge | LlmJudge):
        return judge
    progress = None if judge.progress is None else OverallProgress(judge.progress)
    return CachedJudge(
        replace(judge, progress=progress),
        judge.key,
        cache_file(),
        between_saves=RATINGS_BETWEEN_SAVES if isinstance(judge, LlmJudge) else PAIRS_BETWEEN_SAVES,
        progress=progress,
    )
