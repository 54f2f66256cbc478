"""Every metric by its exact name: what it is, what it needs, which way is better, where it comes from.

In Chinese every word or token below is a character (`zh`) or one of jieba's words (`zh-word`); the figures then bear
`@char` or `@word` after their names and compare neither with each other nor with English ones.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from personalign.errors import PersonalignError
from personalign.evaluation import (
    bleu,
    coherence,
    consistency,
    diversity,
    likelihood,
    measuring,
    overlap,
    past,
    ranking,
    selection,
)
from personalign.evaluation.answers import Answers
from personalign.evaluation.needs import Need, has
from personalign.evaluation.sums import Sums, mean_of
from personalign.evaluation.tokens import Language, tokens, words, words_and_marks

Direction = Literal["higher", "lower", "none"]
Interval = Literal["bootstrap", "jackknife"]


@dataclass(frozen=True, slots=True)
class Metric:
    """`direction`: whether higher or lower is better, or neither. `range`: what values it can take.

    `interval`: how far the figure could be off is told by resampling dialogues (bootstrap) or, where drawing a dialogue
    twice would bias it, by leaving each out in turn (jackknife). `of_systems`: False for what the data alone decide.
    """

    name: str
    description: str
    source: str
    range: str
    direction: Direction
    needs: tuple[Need, ...]
    measure: Callable[[Answers], Sums]
    interval: Interval = "bootstrap"
    by_default: bool = True
    of_systems: bool = True

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value of `range`: "0 to 1", "1 and up", "any"."""
        least, _, most = self.range.partition(" ")
        if least == "any":
            return -math.inf, math.inf
        return float(least), float(most.removeprefix("to ")) if most.startswith("to ") else math.inf


def missing(answers: Answers, metric: Metric) -> list[Need]:
    """What a metric needs and these answers do not have."""
    return [need for need in metric.needs if not has(answers, need)]


def find_metrics(names: Sequence[str]) -> list[Metric]:
    """Metrics by name, or by what stands before a slash: `bleu-1` stands for all variants that are computed by default.

    Capitals do not matter, nor does the @char or @word of a printed name. Raises PersonalignError for any other name,
    with those that are meant or near.
    """
    found: dict[str, Metric] = {}
    for name in names:
        plain = _plain_name(name.lower()).rstrip("/")
        variants = [m for m in METRICS.values() if m.name.startswith(f"{plain}/") and m.by_default]
        matching = [METRICS[plain]] if plain in METRICS else variants
        if not matching:
            families = dict.fromkeys(metric.partition("/")[0] for metric in METRICS)
            near = [family for family in families if plain and family.startswith(plain)]
            near = near or difflib.get_close_matches(plain, METRICS, n=1, cutoff=0.4)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise PersonalignError(
                f"there is no metric '{name}'{hint} (personalign metrics list prints all of them)"
            )
        found |= {metric.name: metric for metric in matching}
    return list(found.values())


def metric_of(printed: str) -> Metric:
    """The metric behind a printed name."""
    return METRICS[_plain_name(printed)]


def _plain_name(printed: str) -> str:
    return printed.removesuffix("@char").removesuffix("@word")


def printed_name(metric: Metric, language: Language) -> str:
    """The name with what Chinese text was cut into."""
    return metric.name + {"en": "", "zh": "@char", "zh-word": "@word"}[language]


_WHITE = "white-space tokens"
_MARKS = "words and marks"
_WORDS = "lower-cased words without marks"
_GOLD: tuple[Need, ...] = ("gold",)
_JUDGE: tuple[Need, ...] = ("judge", "persona")
_CHOICE: tuple[Need, ...] = ("labels", "choice")
_COHERENCE: tuple[Need, ...] = ("coherence", "persona")

_BLEUS: tuple[tuple[bleu.Variant, str, str, str], ...] = (
    ("coco", _WHITE, "(hits + 1e-15) / (n-grams + 1e-9)", "pycocoevalcap, used by PAL"),
    ("sacrebleu", "13a tokens (Chinese: zh)", "smoothing exp", "sacrebleu, Post 2018"),
    ("nltk", _WHITE, "no smoothing", "nltk corpus_bleu"),
)
_SELECTIONS: tuple[tuple[str, str, str, Callable[[selection.Selections], Sums]], ...] = (
    ("accuracy", 'share of turns with the right line or "none"', "PAL", selection.Selections.accuracy),
    (
        "accuracy_always_none",
        "what never choosing a line would score",
        "personalign",
        selection.Selections.always_none,
    ),
    (
        "accuracy_needed",
        "accuracy on turns that need a line",
        "personalign",
        selection.Selections.accuracy_needed,
    ),
    ("macro_f1", 'mean F1 over "none" and the line numbers', "personalign", selection.Selections.macro_f1),
    (
        "none_precision",
        "share of the turns without a choice that are labelled none",
        "usual",
        selection.Selections.none_precision,
    ),
    (
        "none_recall",
        "share of the turns labelled none without a choice",
        "usual",
        selection.Selections.none_recall,
    ),
)

_ALL: tuple[Metric, ...] = (
    *(
        Metric(
            f"bleu-{n}/{variant}",
            f"corpus BLEU-{n} x 100 on {cut}{', cumulative geometric mean' if n > 1 else ''}; {smoothing}",
            source,
            "0 to 100",
            "higher",
            _GOLD,
            partial(measuring.corpus_bleu, order=n, variant=variant),
        )
        for variant, cut, smoothing, source in _BLEUS
        for n in range(1, 5)
    ),
    *(
        Metric(
            f"bleu-{n}/idl_legacy_char",
            "mean over replies of nltk's sentence BLEU of characters with reply and gold exchanged, x 100: about "
            "three times any other BLEU, comparable with none",
            "IDL's released code",
            "0 to 100",
            "higher",
            _GOLD,
            partial(measuring.bleu_idl_legacy, order=n),
            by_default=False,
        )
        for n in (1, 2)
    ),
    Metric(
        "rouge-l/coco",
        f"mean LCS F (beta 1.2) x 100 on {_WHITE}",
        "pycocoevalcap, used by PAL",
        "0 to 100",
        "higher",
        _GOLD,
        lambda answers: overlap.rouge_l_coco(*measuring.both(answers, tokens)),
    ),
    *(
        Metric(
            f"rouge-{n}/rouge_score",
            f"mean F x 100 of shared {n}-grams of lower-cased ASCII words, no stemmer (Chinese: tokens)",
            "rouge_score; Lin 2004",
            "0 to 100",
            "higher",
            _GOLD,
            partial(measuring.rouge_n, order=n),
        )
        for n in (1, 2)
    ),
    Metric(
        "rouge-l/rouge_score",
        "mean LCS F x 100 of lower-cased ASCII words, no stemmer (Chinese: tokens)",
        "rouge_score; Lin 2004",
        "0 to 100",
        "higher",
        _GOLD,
        lambda answers: overlap.rouge_l(*measuring.both(answers, overlap.rouge_tokens)),
    ),
    Metric(
        "chrf/sacrebleu",
        "corpus chrF2 x 100, character 1- to 6-grams without white space",
        "sacrebleu; Popović 2015",
        "0 to 100",
        "higher",
        _GOLD,
        lambda answers: overlap.chrf(answers.texts, answers.golds()),
    ),
    Metric(
        "f1/convai2",
        "mean F1 x 100 of shared words, lower-cased, without punctuation and articles",
        "ConvAI2, Dinan et al. 2019; ParlAI",
        "0 to 100",
        "higher",
        _GOLD,
        lambda answers: overlap.f1_convai2(answers.texts, answers.golds(), language=answers.language),
    ),
    *(
        Metric(
            f"distinct-{n}/corpus",
            f"different {n}-grams of {_MARKS} over all replies, per token; falls as the test set grows",
            "Li et al. 2016; PAL",
            "0 to 1",
            "higher",
            (),
            partial(measuring.of_ngrams, figure=diversity.distinct, order=n),
            interval="jackknife",
        )
        for n in (1, 2, 3)
    ),
    *(
        Metric(
            f"distinct-{n}/per_response",
            f"mean over replies of different {n}-grams of {_MARKS} per {n}-gram",
            "IDL",
            "0 to 1",
            "higher",
            (),
            partial(measuring.of_ngrams, figure=diversity.distinct_per_response, order=n),
        )
        for n in (1, 2, 3)
    ),
    *(
        Metric(
            f"entropy-{n}/corpus",
            f"nats over {n}-grams of {_MARKS} pooled over all replies",
            "Zhang et al. 2018; PAL",
            "0 and up",
            "higher",
            (),
            partial(measuring.of_ngrams, figure=diversity.entropy, order=n),
            interval="jackknife",
        )
        for n in (1, 2, 3, 4)
    ),
    Metric(
        "length/tokens",
        f"mean {_MARKS} of a reply",
        "usual",
        "0 and up",
        "none",
        (),
        lambda answers: diversity.length(measuring.cut_texts(answers, words_and_marks, "replies")),
    ),
    *(
        Metric(
            f"repetition-{n}",
            f"share of {n}-grams of {_MARKS} that repeat an earlier one of the same reply, pooled",
            "after seq-rep-n, Welleck et al. 2020",
            "0 to 1",
            "lower",
            (),
            partial(measuring.of_ngrams, figure=diversity.repetition, order=n),
        )
        for n in (1, 2, 4)
    ),
    Metric(
        "repeated_replies",
        "share of replies that another turn got word for word",
        "personalign",
        "0 to 1",
        "lower",
        (),
        lambda answers: diversity.repeated_replies(measuring.cut_texts(answers, words_and_marks, "replies")),
        interval="jackknife",
    ),
    Metric(
        "copy_rate",
        f"longest run of {_WORDS} shared with one persona line, per word of the reply",
        "personalign",
        "0 to 1",
        "none",
        ("persona",),
        measuring.copy_rate,
    ),
    Metric(
        "p_cover/past",
        "mean of the largest idf sum of words shared with one past message of the person",
        "Ma et al. 2021, DHAP",
        "0 and up",
        "higher",
        ("past",),
        lambda answers: past.p_cover(
            measuring.cut_texts(answers, words, "replies"), measuring.pasts(answers)
        ),
    ),
    Metric(
        "p_f1/past",
        "mean F1 of words shared with all past messages of the person",
        "MSP, DHAP",
        "0 to 1",
        "higher",
        ("past",),
        lambda answers: past.p_f1(measuring.cut_texts(answers, words, "replies"), measuring.pasts(answers)),
    ),
    Metric(
        "p_f1/last_own",
        "F1 of the sets of words of the reply and the person's last message",
        "IDL's released code",
        "0 to 1",
        "higher",
        ("past",),
        measuring.p_f1_last,
    ),
    Metric(
        "p_co/past",
        "mean cosine of the tf-idf vectors of the reply and the person's past messages",
        "Zhong et al. 2022, MSP",
        "0 to 1",
        "higher",
        ("past",),
        lambda answers: past.p_co(measuring.cut_texts(answers, words, "replies"), measuring.pasts(answers)),
    ),
    Metric(
        "ppl/token",
        "exp(total nll / total target tokens) of the gold replies; for systems with the same tokenizer",
        "usual",
        "1 and up",
        "lower",
        ("likelihood",),
        lambda answers: likelihood.perplexity(measuring.nll(answers), measuring.gold_tokens(answers)),
    ),
    Metric(
        "ppl/word",
        f"exp(total nll / total {_WHITE} and ends) of the gold replies; for systems with any tokenizers",
        "usual",
        "1 and up",
        "lower",
        ("likelihood", "gold"),
        measuring.ppl_word,
    ),
    Metric(
        "ppl/reply_mean",
        "exp(mean over replies of nll per token) of the gold replies",
        "PAL, ORIG",
        "1 and up",
        "lower",
        ("likelihood",),
        lambda answers: likelihood.perplexity_of_means(
            measuring.nll(answers), measuring.gold_tokens(answers)
        ),
    ),
    Metric(
        "hits@1",
        "share of turns whose gold reply is ranked first among its candidates",
        "Zhang et al. 2018; ConvAI2",
        "0 to 1",
        "higher",
        ("rank",),
        lambda answers: ranking.hits_at_1(measuring.ranks(answers)),
    ),
    Metric(
        "mrr",
        "mean reciprocal rank of the gold reply among its candidates",
        "usual",
        "0 to 1",
        "higher",
        ("rank",),
        lambda answers: ranking.mean_reciprocal_rank(measuring.ranks(answers)),
    ),
    Metric(
        "c_score/max",
        "mean over replies of the best NLI sign over the lines",
        "PAL",
        "-1 to 1",
        "higher",
        _JUDGE,
        lambda answers: measuring.judged(answers).c_score_max(),
    ),
    Metric(
        "c_score/sum",
        "mean over replies of the summed NLI signs",
        "Madotto et al. 2019, PAML",
        "any",
        "higher",
        _JUDGE,
        lambda answers: measuring.judged(answers).c_score_sum(),
    ),
    Metric(
        "entail_rate",
        "share of replies that entail a line",
        "personalign",
        "0 to 1",
        "higher",
        _JUDGE,
        lambda answers: measuring.judged(answers).entail_rate(),
    ),
    Metric(
        "contradict_rate",
        "share of replies that contradict a line",
        "personalign",
        "0 to 1",
        "lower",
        _JUDGE,
        lambda answers: measuring.judged(answers).contradict_rate(),
    ),
    Metric(
        "coh/pairs",
        "share of (line, reply) pairs that are no contradiction",
        "IDL's released code; not CLV's Con.Score",
        "0 to 1",
        "higher",
        _JUDGE,
        lambda answers: measuring.judged(answers).coherent_pairs(),
    ),
    Metric(
        "coh_con/pairs",
        "share of (line, reply) pairs that are an entailment",
        "IDL's released code; not CLV's Coh-Con.Score",
        "0 to 1",
        "higher",
        _JUDGE,
        lambda answers: measuring.judged(answers).entailed_pairs(),
    ),
    Metric(
        "con/clv",
        "share of replies that are consistent with the persona, coherent or not",
        "CLV, Tang et al. 2023",
        "0 to 1",
        "higher",
        _COHERENCE,
        lambda answers: coherence.consistent(measuring.coherences(answers)),
    ),
    Metric(
        "coh_con/clv",
        "share of replies that are consistent with the persona and coherent with the context",
        "CLV, Tang et al. 2023",
        "0 to 1",
        "higher",
        _COHERENCE,
        lambda answers: coherence.coherent(measuring.coherences(answers)),
    ),
    Metric(
        "recall",
        "share of turns labelled with a line whose reply entails that line",
        "personalign",
        "0 to 1",
        "higher",
        (*_JUDGE, "labels"),
        lambda answers: measuring.judged(answers).recall(measuring.relevant(answers)),
    ),
    Metric(
        "apc/labelled",
        "mean over lines of P(entailed) where the line is labelled, 1 - P(contradicted) where not",
        "Peng and Shang 2024, divided by the number of lines",
        "0 to 1",
        "higher",
        (*_JUDGE, "labels"),
        lambda answers: measuring.judged(answers).apc(measuring.relevant(answers)),
    ),
    Metric(
        "self_contradiction/reply",
        "share of replies that an earlier message of the same person contradicts with P > 0.5",
        "Nie et al. 2021, DECODE",
        "0 to 1",
        "lower",
        ("judge", "past"),
        lambda answers: consistency.self_contradiction(measuring.earlier(answers)),
    ),
    Metric(
        "self_contradiction/dialogue",
        "share of dialogues with such a reply",
        "Nie et al. 2021, DECODE",
        "0 to 1",
        "lower",
        ("judge", "past"),
        lambda answers: consistency.self_contradicting_dialogues(
            measuring.earlier(answers), answers.dialogues
        ),
    ),
    *(
        Metric(
            f"selection/{name}",
            description,
            source,
            "0 to 1",
            "none" if name == "accuracy_always_none" else "higher",
            _CHOICE,
            partial(measuring.of_selections, figure=figure),
            of_systems=name != "accuracy_always_none",
        )
        for name, description, source, figure in _SELECTIONS
    ),
    *(
        Metric(
            f"selection/recall@{k}",
            f"share of turns labelled with a line that have one among the {k} most probable lines",
            "usual",
            "0 to 1",
            "higher",
            ("labels", "probabilities"),
            partial(measuring.recall_at, k=k),
        )
        for k in (1, 2, 3)
    ),
    Metric(
        "share_none",
        "share of turns on which no line was chosen",
        "personalign",
        "0 to 1",
        "none",
        ("choice",),
        lambda answers: mean_of([float(reply.line is None) for reply in answers.replies]),
    ),
    Metric(
        "share_none_labelled",
        "share of turns labelled with no line",
        "personalign",
        "0 to 1",
        "none",
        ("labels",),
        lambda answers: mean_of([float(not lines) for lines in measuring.relevant(answers)]),
        of_systems=False,
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}

PAL_TEXT = (
    "bleu-1/coco",
    "bleu-2/coco",
    "rouge-l/coco",
    *(f"entropy-{n}/corpus" for n in (1, 2, 3, 4)),
    "distinct-1/corpus",
    "distinct-2/corpus",
)
"""What PAL's table shows of the texts alone."""
