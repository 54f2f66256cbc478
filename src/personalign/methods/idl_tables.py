"""Tables of IDL's results, in Markdown, one set for each part that was tested."""

from collections.abc import Mapping, Sequence
from typing import Any

from personalign.methods.tables import Column, Results, judged_names, markdown, plain_table, with_interval

_TEXT: tuple[Column, ...] = (
    ("turns", "d"),
    ("told", ".1f"),
    ("bleu-1/coco", ".1f"),
    ("bleu-2/coco", ".1f"),
    ("rouge-l/rouge_score", ".1f"),
    ("distinct-1/per_response", ".3f"),
    ("distinct-2/per_response", ".3f"),
    ("distinct-2/corpus", ".3f"),
    ("ppl/token", ".2f"),
)
_PERSON: tuple[Column, ...] = (
    ("p_f1/past", ".4f"),
    ("p_co/past", ".3f"),
    ("p_cover/past", ".3f"),
    ("copy_rate", ".3f"),
)
IDL_FIGURES = tuple(name for name, _ in (*_TEXT[2:], *_PERSON))
"""The metrics of IDL's Tables 1 and 2, under what is known of their definitions, and the copy rate."""

IDL_CONSISTENCY = (
    "c_score/max",
    "c_score/sum",
    "entail_rate",
    "contradict_rate",
    "coh/pairs",
    "coh_con/pairs",
)
JUDGED_TURNS = "judged_turns"
"""Of a system's results, how many turns are of people with a profile."""

_CONSISTENCY = (*(f"{name}/all" for name in IDL_CONSISTENCY), "recall")


def idl_tables(results: Results, criteria: Mapping[str, Any], attention: Mapping[str, Any]) -> str:
    """Every metric of every system, part by part, with 95 % bootstrap intervals where there are any."""
    blocks = [
        "# Results",
        "",
        "Brackets hold 95 % bootstrap intervals by session. `told`: sessions told before the one that is answered, on "
        "the average. `recall`: of the turns labelled with a line, which the person has expressed in a session that IDL "
        "is told, the share whose reply entails it. `copy_rate` is of the profile, which only the systems that are "
        "called after it see. DPA, SPI, DPI: alignment, static and dynamic persona identification.",
        "",
    ]
    for part in dict.fromkeys(system["part"] for system in results.values()):
        of_part = {name: system for name, system in results.items() if system["part"] == part}
        gold = next(iter(of_part.values()))
        blocks += [f"## Tested on: {part}", "", f"{gold['people']} people, {gold['turns']} turns.", ""]
        blocks += [*plain_table(of_part, _TEXT), "", *plain_table(of_part, _PERSON), ""]
        for judge in judged_names(of_part):
            rows = [
                [system["title"], *(with_interval(system[f"judge:{judge}"].get(key)) for key in _CONSISTENCY)]
                for system in of_part.values()
                if f"judge:{judge}" in system
            ]
            left_out = gold["turns"] - gold[JUDGED_TURNS]
            of = f", without {left_out} turns of people who have no profile" if left_out else ""
            blocks += [f"Consistency, {judge}{of}:", "", *markdown(["system", *_CONSISTENCY], rows), ""]
    return "\n".join([*blocks, *_criteria(criteria), *_attention(attention)])


def _criteria(criteria: Mapping[str, Any]) -> list[str]:
    blocks = ["## Criterion replies", ""]
    counts = [[name, str(count)] for name, count in criteria["counts"].items()]
    blocks += [*markdown(["made", "count"], counts), ""]
    for judge, kinds in criteria.get("judged", {}).items():
        rows = [
            [kind, f"{found['judged']:.0f}", f"{found['contradicts']:.2f}", f"{found['entailed']:.2f}"]
            for kind, found in kinds.items()
        ]
        header = ["kind", "judged", "contradict the gold reply or a line", "are entailed by one"]
        blocks += [
            f"By the judge {judge}, with the gold replies beside them:",
            "",
            *markdown(header, rows),
            "",
        ]
    for kind, examples in criteria["examples"].items():
        rows = [[item["gold"], item["criterion"], item["rejected"]] for item in examples]
        blocks += [f"### {kind}", "", *markdown(["said", "criterion", "rejected"], _escaped(rows)), ""]
    return blocks


def _attention(attention: Mapping[str, Any]) -> list[str]:
    if not attention:
        return []
    rows = [
        [title, str(found["sessions"]), f"{found['top']:.3f}", f"{found['all']:.3f}"]
        for title, found in attention.items()
    ]
    header = ["system", "sessions", "of the 100 tokens most attended to", "of all tokens told"]
    return ["## Attention", "", "Share that stands in words of the profile:", "", *markdown(header, rows), ""]


def _escaped(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[cell.replace("|", "\\|") for cell in row] for row in rows]
