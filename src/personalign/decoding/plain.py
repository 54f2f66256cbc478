"""Decoding for models that cannot run trees: transformers' generate(), one path per row."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList

from personalign.data.dialogue import Dialogue
from personalign.decoding.forest import require_length
from personalign.decoding.generation import DecodingSettings, Grown, sampler
from personalign.decoding.selection import Scores, selection_targets
from personalign.models import LoadedModel, autocast
from personalign.prompts import Prompter
from personalign.trees import DialogueTree, score


def plain_generate(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Sequence[int]]],
    *,
    decoding: DecodingSettings,
    end_ids: Sequence[int],
    keys: Sequence[str] | None = None,
    batch_size: int = 32,
) -> list[list[Grown]]:
    """Continue every prompt; results nested like `prompts`.

    `keys` name the prompts for sampling, row by row, as in `generate`. Only prompts of one length share a batch:
    padding would reach the state of some of these models.
    """
    flat = [list(prompt) for row in prompts for prompt in row]
    names = keys or [str(index) for index in range(len(flat))]
    size = 1 if loaded.plan.mode == "single" else batch_size
    same_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(flat):
        same_length.setdefault(len(prompt), []).append(index)
    grown: dict[int, Grown] = {}
    for indices in same_length.values():
        for first in range(0, len(indices), size):
            batch = indices[first : first + size]
            replies = _generate_batch(
                loaded,
                [flat[index] for index in batch],
                decoding=decoding,
                end_ids=end_ids,
                keys=[names[index] for index in batch],
            )
            grown.update(zip(batch, replies, strict=True))
    results = iter(range(len(flat)))
    return [[grown[next(results)] for _ in row] for row in prompts]


def _generate_batch(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    *,
    decoding: DecodingSettings,
    end_ids: Sequence[int],
    keys: Sequence[str],
) -> list[Grown]:
    require_length(loaded.plan, len(prompts[0]) + decoding.max_new_tokens)
    ids = torch.tensor(prompts, device=next(loaded.model.parameters()).device)
    drawing = LogitsProcessorList([_drawn(decoding, keys)] if decoding.strategy == "sample" else [])
    with torch.no_grad(), autocast(loaded.precision):
        output = loaded.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            generation_config=_generation_config(loaded, decoding, end_ids),
            logits_processor=drawing,
        )
    return [_until_end(row[len(prompts[0]) :], frozenset(end_ids)) for row in output.tolist()]


def _drawn(decoding: DecodingSettings, keys: Sequence[str]) -> Callable[[Tensor, Tensor], Tensor]:
    """Leaves, of each row's logits, only those of the token that was drawn, so that greedy search takes it."""
    draw = sampler(decoding, keys)

    def only_drawn(_: Tensor, logits: Tensor) -> Tensor:
        tokens = torch.tensor(draw(logits, range(len(keys))), device=logits.device)
        return torch.full_like(logits, -torch.inf).scatter(1, tokens[:, None], 0.0)

    return only_drawn


def _generation_config(
    loaded: LoadedModel, decoding: DecodingSettings, end_ids: Sequence[int]
) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        num_beams=decoding.beams if decoding.strategy == "beam" else 1,
        length_penalty=decoding.length_penalty if decoding.strategy == "beam" else None,
        eos_token_id=list(end_ids),
        pad_token_id=loaded.tokenizer.pad_token_id,
    )


def _until_end(tokens: Sequence[int], end_ids: frozenset[int]) -> Grown:
    for place, token in enumerate(tokens):
        if token in end_ids:
            return Grown(list(tokens[:place]), ended=True)
    return Grown(list(tokens), ended=False)


def plain_selection_scores(
    loaded: LoadedModel, prompter: Prompter, dialogues: Sequence[Dialogue], turns: Sequence[Sequence[int]]
) -> list[list[Scores]]:
    """Summed log-probabilities of every choice of every turn, through the scoring primitive."""
    trees: list[DialogueTree] = []
    for dialogue, at in zip(dialogues, turns, strict=True):
        targets = selection_targets(prompter, dialogue)
        for turn in at:
            tree = DialogueTree()
            for target in targets:
                tree.add(prompter.select(dialogue, turn), target)
            trees.append(tree)
    loaded.model.eval()
    with autocast(loaded.precision):
        scored = iter(score(loaded.model, trees, plan=loaded.plan))
    return [[np.array([float(branch.sum()) for branch in next(scored)]) for _ in at] for at in turns]
