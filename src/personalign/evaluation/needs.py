"""What a metric may need of a system's answers beyond the replies."""

from collections.abc import Mapping
from typing import Literal

from personalign.evaluation.answers import Answers

Need = Literal[
    "gold", "persona", "past", "labels", "choice", "probabilities", "likelihood", "rank", "judge", "coherence"
]

NEEDS: Mapping[Need, str] = {
    "gold": "a gold reply for every turn",
    "persona": "a persona line for some turn",
    "past": "another message of the person before some turn or in another dialogue",
    "labels": "'relevant' for every dialogue of the data",
    "choice": "'selected' in every prediction",
    "probabilities": "'probabilities' in every prediction",
    "likelihood": "'gold_nll' and 'gold_tokens' in every prediction",
    "rank": "'rank' in every prediction",
    "judge": "a judge (--judge)",
    "coherence": "a judge of persona, context and reply (--coherence-judge)",
}


def has(answers: Answers, need: Need) -> bool:
    """Whether every turn has it, or, of a persona and a past, some turn."""
    questions, replies = answers.questions, answers.replies
    match need:
        case "gold":
            return all(question.gold is not None for question in questions)
        case "persona":
            return any(question.persona for question in questions)
        case "past":
            return any(question.own or question.past for question in questions)
        case "labels":
            return all(question.relevant is not None for question in questions)
        case "choice":
            return all(reply.selects for reply in replies)
        case "probabilities":
            return all(reply.probabilities is not None for reply in replies)
        case "likelihood":
            return all(reply.gold_nll is not None and reply.gold_tokens is not None for reply in replies)
        case "rank":
            return all(reply.rank is not None for reply in replies)
        case "judge":
            return answers.judge is not None
        case "coherence":
            return answers.coherence is not None
