"""Select, then generate (PAL, section 2.3): every reply of many dialogues, teacher-forced, over shared caches."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from personalign.data.dialogue import Dialogue
from personalign.decoding.forest import Forest
from personalign.decoding.generation import DecodingSettings, Grown, generate
from personalign.decoding.plain import plain_generate, plain_selection_scores
from personalign.decoding.selection import (
    Choice,
    Scores,
    Strategy,
    choose,
    oracle_choice,
    random_choice,
    selection_targets,
)
from personalign.decoding.served import Reply, ServedModel
from personalign.models import LoadedModel, autocast
from personalign.prompts import UNSELECTED, Prompter
from personalign.trees import DialogueTree

Turns = Sequence[int]
Prompts = list[list[int]]


class SelectionScorer(Protocol):
    """Scores lines and none for given turns: one array [lines + 1] per turn, "none" last."""

    def __call__(self, dialogue: Dialogue, turns: Turns) -> list[Scores]: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """How the line to highlight is found.

    `scorer` None is the LM itself, as in the paper; else an encoder. `none_bias` is added to the score of "none";
    `share_of_none` is the rate at which the random strategy draws none.
    """

    strategy: Strategy = "predicted"
    scorer: SelectionScorer | None = None
    none_bias: float = 0.0
    share_of_none: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """One reply. `turn` is the message index that it answers for; `choice` is None where nothing was selected."""

    dialogue: str
    turn: int
    text: str
    choice: Choice | None
    ended: bool
    tokens: int


def respond(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Sequence[Dialogue],
    *,
    selection: Selection,
    decoding: DecodingSettings,
    turns: Callable[[Dialogue], Turns] = Dialogue.reply_indices,
    budget: int = 8192,
    progress: Callable[[int, int], None] | None = None,
    served: ServedModel | None = None,
) -> list[Response]:
    """Answer the given turns of each dialogue from its true history; results in the order of dialogues and turns.

    `turns` gives the message indices to answer, all assistant turns by default. A dialogue's persona and history are
    computed once for all its turns. With `served` a server continues the prompts, and `loaded` selects alone.
    """
    answered: dict[int, list[Response]] = {}
    wanted = [list(turns(dialogue)) for dialogue in dialogues]
    total, finished = sum(map(len, wanted)), 0
    for batch in _batches(prompter, dialogues, wanted, budget=budget):
        rows = [dialogues[index] for index in batch]
        row_turns = [wanted[index] for index in batch]
        choices, texts = _answer(
            loaded, prompter, rows, row_turns, selection=selection, decoding=decoding, served=served
        )
        for index, dialogue, at, chosen, replies in zip(batch, rows, row_turns, choices, texts, strict=True):
            answered[index] = [
                Response(dialogue.id, turn, reply.text, choice, reply.ended, reply.tokens)
                for turn, choice, reply in zip(at, chosen, replies, strict=True)
            ]
            finished += len(at)
        if progress is not None:
            progress(finished, total)
    return [response for index in range(len(dialogues)) for response in answered.get(index, [])]


def selection_scores(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Sequence[Dialogue],
    *,
    scorer: SelectionScorer | None = None,
    turns: Callable[[Dialogue], Turns] = Dialogue.reply_indices,
    budget: int = 8192,
) -> list[list[Scores]]:
    """Scores of lines and none for every wanted turn of each dialogue.

    The LM's score of a choice is the summed log-probability of its whole target with the terminator, each choice a
    branch of the dialogue's tree, so that it cannot name a line that is not there.
    """
    wanted = [list(turns(dialogue)) for dialogue in dialogues]
    if scorer is not None:
        return [scorer(dialogue, at) for dialogue, at in zip(dialogues, wanted, strict=True)]
    scored: dict[int, list[Scores]] = {}
    for batch in _batches(prompter, dialogues, wanted, budget=budget):
        rows, row_turns = [dialogues[index] for index in batch], [wanted[index] for index in batch]
        if loaded.plan.mode == "packed":
            forest = Forest(loaded.model, rows=len(rows), plan=loaded.plan)
            with _inference(loaded):
                result = _score_choices(forest, prompter, rows, row_turns)
        else:
            result = plain_selection_scores(loaded, prompter, rows, row_turns)
        scored.update(zip(batch, result, strict=True))
    return [scored.get(index, []) for index in range(len(dialogues))]


def without_persona(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Sequence[Dialogue],
    *,
    decoding: DecodingSettings,
    budget: int = 8192,
    progress: Callable[[int, int], None] | None = None,
    served: ServedModel | None = None,
) -> list[list[Reply]]:
    """The model's replies under the no-persona prompt, per dialogue and assistant turn (PAL, section 2.2.1)."""
    wanted = [list(dialogue.reply_indices()) for dialogue in dialogues]
    found: dict[int, list[Reply]] = {}
    finished, total = 0, sum(map(len, wanted))
    for batch in _batches(prompter, dialogues, wanted, budget=budget):
        prompts = [[prompter.without_persona(dialogues[i], turn) for turn in wanted[i]] for i in batch]
        names = _names(dialogues, wanted, batch)
        continued = _continue(loaded, prompter, prompts, decoding=decoding, names=names, served=served)
        for index, replies in zip(batch, continued, strict=True):
            found[index] = replies
            finished += len(replies)
        if progress is not None:
            progress(finished, total)
    return [found.get(index, []) for index in range(len(dialogues))]


def _answer(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Sequence[Dialogue],
    turns: Sequence[Turns],
    *,
    selection: Selection,
    decoding: DecodingSettings,
    served: ServedModel | None,
) -> tuple[list[list[Choice | None]], list[list[Reply]]]:
    packed = loaded.plan.mode == "packed"
    forest = Forest(loaded.model, rows=len(dialogues), plan=loaded.plan) if packed else None
    with _inference(loaded):
        choices = choose_lines(loaded, forest, prompter, dialogues, turns, selection=selection)
        prompts = [
            [
                list(prompter.reply(dialogue, turn, line=UNSELECTED if choice is None else choice.line))
                for turn, choice in zip(at, chosen, strict=True)
            ]
            for dialogue, at, chosen in zip(dialogues, turns, choices, strict=True)
        ]
        names = _names(dialogues, turns, range(len(dialogues)))
        texts = _continue(
            loaded, prompter, prompts, decoding=decoding, names=names, forest=forest, served=served
        )
    return choices, texts


def choose_lines(
    loaded: LoadedModel,
    forest: Forest | None,
    prompter: Prompter,
    dialogues: Sequence[Dialogue],
    turns: Sequence[Turns],
    *,
    selection: Selection,
) -> list[list[Choice | None]]:
    pairs = list(zip(dialogues, turns, strict=True))
    if selection.strategy == "unselected":
        return [[None for _ in at] for at in turns]
    if selection.strategy == "oracle":
        return [[oracle_choice(dialogue, turn) for turn in at] for dialogue, at in pairs]
    if selection.strategy == "random":
        return [
            [
                random_choice(
                    len(dialogue.persona),
                    share_of_none=selection.share_of_none,
                    generator=np.random.default_rng(
                        (selection.seed, zlib.crc32(f"{dialogue.id}/{turn}".encode()))
                    ),
                )
                for turn in at
            ]
            for dialogue, at in pairs
        ]
    if selection.scorer is not None:
        scores = [selection.scorer(dialogue, at) for dialogue, at in pairs]
    elif forest is not None:
        scores = _score_choices(forest, prompter, dialogues, turns)
    else:
        scores = plain_selection_scores(loaded, prompter, dialogues, turns)
    return [[choose(item, none_bias=selection.none_bias) for item in row] for row in scores]


def _score_choices(
    forest: Forest, prompter: Prompter, dialogues: Sequence[Dialogue], turns: Sequence[Turns]
) -> list[list[Scores]]:
    """Every choice of every turn as a branch of the row's tree, in one pass; their keys and values stay cached."""
    wanted: list[list[tuple[int, int]]] = []
    lengths: list[list[list[int]]] = []
    for row, (dialogue, at) in enumerate(zip(dialogues, turns, strict=True)):
        targets = selection_targets(prompter, dialogue)
        scored: dict[int, list[tuple[int, int]]] = {}
        # The longest history first: the others then lie along its trunk.
        for turn in sorted(at, reverse=True):
            prompt = prompter.select(dialogue, turn)
            scored[turn] = []
            for target in targets:
                # The last token of a target is scored, but computed only if the target is chosen.
                path = forest.insert(row, [*prompt, *target[:-1]])[len(prompt) - 1 :]
                scored[turn] += zip(path.tolist(), target, strict=True)
        wanted.append([pair for turn in at for pair in scored[turn]])
        lengths.append([[len(target) for target in targets] for _ in at])
    log_probs = forest.compute(wanted)
    result: list[list[Scores]] = []
    for values, per_turn in zip(log_probs, lengths, strict=True):
        parts = iter(torch.split(values, [length for turn in per_turn for length in turn]))
        result.append([np.array([float(next(parts).sum()) for _ in turn]) for turn in per_turn])
    return result


def _continue(
    loaded: LoadedModel,
    prompter: Prompter,
    prompts: Sequence[Prompts],
    *,
    decoding: DecodingSettings,
    names: Sequence[Sequence[str]],
    forest: Forest | None = None,
    served: ServedModel | None = None,
) -> list[list[Reply]]:
    """Continue the prompts of each row; `forest` holds what has been computed of them."""
    if served is not None:
        flat = [prompt for row in prompts for prompt in row]
        texts = iter(served.continue_(flat, [name for row in names for name in row]))
        return [[next(texts) for _ in row] for row in prompts]
    grown = _grow(loaded, prompter, prompts, decoding=decoding, names=names, forest=forest)
    return [
        [Reply(prompter.decode_reply(item.tokens), item.ended, len(item.tokens)) for item in row]
        for row in grown
    ]


def _grow(
    loaded: LoadedModel,
    prompter: Prompter,
    prompts: Sequence[Prompts],
    *,
    decoding: DecodingSettings,
    names: Sequence[Sequence[str]],
    forest: Forest | None,
) -> list[list[Grown]]:
    keys = [name for row in names for name in row]
    if loaded.plan.mode != "packed":
        return plain_generate(loaded, prompts, decoding=decoding, end_ids=prompter.end_ids, keys=keys)
    with _inference(loaded):
        forest = forest or Forest(loaded.model, rows=len(prompts), plan=loaded.plan)
        for row, row_prompts in enumerate(prompts):
            for prompt in sorted(row_prompts, key=len, reverse=True):
                forest.insert(row, prompt[:-1])
        forest.compute()
        leaves = [
            forest.leaf(row, prompt) for row, row_prompts in enumerate(prompts) for prompt in row_prompts
        ]
        flat = iter(
            generate(forest, leaves, settings=decoding, end_ids=prompter.end_ids, keys=keys, consume=True)
        )
    return [[next(flat) for _ in row_prompts] for row_prompts in prompts]


def _batches(
    prompter: Prompter, dialogues: Sequence[Dialogue], turns: Sequence[Turns], *, budget: int
) -> Iterator[list[int]]:
    """Dialogues of like size together, longest first, under a budget of padded tree tokens."""
    sizes = [_tree_size(prompter, dialogue, at) for dialogue, at in zip(dialogues, turns, strict=True)]
    order = sorted(
        (index for index in range(len(dialogues)) if turns[index]), key=lambda index: -sizes[index]
    )
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * sizes[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _tree_size(prompter: Prompter, dialogue: Dialogue, turns: Turns) -> int:
    """Tokens of the trunk and, roughly, of every turn's branch."""
    if not turns:
        return 0
    tree = DialogueTree()
    for turn in sorted(turns, reverse=True):
        tree.insert(list(prompter.reply(dialogue, turn, line=UNSELECTED)))
    choices = sum(len(target) for target in selection_targets(prompter, dialogue))
    return len(tree) + len(turns) * choices


def _names(dialogues: Sequence[Dialogue], turns: Sequence[Turns], batch: Sequence[int]) -> list[list[str]]:
    return [[f"{dialogues[index].id}/{turn}" for turn in turns[index]] for index in batch]


def _inference(loaded: LoadedModel) -> AbstractContextManager[object]:
    loaded.model.eval()
    return autocast(loaded.precision)
