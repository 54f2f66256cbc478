"""What `evaluate` and `report` read from their command lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from personalign.cli._output import clean, message_console
from personalign.errors import PersonalignError
from personalign.evaluation.tokens import Language, mostly_chinese

if TYPE_CHECKING:
    from personalign.evaluation.answers import Answers
    from personalign.evaluation.coherence import CoherenceModel
    from personalign.evaluation.evaluate import Evaluation
    from personalign.evaluation.judge import Judge, Progress
    from personalign.evaluation.metrics import Metric
    from personalign.models.precision import Dtype


def named_files(given: Sequence[str]) -> dict[str, list[Path]]:
    """Name and files of each `[NAME=]FILE[,FILE ...]`; without a name a system is called after its first file.

    Raises PersonalignError for a name that is there twice, for a file that a system is given twice, and for what is no
    file.
    """
    named: dict[str, list[Path]] = {}
    for text in given:
        name, equals, files = text.partition("=")
        if not equals or Path(text).exists():
            name, files = "", text
        paths = [Path(files)] if Path(files).exists() else [Path(file) for file in files.split(",") if file]
        for path in paths:
            if not path.is_file():
                raise PersonalignError(f"{path} is no file; give predictions as [NAME=]FILE[,FILE ...]")
        if len({path.resolve() for path in paths}) < len(paths):
            raise PersonalignError(
                f"'{text}' names one file twice; the seeds of a system are different files"
            )
        if not paths:
            raise PersonalignError(f"'{text}' names no file; give predictions as [NAME=]FILE[,FILE ...]")
        name = name or _stem(paths[0])
        if name in named:
            raise PersonalignError(f"two systems are called '{name}'; write NAME=FILE to tell them apart")
        named[name] = paths
    return named


def judged_by(
    name: str | None,
    systems: "Mapping[str, Sequence[Answers]]",
    metrics: "Sequence[Metric]",
    *,
    dtype: "Dtype" = "auto",
    coherence: "CoherenceModel | None" = None,
) -> "tuple[dict[str, list[Answers]], Judge | None]":
    """The same answers before the judge of that name, which has judged all that the metrics ask for."""
    from personalign.cli._counting import counting
    from personalign.evaluation.answers import Answers

    first = next(iter(systems.values()))[0]
    language = first.language
    lines = list(dict.fromkeys(line for question in first.questions for line in question.persona))
    with counting("judging") as done:
        opened = _opened_judge(name, lines, language=language, dtype=dtype, progress=done)
        judged = {
            system: [
                Answers(one.questions, one.replies, language=language, judge=opened, coherence=coherence)
                for one in seeds
            ]
            for system, seeds in systems.items()
        }
        _judge_ahead(judged, metrics)
    return judged, opened


def print_left_out(found: "Evaluation") -> None:
    """Which metrics have no figure, by what they lack."""
    by_cause: dict[str, list[str]] = {}
    for metric, why in found.left_out.items():
        by_cause.setdefault(why, []).append(metric)
    for why, metrics in by_cause.items():
        message_console().print(f"left out, {why}: {', '.join(metrics)}", markup=False, soft_wrap=True)


def print_remarks(remarks: Sequence[str | None]) -> None:
    for remark in filter(None, remarks):
        message_console().print(f"note: {clean(remark)}", markup=False, soft_wrap=True)


def remark_on_language(systems: "Mapping[str, Sequence[Answers]]") -> str | None:
    """Where most replies of the data are not in the language that they are cut as."""
    first = next(iter(systems.values()))[0]
    texts = [question.gold for question in first.questions if question.gold]
    if not texts:
        return None
    chinese = mostly_chinese(texts)
    if chinese and first.language == "en":
        return (
            "most replies of the data are Chinese and were cut at white space; give --language zh or zh-word"
        )
    if not chinese and first.language != "en":
        return f"most replies of the data are not Chinese, but the language is {first.language}; give --language en"
    return None


def _opened_judge(
    name: str | None,
    lines: Sequence[str],
    *,
    language: Language,
    dtype: "Dtype",
    progress: "Progress",
) -> "Judge | None":
    """The judge behind its cache. Raises PersonalignError where it cannot know what `lines` say."""
    if name is None:
        return None
    from personalign.cli._output import quieten
    from personalign.methods.judges import check_knows, open_judge, with_cache

    quieten()
    spoken = "en" if language == "en" else "zh"
    opened = open_judge(name, language=spoken, dtype=dtype, progress=progress)
    check_knows(opened, lines)
    return with_cache(opened)


def _judge_ahead(systems: "Mapping[str, Sequence[Answers]]", metrics: "Sequence[Metric]") -> None:
    """Ask the judge once for all pairs of all systems: one progress bar, and what systems share is judged once."""
    judges = [answers.judge for seeds in systems.values() for answers in seeds if answers.judge is not None]
    if not judges or not any("judge" in metric.needs for metric in metrics):
        return
    earlier = any(metric.name.startswith("self_contradiction") for metric in metrics)
    pairs: dict[tuple[str, str], None] = {}
    for answers in (answers for seeds in systems.values() for answers in seeds):
        for question, reply in zip(answers.questions, answers.replies, strict=True):
            pairs |= dict.fromkeys((line, reply.text) for line in question.persona)
            if earlier:
                pairs |= dict.fromkeys((said, reply.text) for said in question.own)
    judges[0].judge(list(pairs))


def chosen_metrics(given: Sequence[str] | None) -> "list[Metric]":
    """Metrics by names that may be joined by commas; without names those that are computed by default."""
    from personalign.evaluation.metrics import METRICS, find_metrics

    if given is None:
        return [metric for metric in METRICS.values() if metric.by_default]
    names = [name.strip() for some in given for name in some.split(",") if name.strip()]
    if not names:
        raise PersonalignError("--metrics names no metric (personalign metrics list prints all of them)")
    return find_metrics(names)


def opened_coherence_judge(name: str | None) -> "CoherenceModel | None":
    if name is None:
        return None
    from personalign.cli._output import quieten
    from personalign.evaluation.coherence import load_coherence_judge

    quieten()
    return load_coherence_judge(name)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
