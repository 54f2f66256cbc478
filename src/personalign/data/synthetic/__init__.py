"""The synthetic corpus: small, seeded, English or Chinese, with the truth about every reply."""

from personalign.data.synthetic.corpus import SPLITS, Corpus, Split, generate, write_corpus
from personalign.data.synthetic.grammar import tokens, vocabulary
from personalign.data.synthetic.oracle import NliPair, SyntheticOracle, nli_pairs, stated
from personalign.data.synthetic.swaps import (
    foreign_values,
    shuffle_personas,
    swap_personas,
    with_made_up_values,
)

__all__ = [
    "SPLITS",
    "Corpus",
    "NliPair",
    "Split",
    "SyntheticOracle",
    "foreign_values",
    "generate",
    "nli_pairs",
    "shuffle_personas",
    "stated",
    "swap_personas",
    "tokens",
    "vocabulary",
    "with_made_up_values",
    "write_corpus",
]
