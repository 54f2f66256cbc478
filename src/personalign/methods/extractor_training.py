"""What a generative extractor learns from: rows of stacked sentences, each with its facts."""

import random
from collections.abc import Sequence

from personalign.evaluation.nli_triples import Fact
from personalign.personas.extraction import gold_triples
from personalign.personas.generative import STACKED, FactPrompter
from personalign.training.examples import Example, Path


def fact_examples(
    facts: Sequence[Fact],
    prompter: FactPrompter,
    *,
    others: Sequence[str] = (),
    stacked: int = STACKED,
    seed: int = 0,
) -> list[Example]:
    """Random stacks of sentences as prompts, their facts as targets (IDL, appendix A.2); `others` state nothing."""
    gold = gold_triples(facts) | dict.fromkeys(others, ())
    texts = sorted(gold)
    random.Random(f"{seed}/stack").shuffle(texts)
    rows = [texts[start : start + stacked] for start in range(0, len(texts), stacked)]
    return [
        Example(
            f"stack {number}",
            0,
            (Path("facts", prompter.prompt(row), prompter.target([gold[text] for text in row])),),
        )
        for number, row in enumerate(rows)
    ]
