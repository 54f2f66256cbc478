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
from personalign.trees.splitting import split

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
    fitting = [
        [
            (turn, choice)
            for turn, choice in zip(at, chosen, strict=True)
            if _fits(loaded, prompter, dialogue, turn, choice, counts)
        ]
        for dialogue, at, chosen in zip(dialogues, turns, choices, strict=True)
    ]
    if not any(fitting):
        raise PersonalignError(
            f"every turn is too long for this model, with prompts of {prompter.settings.budget} tokens; shorten "
            "personas, messages or candidates"
        )
    turns = [[turn for turn, _ in kept] for kept in fitting]
    choices = [[choice for _, choice in kept] for kept in fitting]
    parts: list[tuple[int, DialogueTree]] = []
    for number, (dialogue, at, chosen) in enumerate(zip(dialogues, turns, choices, strict=True)):
        if at:
            tree = _tree(prompter, dialogue, at, chosen)
            parts += [(number, part) for part in split(tree, budget=budget)]
    scores = _branch_scores(loaded, [part for _, part in parts], budget=budget, progress=progress)
    by_dialogue: dict[int, list[float]] = {}
    for (number, _), values in zip(parts, scores, strict=True):
        by_dialogue.setdefault(number, []).extend(values)
    rankings = []
    for number, (dialogue, at, chosen) in enumerate(zip(dialogues, turns, choices, strict=True)):
        left = iter(by_dialogue.get(number, []))
        # Branches hang on the tree with the longest history first.
        found = {turn: [next(left) for _ in _candidates(dialogue, turn)] for turn in reversed(at)}
        for turn, choice in zip(at, chosen, strict=True):
            candidates = _candidates(dialogue, turn)
            gold = candidates.index(dialogue.messages[turn].content)
            rankings.append(Ranking(dialogue.id, turn, candidates, tuple(found[turn]), gold, choice))
    return rankings


def _has_room(prompter: Prompter, dialogue: Dialogue, turn: int, dropped: Counter[str]) -> bool:
    window = prompter.window(dialogue, turn)
    if not window.fits:
        dropped[TOO_LONG] += 1
    elif window.trimmed:
        dropped[TRIMMED] += 1
    return window.fits


def _fits(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogue: Dialogue,
    turn: int,
    choice: Choice | None,
    dropped: Counter[str],
) -> bool:
    if loaded.plan.longest is None:
        return True
    prompt = prompter.reply(dialogue, turn, line=UNSELECTED if choice is None else choice.line)
    room = loaded.plan.longest - len(prompt)
    fits = all(len(prompter.reply_target(text)) <= room for text in _candidates(dialogue, turn))
    if not fits:
        dropped[TOO_LONG] += 1
    return fits


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


def _tree(
    prompter: Prompter, dialogue: Dialogue, turns: Sequence[int], choices: Sequence[Choice | None]
) -> DialogueTree:
    """Longest histories first: what the later turns' prompts share is then one unbroken trunk."""
    tree = DialogueTree()
    for turn, choice in reversed(list(zip(turns, choices, strict=True))):
        prompt = prompter.reply(dialogue, turn, line=UNSELECTED if choice is None else choice.line)
        for candidate in _candidates(dialogue, turn):
            tree.add(prompt, prompter.reply_target(candidate))
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
