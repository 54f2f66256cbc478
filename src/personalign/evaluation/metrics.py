"""Every metric by its exact name: what it is, which way is better, where it comes from.

In Chinese every word or token below is a character, or a run of other letters or digits. PAL has jieba cut Chinese
into words first, so numbers under these names cannot be compared with its Chinese ones, nor with English ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from personalign.evaluation.diversity import distinct, entropy
from personalign.evaluation.text_overlap import bleu_coco, rouge_l_coco
from personalign.evaluation.tokens import Language

ENTROPY_ORDERS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Metric:
    """`direction`: whether higher or lower is better, or neither ("none")."""

    description: str
    direction: Literal["higher", "lower", "none"]
    source: str


_COCO = "pycocoevalcap, used by PAL"
_TOKENS = "white-space tokens (Chinese: characters)"
_WORDS = "words and marks (Chinese: characters)"

METRICS: Mapping[str, Metric] = {
    "bleu-1/coco": Metric(f"corpus BLEU-1 x 100 on {_TOKENS}", "higher", _COCO),
    "bleu-2/coco": Metric(f"corpus BLEU-2 x 100 on {_TOKENS}, cumulative geometric mean", "higher", _COCO),
    "rouge-l/coco": Metric(f"mean LCS F (beta 1.2) x 100 on {_TOKENS}", "higher", _COCO),
    **{
        f"entropy-{n}/corpus": Metric(
            f"nats over pooled {n}-grams of {_WORDS}", "higher", "Zhang et al. 2018; PAL"
        )
        for n in ENTROPY_ORDERS
    },
    "distinct-1/corpus": Metric(f"different {_WORDS}, per token", "higher", "Li et al. 2016; PAL"),
    "distinct-2/corpus": Metric(f"different pairs of {_WORDS}, per token", "higher", "Li et al. 2016; PAL"),
    "c_score/max": Metric("mean over replies of the best NLI sign over the lines", "higher", "PAL"),
    "c_score/sum": Metric("mean over replies of the summed NLI signs", "higher", "Madotto et al. 2019"),
    "entail_rate": Metric("share of replies that entail a line", "higher", "personalign"),
    "contradict_rate": Metric("share of replies that contradict a line", "lower", "personalign"),
    "copy_rate": Metric(
        "longest run of words (Chinese: characters) shared with one line, per reply word",
        "none",
        "personalign",
    ),
    "selection/accuracy": Metric('share of turns with the right line or "none"', "higher", "PAL"),
    "selection/accuracy_always_none": Metric("what never choosing a line would score", "none", "personalign"),
    "selection/accuracy_needed": Metric("accuracy on turns that need a line", "higher", "personalign"),
    "selection/macro_f1": Metric('mean F1 over "none" and the line numbers', "higher", "personalign"),
    "share_none": Metric("share of turns on which no line was chosen", "none", "personalign"),
    "share_none_labelled": Metric("share of turns labelled with no line", "none", "personalign"),
    "ppl/token": Metric("exp(total nll / total target tokens) of the gold replies", "lower", "usual"),
}


def text_metrics(
    responses: Sequence[str], references: Sequence[str], *, language: Language = "en"
) -> dict[str, float]:
    """The metrics that need nothing but texts, one reference per response; BLEU and ROUGE times 100.

    `language` "zh" counts characters where "en" counts words.

    >>> round(text_metrics(["i have a dog ."], ["i have a cat ."])["bleu-1/coco"], 1)
    80.0
    """
    targets = [(reference,) for reference in references]
    values = {
        f"bleu-{n}/coco": 100 * bleu_coco(responses, targets, order=n, language=language) for n in (1, 2)
    }
    values["rouge-l/coco"] = 100 * rouge_l_coco(responses, targets, language=language)
    for n in ENTROPY_ORDERS:
        values[f"entropy-{n}/corpus"] = entropy(responses, order=n, language=language)
    for n in (1, 2):
        values[f"distinct-{n}/corpus"] = distinct(responses, order=n, language=language)
    return values
