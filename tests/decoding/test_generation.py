"""Forests of leaves grow into the replies that transformers writes to each prompt by itself."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tests.decoding.small_models import (
    PACKED_KINDS,
    SLIDING_KINDS,
    loaded_model,
    made_dialogues,
    prompter_of,
    reply_prompts,
    transformers_reply,
)
from torch import Tensor

from personalign.decoding.forest import Forest, Leaf
from personalign.decoding.generation import DecodingSettings, Grown, generate, sampler
from personalign.errors import PersonalignError
from personalign.models import LoadedModel

LIMIT = 24


def planted(loaded: LoadedModel, prompts: Sequence[Sequence[Sequence[int]]]) -> tuple[Forest, list[Leaf]]:
    """One row per dialogue, its prompts computed up to their last tokens, a leaf per prompt."""
    forest = Forest(loaded.model, rows=len(prompts), plan=loaded.plan)
    for row, row_prompts in enumerate(prompts):
        for prompt in sorted(row_prompts, key=len, reverse=True):
            forest.insert(row, prompt[:-1])
    forest.compute()
    leaves = [forest.leaf(row, prompt) for row, row_prompts in enumerate(prompts) for prompt in row_prompts]
    return forest, leaves


def grown_replies(
    loaded: LoadedModel, prompts: Sequence[Sequence[Sequence[int]]], settings: DecodingSettings
) -> list[tuple[list[int], bool]]:
    forest, leaves = planted(loaded, prompts)
    ends = (loaded.tokenizer.eos_token_id,)
    grown = generate(forest, leaves, settings=settings, end_ids=ends, consume=True)
    return [(item.tokens, item.ended) for item in grown]


@pytest.mark.parametrize("history", [None, 2])
@pytest.mark.parametrize("tokenizer", ["words", "bpe"])
@pytest.mark.parametrize("kind", PACKED_KINDS)
def test_greedy_replies_are_those_of_transformers(kind: str, tokenizer: str, history: int | None) -> None:
    loaded = loaded_model(kind, tokenizer=tokenizer)
    prompts = reply_prompts(prompter_of(loaded, history=history), made_dialogues())
    found = grown_replies(loaded, prompts, DecodingSettings(max_new_tokens=LIMIT))
    ends = (loaded.tokenizer.eos_token_id,)
    expected = [
        transformers_reply(loaded, prompt, end_ids=ends, limit=LIMIT) for row in prompts for prompt in row
    ]
    assert found == expected
    assert len({len(tokens) for tokens, _ in expected}) > 2, "the replies should end at different lengths"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", SLIDING_KINDS)
def test_sliding_windows_reach_as_far_as_in_transformers(kind: str, attention: str) -> None:
    loaded = loaded_model(kind, attention=attention)
    assert loaded.plan.window is not None
    prompts = reply_prompts(prompter_of(loaded), made_dialogues())
    assert max(len(prompt) for row in prompts for prompt in row) > 2 * loaded.plan.window
    found = grown_replies(loaded, prompts, DecodingSettings(max_new_tokens=LIMIT))
    ends = (loaded.tokenizer.eos_token_id,)
    assert found == [
        transformers_reply(loaded, prompt, end_ids=ends, limit=LIMIT) for row in prompts for prompt in row
    ]


@pytest.mark.parametrize(("beams", "penalty"), [(3, 1.0), (2, 0.0), (4, 2.0), (1, 1.0)])
@pytest.mark.parametrize("kind", PACKED_KINDS)
def test_beams_find_what_transformers_finds(kind: str, beams: int, penalty: float) -> None:
    ends: tuple[int, ...]
    for seed in (3, 4):
        loaded = loaded_model(kind, seed=seed)
        ends = (loaded.tokenizer.eos_token_id,)
        prompts = reply_prompts(prompter_of(loaded), made_dialogues())
        settings = DecodingSettings(strategy="beam", beams=beams, length_penalty=penalty, max_new_tokens=12)
        expected = [
            transformers_reply(
                loaded,
                prompt,
                end_ids=ends,
                limit=12,
                num_beams=beams,
                length_penalty=penalty,
                early_stopping=False,
            )
            for row in prompts
            for prompt in row
        ]
        assert grown_replies(loaded, prompts, settings) == expected


def test_several_end_tokens_end_beams_as_in_transformers() -> None:
    loaded = loaded_model("llama")
    ends = (loaded.tokenizer.eos_token_id, 7, 9)
    prompts = reply_prompts(prompter_of(loaded), made_dialogues())
    forest, leaves = planted(loaded, prompts)
    settings = DecodingSettings(strategy="beam", beams=3, max_new_tokens=12)
    found = [(item.tokens, item.ended) for item in generate(forest, leaves, settings=settings, end_ids=ends)]
    assert found == [
        transformers_reply(
            loaded, prompt, end_ids=ends, limit=12, num_beams=3, length_penalty=1.0, early_stopping=False
        )
        for row in prompts
        for prompt in row
    ]


def sampled(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], keys: Sequence[str], settings: DecodingSettings
) -> list[Grown]:
    forest, leaves = planted(loaded, [prompts])
    ends = (loaded.tokenizer.eos_token_id,)
    return generate(forest, leaves, settings=settings, end_ids=ends, keys=keys)


def test_a_sampled_reply_depends_on_seed_and_key_alone() -> None:
    loaded = loaded_model("llama")
    prompts = reply_prompts(prompter_of(loaded), made_dialogues())[0]
    keys = [f"long/{number}" for number in range(len(prompts))]
    settings = DecodingSettings(strategy="sample", temperature=2.0, max_new_tokens=12, seed=5)
    together = sampled(loaded, prompts, keys, settings)
    alone = [sampled(loaded, [prompt], [key], settings)[0] for prompt, key in zip(prompts, keys, strict=True)]
    backwards = sampled(loaded, prompts[::-1], keys[::-1], settings)[::-1]
    assert together == alone == backwards
    other_seed = DecodingSettings(strategy="sample", temperature=2.0, max_new_tokens=12, seed=6)
    assert sampled(loaded, prompts, keys, other_seed) != together
    assert sampled(loaded, prompts, [f"other/{key}" for key in keys], settings) != together


DRAWS = 4000


def first_tokens(settings: DecodingSettings) -> tuple[Counter[int], torch.Tensor]:
    """The first token of many draws after one prompt, and the logits that they are drawn from."""
    loaded = loaded_model("llama")
    prompt = reply_prompts(prompter_of(loaded), made_dialogues())[0][0]
    with torch.no_grad():
        logits = loaded.model(torch.tensor([prompt])).logits[0, -1] / settings.temperature
    forest, [leaf] = planted(loaded, [[prompt]])
    leaves = [leaf, *(leaf.copy(token=leaf.token) for _ in range(DRAWS - 1))]
    grown = generate(
        forest, leaves, settings=settings, end_ids=(-1,), keys=[str(number) for number in range(DRAWS)]
    )
    return Counter(item.tokens[0] for item in grown), logits


def assert_drawn_from(drawn: Counter[int], expected: torch.Tensor) -> None:
    """Within 4.5 standard deviations at every token, and nothing outside the support."""
    for token, probability in enumerate(expected.tolist()):
        deviation = np.sqrt(probability * (1 - probability) / DRAWS)
        assert abs(drawn[token] / DRAWS - probability) <= 4.5 * deviation + 1e-12


def test_sampling_draws_from_the_softmax() -> None:
    drawn, logits = first_tokens(DecodingSettings(strategy="sample", temperature=2.0, max_new_tokens=1))
    assert_drawn_from(drawn, logits.softmax(dim=-1))


def test_top_k_keeps_the_k_best() -> None:
    settings = DecodingSettings(strategy="sample", temperature=3.0, top_k=4, max_new_tokens=1)
    drawn, logits = first_tokens(settings)
    best = logits.topk(4).indices
    expected = torch.zeros_like(logits)
    expected[best] = logits[best].softmax(dim=-1)
    assert_drawn_from(drawn, expected)


def test_top_p_keeps_the_fewest_tokens_that_reach_p() -> None:
    settings = DecodingSettings(strategy="sample", temperature=3.0, top_p=0.6, max_new_tokens=1)
    drawn, logits = first_tokens(settings)
    probabilities = logits.softmax(dim=-1)
    expected, total = torch.zeros_like(probabilities), 0.0
    for token in probabilities.argsort(descending=True).tolist():
        if total < 0.6:
            expected[token] = probabilities[token]
            total += float(probabilities[token])
    assert_drawn_from(drawn, expected / expected.sum())


class Single(Tensor):
    """A tensor of a device without double precision, such as Apple's MPS."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if function is Tensor.double:
            raise TypeError("this device has no float64")
        result = super().__torch_function__(function, types, arguments, named or {})
        return result.as_subclass(Tensor) if function is Tensor.cpu else result


def test_sampling_needs_no_double_precision_of_the_device() -> None:
    logits = torch.randn(3, 9)
    settings = DecodingSettings(strategy="sample", temperature=2.0, top_k=5, top_p=0.9)
    keys = ["a", "b", "c"]
    drawn = sampler(settings, keys)(logits.as_subclass(Single), [0, 1, 2])
    assert drawn == sampler(settings, keys)(logits, [0, 1, 2])


def test_tokens_are_streamed_as_they_come() -> None:
    loaded = loaded_model("llama")
    prompts = reply_prompts(prompter_of(loaded), made_dialogues())
    forest, leaves = planted(loaded, prompts)
    streamed: list[list[int]] = [[] for _ in leaves]
    grown = generate(
        forest,
        leaves,
        settings=DecodingSettings(max_new_tokens=LIMIT),
        end_ids=(loaded.tokenizer.eos_token_id,),
        stream=lambda leaf, token: streamed[leaf].append(token),
    )
    assert streamed == [item.tokens for item in grown]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"strategy": "best"}, "greedy, sample, beam"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"beams": 0}, "beams"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object], complaint: str) -> None:
    with pytest.raises(PersonalignError, match=complaint):
        DecodingSettings(**wrong)  # type: ignore[arg-type]
