"""Who finds the labelled line? Every selector on the test part of a finished run, as a Markdown table.

python benchmarks/find_the_line.py runs/pal-personachat-small

`line`: share of the turns labelled with a line whose labelled line got the highest score of all lines, with a 95 %
interval by dialogue. `needed`, `all`: share of the labelled turns, and of all, on which the right line, or rightly none,
was chosen at the share of none that is labelled in the stopping part. The run must have a trained selector; its final
model is the language model.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from personalign.data.dialogue import Dialogue
from personalign.decoding.respond import SelectionScorer, selection_scores
from personalign.decoding.selection import Scores, calibrate_none, choose
from personalign.errors import PersonalignError
from personalign.evaluation.selection import compare_selections, recall_at
from personalign.evaluation.significance import estimate
from personalign.evaluation.sums import Sums
from personalign.methods.opening import open_model
from personalign.methods.parts import read_parts
from personalign.methods.recipe import Selector
from personalign.methods.selecting import labelled_share_of_none
from personalign.methods.selectors import open_scorer

BUDGET = 8192


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print_table(Path(sys.argv[1]))
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def print_table(run: Path) -> None:
    parts, model = read_parts(run / "data"), open_model(run)
    stop, test = parts["stop"], parts["test"]
    relevant = [labels for dialogue in test for labels in dialogue.relevant or ()]
    groups = [dialogue.id for dialogue in test for _ in dialogue.reply_indices()]
    share = labelled_share_of_none(stop)
    scorers: dict[str, SelectionScorer | None] = {
        f"`{kind}`": open_scorer(Selector.model_validate({"kind": kind}), run / "selector")
        for kind in ("lm", "encoder", "encoder-untold", "trained")
    }
    print(
        f"{len(relevant)} turns, {sum(map(bool, relevant))} labelled with a line; share of none {share:.3f}"
    )
    print("| selector | line | needed | all |\n|---|---|---|---|")
    lines = max(len(dialogue.persona) for dialogue in test)
    guessing = [_even(dialogue) for dialogue in test for _ in dialogue.reply_indices()]
    print(f"| guessing | {_shown(recall_at(relevant, guessing, k=1), groups)} | - | - |")
    never = compare_selections(relevant, [None] * len(relevant), lines=lines)
    print(
        f"| always none | - | {_shown(never.accuracy_needed(), groups)} | {_shown(never.accuracy(), groups)} |"
    )
    for name, scorer in scorers.items():

        def scored(dialogues: Sequence[Dialogue], scorer: SelectionScorer | None = scorer) -> list[Scores]:
            rows = selection_scores(model.loaded, model.prompter, dialogues, scorer=scorer, budget=BUDGET)
            return [item for row in rows for item in row]

        bias = calibrate_none(scored(stop), share_of_none=share)
        choices = [choose(item, none_bias=bias) for item in scored(test)]
        line = recall_at(relevant, [choice.probabilities for choice in choices], k=1)
        chosen = compare_selections(relevant, [choice.line for choice in choices], lines=lines)
        figures = (line, chosen.accuracy_needed(), chosen.accuracy())
        print(f"| {name} | " + " | ".join(_shown(item, groups) for item in figures) + " |", flush=True)


def _even(dialogue: Dialogue) -> tuple[float, ...]:
    return tuple(np.full(len(dialogue.persona) + 1, 1 / (len(dialogue.persona) + 1)).tolist())


def _shown(sums: Sums, groups: Sequence[str]) -> str:
    found = estimate([sums], groups)
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
