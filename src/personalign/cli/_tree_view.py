"""The packed tree of a dialogue, drawn: what is stored once, what hangs where, and which tokens are learnt."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from personalign.cli._output import clean
from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError

SUPERVISED = "bold green"
CONTEXT = "dim"


def print_tree(dialogue: Dialogue, *, tokenizer: str | None, console: Console) -> None:
    """Draw the tree of PAL's stage 1 with the full history; green tokens are targets.

    Without labels in the dialogue the replies rest on nothing. Raises PersonalignError for a dialogue without a reply.
    """
    from personalign.methods import pal
    from personalign.prompts import Prompter, PromptSettings
    from personalign.training.examples import grow, statistics

    prompter = Prompter(_open_tokenizer(dialogue, tokenizer), PromptSettings(max_tokens=100_000))
    make = pal.fine_tuning if dialogue.relevant is None else pal.persona_aware_learning
    examples = make([dialogue], prompter, dropped=pal.Dropped())
    if not examples:
        raise PersonalignError(
            f"dialogue {dialogue.id} has no assistant turn, so nothing to learn and no tree"
        )
    trees = grow(examples, budget=1_000_000)
    tree = trees[0].tree
    supervised = np.zeros(len(tree), dtype=np.bool_)
    for branch in tree.branches:
        supervised[branch.scored] = True
    words = prompter.tokenizer.convert_ids_to_tokens(tree.tokens().tolist())
    for number, node in enumerate(tree.nodes):
        depth = _depth(tree.nodes, number)
        place = "trunk" if number == 0 else f"after {node.attach} of node {node.parent}"
        line = Text("  " * depth + f"[{number}, {place}] ", style="cyan")
        for index in range(node.start, node.start + node.length):
            line.append(_readable(words[index]) + " ", style=SUPERVISED if supervised[index] else CONTEXT)
        console.print(line, soft_wrap=True)
    sizes = statistics(trees)
    console.print(
        f"{sizes.tree_tokens} tokens as a tree, {sizes.sequence_tokens} as one sequence per target "
        f"({sizes.saving:.1f} times); {int(supervised.sum())} supervised",
        highlight=False,
        soft_wrap=True,
    )


def _depth(nodes: list[Any], number: int) -> int:
    depth = 0
    while nodes[number].parent >= 0:
        number, depth = nodes[number].parent, depth + 1
    return depth


def _readable(token: str) -> str:
    """Byte-level BPE writes a blank as Ġ and a line break as Ċ."""
    return clean(token.replace("Ġ", "␣").replace("Ċ", "⏎").replace("\n", "⏎"))


def _open_tokenizer(dialogue: Dialogue, source: str | None) -> Any:
    from personalign.models import load_tokenizer, word_tokenizer
    from personalign.prompts import structure_texts

    if source is not None:
        return load_tokenizer(source)
    texts = [*dialogue.persona, *(turn.content for turn in dialogue.messages)]
    words = sorted({word for text in texts for word in text.split()})
    return word_tokenizer(words, structure=structure_texts("en"), language="en")
