"""How each metric is taken of a system's answers; texts are cut, and pairs judged, once for all metrics."""

from collections.abc import Callable
from functools import cache
from typing import Any

from personalign.evaluation import bleu, consistency, likelihood, overlap, past, selection
from personalign.evaluation.answers import Answers
from personalign.evaluation.bleu import Tokens
from personalign.evaluation.consistency import Consistency
from personalign.evaluation.grams import Ngrams
from personalign.evaluation.sums import Floats, Sums, mean_of
from personalign.evaluation.tokens import Language, tokens, words, words_and_marks


def cut_texts(answers: Answers, cut: Callable[..., Tokens], which: str) -> list[Tokens]:
    """Replies or gold replies as tokens, each way of cutting done once."""
    texts = answers.texts if which == "replies" else answers.golds()
    return answers.once(
        (cut.__name__, which), lambda: [cut(text, language=answers.language) for text in texts]
    )


def bleu_counts(answers: Answers, cut: Callable[..., Tokens]) -> Floats:
    return answers.once(
        ("bleu", cut.__name__),
        lambda: bleu.bleu_counts(cut_texts(answers, cut, "replies"), cut_texts(answers, cut, "golds")),
    )


def corpus_bleu(answers: Answers, *, order: int, variant: bleu.Variant) -> Sums:
    cut = sacrebleu_tokens if variant == "sacrebleu" else tokens
    return bleu.bleu(bleu_counts(answers, cut), order=order, variant=variant)


def sacrebleu_tokens(text: str, *, language: Language) -> Tokens:
    cut: str = sacrebleu_tokenizer(language)(text.rstrip())
    return cut.split()


def sacrebleu_tokenizer(language: Language) -> Callable[[str], str]:
    if language == "zh-word":
        return lambda text: " ".join(tokens(text, language="zh-word"))
    ready: Callable[[str], str] = _ready_tokenizer(language)
    return ready


@cache
def _ready_tokenizer(language: Language) -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
    from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

    return Tokenizer13a() if language == "en" else TokenizerZh()


def sacrebleu_signature(*, order: int, language: Language) -> str:
    """What sacrebleu prints beside such a score."""
    from sacrebleu.metrics import BLEU

    cut = {"en": "13a", "zh": "zh", "zh-word": "none"}[language]
    metric = BLEU(tokenize=cut, max_ngram_order=order)
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


def bleu_idl_legacy(answers: Answers, *, order: int) -> Sums:
    return bleu.bleu_idl_legacy(answers.texts, answers.golds(), order=order)


def rouge_n(answers: Answers, *, order: int) -> Sums:
    return overlap.rouge_n(*both(answers, overlap.rouge_tokens), order=order)


def of_ngrams(answers: Answers, *, figure: Callable[..., Sums], order: int) -> Sums:
    """A figure of the replies' n-grams of words and marks."""
    replies = answers.once("ngrams", lambda: Ngrams(cut_texts(answers, words_and_marks, "replies")))
    return figure(replies, order=order)


def both(answers: Answers, cut: Callable[..., Tokens]) -> tuple[list[Tokens], list[Tokens]]:
    return cut_texts(answers, cut, "replies"), cut_texts(answers, cut, "golds")


def judged(answers: Answers) -> Consistency:
    judge = answers.judge
    assert judge is not None
    return answers.once(
        "consistency",
        lambda: consistency.judge_consistency(judge, answers.texts, [q.persona for q in answers.questions]),
    )


def coherences(answers: Answers) -> list[int]:
    judge = answers.coherence
    assert judge is not None
    return answers.once(
        "coherence",
        lambda: judge.classes(
            [
                (question.persona, question.context(), reply.text)
                for question, reply in zip(answers.questions, answers.replies, strict=True)
            ]
        ),
    )


def earlier(answers: Answers) -> tuple[Floats, ...]:
    judge = answers.judge
    assert judge is not None
    return answers.once("earlier", lambda: consistency.judge_earlier_turns(judge, answers))


def relevant(answers: Answers) -> list[tuple[int, ...]]:
    return [question.relevant or () for question in answers.questions]


def selections(answers: Answers) -> selection.Selections:
    return answers.once(
        "selections",
        lambda: selection.compare_selections(
            relevant(answers),
            [reply.line for reply in answers.replies],
            lines=max(len(question.persona) for question in answers.questions),
        ),
    )


def of_selections(answers: Answers, *, figure: Callable[[selection.Selections], Sums]) -> Sums:
    return figure(selections(answers))


def recall_at(answers: Answers, *, k: int) -> Sums:
    return selection.recall_at(
        relevant(answers), [reply.probabilities or () for reply in answers.replies], k=k
    )


def copy_rate(answers: Answers) -> Sums:
    return mean_of(
        [
            consistency.copied_share(reply.text, question.persona, language=answers.language)
            for question, reply in zip(answers.questions, answers.replies, strict=True)
        ]
    )


def pasts(answers: Answers) -> list[past.Past]:
    """What each turn's person said elsewhere; the same past is prepared once."""
    prepared: dict[tuple[str, ...], past.Past] = {}

    def compute() -> list[past.Past]:
        for question in answers.questions:
            if question.past not in prepared:
                prepared[question.past] = past.prepare(
                    [words(text, language=answers.language) for text in question.past]
                )
        return [prepared[question.past] for question in answers.questions]

    return answers.once("pasts", compute)


def p_f1_last(answers: Answers) -> Sums:
    owns = [[words(text, language=answers.language) for text in q.own[-1:]] for q in answers.questions]
    return past.p_f1_last(cut_texts(answers, words, "replies"), owns)


def nll(answers: Answers) -> list[float]:
    return [reply.gold_nll or 0.0 for reply in answers.replies]


def gold_tokens(answers: Answers) -> list[int]:
    return [reply.gold_tokens or 0 for reply in answers.replies]


def ppl_word(answers: Answers) -> Sums:
    counts = [len(gold) + 1 for gold in cut_texts(answers, tokens, "golds")]
    return likelihood.perplexity(nll(answers), counts)


def ranks(answers: Answers) -> list[int]:
    return [reply.rank or 0 for reply in answers.replies]
