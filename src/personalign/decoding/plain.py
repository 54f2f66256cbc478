"""Decoding for models that cannot run trees: transformers' generate() on left-padded prompts, one path per row."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import GenerationConfig

from personalign.data.dialogue import Dialogue
from personalign.decoding.generation import DecodingSettings, Grown
from personalign.decoding.selection import Scores, selection_targets
from personalign.models import LoadedModel, autocast
from personalign.prompts import Prompter
from personalign.trees import DialogueTree, batches_under, score


def plain_generate(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[Sequence[int]]],
    *,
    decoding: DecodingSettings,
    end_ids: Sequence[int],
    batch_size: int = 32,
) -> list[list[Grown]]:
    """Continue every prompt; results nested like `prompts`. Batches are sorted by length, longest first.

    Sampling draws from torch's generator, seeded once: replies then depend on the batch.
    """
    flat = [list(prompt) for row in prompts for prompt in row]
    single = loaded.plan.mode == "single"
    torch.manual_seed(decoding.seed)
    grown: dict[int, Grown] = {}
    longest = max((len(prompt) for prompt in flat), default=0)
    budget = 0 if single else batch_size * longest
    for indices in batches_under(flat, length=len, budget=budget):
        replies = _generate_batch(loaded, [flat[i] for i in indices], decoding=decoding, end_ids=end_ids)
        grown.update(zip(indices, replies, strict=True))
    results = iter(range(len(flat)))
    return [[grown[next(results)] for _ in row] for row in prompts]


def _generate_batch(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    *,
    decoding: DecodingSettings,
    end_ids: Sequence[int],
) -> list[Grown]:
    width = max(len(prompt) for prompt in prompts)
    ids = np.zeros((len(prompts), width), dtype=np.int64)
    mask = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1
    device = next(loaded.model.parameters()).device
    with torch.no_grad(), autocast(loaded.precision):
        output = loaded.model.generate(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            generation_config=_generation_config(loaded, decoding, end_ids),
        )
    return [_until_end(row[width:], frozenset(end_ids)) for row in output.tolist()]


def _generation_config(
    loaded: LoadedModel, decoding: DecodingSettings, end_ids: Sequence[int]
) -> GenerationConfig:
    sampling = decoding.strategy == "sample"
    return GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=sampling,
        num_beams=decoding.beams if decoding.strategy == "beam" else 1,
        length_penalty=decoding.length_penalty if decoding.strategy == "beam" else None,
        temperature=decoding.temperature if sampling else None,
        top_k=decoding.top_k if sampling else None,
        top_p=decoding.top_p if sampling else None,
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
