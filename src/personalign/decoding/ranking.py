"""Rank the candidate replies of many dialogues: every candidate of every turn is a branch of its dialogue's tree."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from personalign.data.dialogue import Dialogue
from personalign.decoding.respond import Selection, choose_lines, selection_scores
from personalign.decoding.selection import Choice, choose
from personalign.errors import PersonalignError
from personalign.models import LoadedModel, autocast
from personalign.prompts import UNSELECTED, Prompter
from personalign.trees import DialogueTree, batches_under, score

TOO_LONG = "turns left out, whose prompt or candidates are too long"
TRIMMED = "turns lose their oldest messages"


@dataclass(frozen=True, slots=True)
class Ranking:
    """One turn: its candidates, each once, and their summed log-probabilities in nats, end token included.

    `gold`: which candidate is the true reply; `rank`: its place by descending score, from 1, behind every equal one.
    `choice` is the line that the prompt highlights, None where nothing was selected.
    """

    dialogue: str
    turn: int
    candidates: tuple[str, ...]
    scores: tuple[float, ...]
    gold: int
    choice: Choice | None

    @property
    def rank(self) -> int:
        return sum(score >= self.scores[self.gold] for score in self.scores)

    @property
    def best(self) -> str:
        return self.candidates[int(np.argmax(self.scores))]


def rank_candidates(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Sequence[Dialogue],
    *,
    selection: Selection,
    budget: int = 8192,
    progress: Callable[[int, int], None] | None = None,
    dropped: Counter[str] | None = None,
) -> list[Ranking]:
    """Score the candidates of every turn that has some, each under the prompt of the line that is selected for the turn.

    A dialogue's persona and history are computed once for all its turns and candidates. `budget`: tokens of one forward
    pass; larger trees are split. Results are in the order of dialogues and turns. Turns whose prompt or candidates are
    too long are left out; `dropped` counts these, and those that lose their oldest messages.

    Raises PersonalignError where no turn has candidates, and where none is left.
    """
    having = [_turns_with_candidates(dialogue) for dialogue in dialogues]
    if not any(having):
        raise PersonalignError("no turn of these dialogues has candidates; add the field 'candidates'")
    counts = Counter[str]() if dropped is None else dropped
    turns = [
        [turn for turn in at if _has_room(prompter, dialogue, turn, counts)]
        for dialogue, at in zip(dialogues, having, strict=True)
    ]
    choices = _choices(loaded, prompter, dialogues, turns, selection=selection, budget=budget)
    kept = [
        [
            item
            for turn, choice in zip(at, chosen, strict=True)
            if (item := _fitting(loaded, prompter, dialogue, turn, choice, counts)) is not None
        ]
        for dialogue, at, chosen in zip(dialogues, turns, choices, strict=True)
    ]
    if not any(kept):
        raise PersonalignError(
            f"every turn is too long for this model, with prompts of {prompter.settings.budget} tokens; shorten "
            "personas, messages or candidates"
        )
    ranked = [(dialogue, found) for dialogue, found in zip(dialogues, kept, strict=True) if found]
    trees = [_tree(found) for _, found in ranked]
    scores = _branch_scores(loaded, trees, budget=budget, progress=progress)
    rankings = []
    for (dialogue, found), values in zip(ranked, scores, strict=True):
        left = iter(values)
        # Branches hang on the tree with the longest history first.
        of_turn = {item.turn: tuple(next(left) for _ in item.targets) for item in reversed(found)}
        for item in found:
            candidates = _candidates(dialogue, item.turn)
            gold = candidates.index(dialogue.messages[item.turn].content)
            rankings.append(
                Ranking(dialogue.id, item.turn, candidates, of_turn[item.turn], gold, item.choice)
            )
    return rankings


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn that is ranked: its prompt under the line that was chosen, and a target for each candidate, as token ids."""

    turn: int
    choice: Choice | None
    prompt: list[int]
    targets: list[list[int]]


def _has_room(prompter: Prompter, dialogue: Dialogue, turn: int, dropped: Counter[str]) -> bool:
    window = prompter.window(dialogue, turn)
    if not window.fits:
        dropped[TOO_LONG] += 1
    elif window.trimmed:
        dropped[TRIMMED] += 1
    return window.fits


def _fitting(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogue: Dialogue,
    turn: int,
    choice: Choice | None,
    dropped: Counter[str],
) -> _Turn | None:
    prompt = prompter.reply(dialogue, turn, line=UNSELECTED if choice is None else choice.line)
    targets = [prompter.reply_target(text) for text in _candidates(dialogue, turn)]
    longest = loaded.plan.longest
    if longest is not None and len(prompt) + max(map(len, targets)) > longest:
        dropped[TOO_LONG] += 1
        return None
    return _Turn(turn, choice, prompt, targets)


def _turns_with_candidates(dialogue: Dialogue) -> list[int]:
    return [turn for turn in dialogue.reply_indices() if _candidates(dialogue, turn)]


def _candidates(dialogue: Dialogue, turn: int) -> tuple[str, ...]:
    """Without what stands there twice: a candidate cannot be told from its copy."""
    if dialogue.candidates is None:
        return ()
    return tuple(dict.fromkeys(dialogue.candidates[dialogue.reply_indices().index(turn)]))


def _choices(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Sequence[Dialogue],
    turns: Sequence[Sequence[int]],
    *,
    selection: Selection,
    budget: int,
) -> list[list[Choice | None]]:
    if selection.strategy != "predicted":
        return choose_lines(loaded, None, prompter, dialogues, turns, selection=selection)
    of_dialogue = {id(dialogue): at for dialogue, at in zip(dialogues, turns, strict=True)}
    scores = selection_scores(
        loaded,
        prompter,
        dialogues,
        scorer=selection.scorer,
        turns=lambda dialogue: of_dialogue[id(dialogue)],
        budget=budget,
    )
    return [[choose(item, none_bias=selection.none_bias) for item in row] for row in scores]


def _tree(turns: Sequence[_Turn]) -> DialogueTree:
    """Longest histories first: what the later turns' prompts share is then one unbroken trunk."""
    tree = DialogueTree()
    for item in reversed(turns):
        for target in item.targets:
            tree.add(item.prompt, target)
    return tree


def _branch_scores(
    loaded: LoadedModel,
    trees: Sequence[DialogueTree],
    *,
    budget: int,
    progress: Callable[[int, int], None] | None,
) -> list[list[float]]:
    scores: dict[int, list[float]] = {}
    loaded.model.eval()
    with torch.no_grad(), autocast(loaded.precision):
        for indices in batches_under(trees, length=len, budget=budget):
            held = [trees[index] for index in indices]
            found = score(loaded.model, held, plan=loaded.plan, budget=budget)
            for index, branches in zip(indices, found, strict=True):
                scores[index] = [float(log_probs.sum()) for log_probs in branches]
            if progress is not None:
                progress(len(scores), len(trees))
    return [scores[index] for index in range(len(trees))]
