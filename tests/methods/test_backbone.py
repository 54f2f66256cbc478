"""The copy warm-up: its exercise, and that it is learnt."""

from typing import Any

import numpy as np
import pytest
from tests.methods.made_runs import tiny_model, tokenizer

from personalign.errors import PersonalignError
from personalign.methods.backbone import CopyWarmup, _copy_rows, copy_warmup
from personalign.models import build_backbone


def test_every_line_comes_back_in_each_copy() -> None:
    settings = CopyWarmup(lines=3, line_length=4, copies=2, gap=7, batch=5)
    ids, positions, copied = _copy_rows(settings, np.arange(10, 200), np.random.default_rng(1))
    assert ids.shape == positions.shape == copied.shape == (5, 36)
    for row, places, marks in zip(ids, positions, copied, strict=True):
        lines = sorted(map(tuple, row[:12].reshape(3, 4).tolist()))
        for copy in (1, 2):
            assert sorted(map(tuple, row[12 * copy : 12 * copy + 12].reshape(3, 4).tolist())) == lines
        # The first token of a repeated line cannot be known, the other three can.
        assert marks.tolist() == [False] * 12 + [False, True, True, True] * 6
        gaps = np.diff(places)
        assert set(np.delete(gaps, [11, 23])) == {1}
        assert all(1 <= gaps[at] <= 8 for at in (11, 23))


def test_the_warmup_ends_at_its_accuracy_or_its_last_step() -> None:
    settings = CopyWarmup(lines=1, line_length=2, copies=1, gap=0, batch=2, accuracy=0.0, max_steps=40)
    assert copy_warmup(tiny_model().model, settings, token_ids=range(4, 20), seed=1).steps == 10
    steps: list[int] = []
    never = CopyWarmup(lines=1, line_length=2, copies=1, batch=2, accuracy=1.0, max_steps=4)
    result = copy_warmup(
        tiny_model().model,
        never,
        token_ids=range(4, 20),
        seed=1,
        progress=lambda step, total, values: steps.append(step),
    )
    assert result.steps == 4
    assert steps == [1, 2, 3, 4]


def test_the_warmup_teaches_and_is_reproducible() -> None:
    settings = CopyWarmup(
        lines=2, line_length=3, copies=1, gap=0, batch=16, learning_rate=1e-2, warmup_steps=5, max_steps=60
    )
    vocabulary = range(4, min(12, len(tokenizer())))

    def accuracy(steps: int) -> float:
        model = tiny_model(shape="qwen2").model
        limited = CopyWarmup(
            **{name: getattr(settings, name) for name in settings.__slots__} | {"max_steps": steps}
        )
        return copy_warmup(model, limited, token_ids=list(vocabulary), seed=1).accuracy

    assert accuracy(60) > accuracy(10) + 0.05
    assert accuracy(10) == pytest.approx(accuracy(10), abs=0)


def test_the_warmup_keeps_within_the_models_positions() -> None:
    def model(positions: int) -> Any:
        return build_backbone(
            "gpt2",
            vocab_size=30,
            width=16,
            layers=1,
            heads=2,
            max_positions=positions,
            bos_id=0,
            eos_id=1,
            pad_id=2,
            seed=1,
        )

    settings = CopyWarmup(max_steps=3)
    seen: list[int] = []
    small = model(100)
    small.register_forward_pre_hook(
        lambda _, arguments, named: seen.append(int(named["position_ids"].max())), with_kwargs=True
    )
    assert copy_warmup(small, settings, token_ids=range(4, 20), seed=1).steps == 3
    assert 80 < max(seen) < 100
    with pytest.raises(PersonalignError, match="its rows have 75 tokens, but the model takes 74; raise"):
        copy_warmup(model(74), settings, token_ids=range(4, 20), seed=1)
