"""Metrics grouped by what they are about, as the page and the tables show them."""

from collections.abc import Mapping, Sequence

from personalign.evaluation.metrics import metric_of

# Metrics by what stands before the slash or, without one, by name; what is in no family comes last.
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "Consistency with the persona": (
        "c_score",
        "entail_rate",
        "contradict_rate",
        "recall",
        "apc",
        "coh",
        "con",
        "coh_con",
        "self_contradiction",
        "copy_rate",
    ),
    "Selection": ("selection", "share_none", "share_none_labelled"),
    "Overlap with the gold reply": ("bleu-", "rouge-", "chrf", "f1"),
    "Likelihood and ranking": ("ppl", "hits@1", "mrr"),
    "Diversity": ("distinct-", "entropy-", "length", "repetition-", "repeated_replies"),
    "The person's past": ("p_cover", "p_f1", "p_co"),
}
_OTHERS = "Others"


def families(metrics: Sequence[str]) -> dict[str, list[str]]:
    """Metrics by family, in the order of the families and, within, of `metrics`."""
    grouped: dict[str, list[str]] = {title: [] for title in (*_FAMILIES, _OTHERS)}
    for metric in metrics:
        grouped[_family_of(metric)].append(metric)
    return {title: names for title, names in grouped.items() if names}


def _family_of(metric: str) -> str:
    stem = metric_of(metric).name.partition("/")[0]
    for title, members in _FAMILIES.items():
        if any(stem == member or (member.endswith("-") and stem.startswith(member)) for member in members):
            return title
    return _OTHERS
