"""DPOC on trees against three sequences: one step's loss and gradient, the same weights and token ids.

Each example is the last reply of session five of a pair of Multi-Session Chat, after the four sessions before it;
criterion and rejected reply are what the person and the partner said elsewhere, which for speed is as good as any. The
peer runs the three sequences as one batch, padded on the right and causal, with logits of the replies alone. The model is
a Llama of 768 by 12 with random weights; the reference's log-probabilities are given to both sides.
Data: `msc_valid_sessions` and `msc_valid_persona_extraction` (for session one) in the folder PERSONALIGN_DATA.

The last line is a JSON object; the exit code is 1 where the ratio misses its target or losses or gradients differ, 2
where it could not run.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from _data import VOCABULARY
from _models import build_model
from _report import Row
from personalign.cli._output import emit_json, quieten
from personalign.data.dialogue import Dialogue, Role, Turn
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError
from personalign.methods.idl import Aligned, alignment_triples, remember
from personalign.methods.pal import Dropped, with_reference
from personalign.methods.parts import DATA_FOLDER
from personalign.models import LoadedModel, prepare, train_bpe
from personalign.prompts import Prompter, PromptSettings
from personalign.training.examples import Example, GrownTree, grow
from personalign.training.objectives import dpoc
from personalign.training.step import StageSettings, step_loss

LAST, FIRST = "msc_valid_sessions", "msc_valid_persona_extraction"
SIZE = "llama-124M"
TARGET = 2.5
TOLERANCE = 1e-4
BETA, PENALTY = 0.1, 2.0
LONGEST = 4096


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=4, help="pairs of speakers, of 500 (default: 4)")
    parser.add_argument("--rounds", type=int, default=2, help="of either side; the fastest counts")
    options = parser.parse_args()
    quieten()
    try:
        row = measured(_people()[: options.pairs], rounds=options.rounds)
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rates = f"ours {row.ours:.0f}, peer {row.peer:.0f} tokens of trunk a second"
    print(f"{row.name}: {rates}, ratio {row.ratio:.2f} (target {TARGET})")
    emit_json({"rows": [asdict(row)]})
    return 0 if row.ok else 1


def measured(people: list[list[Dialogue]], *, rounds: int) -> Row:
    loaded, prompter = _model(people)
    told = [remember(sessions[-1], sessions[:-1]) for sessions in people]
    strangers = [sessions[0].messages for sessions in people[1:] + people[:1]]
    triples = [
        [Aligned(session.turns()[-1], _said(messages, "assistant"), _said(messages, "user"))]
        for session, messages in zip(told, strangers, strict=True)
    ]
    dropped = Dropped()
    examples = alignment_triples(zip(told, triples, strict=True), prompter, dropped=dropped)
    scored = with_reference(loaded, grow(examples, budget=LONGEST), budget=LONGEST)
    # Elsewhere than at the tie of the first step.
    shift = torch.tensor([0.5, -0.5, 1.0])
    trees = [tree.with_reference(tree.reference + shift) for tree in scored if tree.reference is not None]
    loaded.model.train()
    best = {"ours": float("inf"), "peer": float("inf")}
    for _ in range(rounds):
        for side, step in (("ours", _on_trees), ("peer", _on_sequences)):
            loaded.model.zero_grad()
            start = time.perf_counter()
            loss = step(loaded, trees)
            best[side] = min(best[side], time.perf_counter() - start)
            if side == "ours":
                ours, gradient = loss, _gradient(loaded)
            else:
                gap = (_gradient(loaded) - gradient).norm() / gradient.norm()
                loss_gap = abs(loss / ours - 1)
        print(
            f"ours {best['ours']:.1f} s, peer {best['peer']:.1f} s, losses {ours:.5f} and {loss:.5f}",
            flush=True,
        )
    tokens = sum(len(example.paths[0].prompt) for example in examples)
    ratio = best["peer"] / best["ours"]
    agree = loss_gap <= TOLERANCE and float(gap) <= TOLERANCE
    details = {
        "unit": "tokens of trunk/s",
        "examples": len(examples),
        "tokens_of_a_trunk": round(tokens / len(examples)),
        "dropped": dict(dropped.counts),
        "relative_loss_difference": loss_gap,
        "relative_gradient_difference": float(gap),
    }
    name = "DPOC, four references"
    return Row(
        name, tokens / best["ours"], tokens / best["peer"], ratio, TARGET, agree and ratio >= TARGET, details
    )


def _on_trees(loaded: LoadedModel, trees: Sequence[GrownTree]) -> float:
    settings = StageSettings(objective="dpoc", beta=BETA, penalty=PENALTY)
    total = 0.0
    for tree in trees:
        loss, _ = step_loss(loaded.model, [tree], settings=settings, plan=loaded.plan, total=len(trees))
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _on_sequences(loaded: LoadedModel, trees: Sequence[GrownTree]) -> float:
    total = 0.0
    for tree in trees:
        [example] = tree.examples
        sums = _padded(loaded, example)
        assert tree.reference is not None
        chosen, criterion, rejected = tree.reference
        terms = dpoc(
            sums[0:1],
            sums[1:2],
            sums[2:3],
            reference_chosen=chosen,
            reference_criterion=criterion,
            reference_rejected=rejected,
            beta=BETA,
            penalty=PENALTY,
        )
        loss = terms.loss.sum() / len(trees)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _padded(loaded: LoadedModel, example: Example) -> Tensor:
    """Summed log-probabilities of the three replies. Without a mask the model runs sdpa with `is_causal`."""
    prompt = list(example.paths[0].prompt)
    targets = [list(path.target) for path in example.paths]
    longest = max(map(len, targets))
    ids = torch.tensor([[*prompt, *target, *[0] * (longest - len(target))] for target in targets])
    counts = torch.tensor([[1] * len(target) + [0] * (longest - len(target)) for target in targets])
    logits = loaded.model(input_ids=ids, use_cache=False, logits_to_keep=longest + 1).logits
    log_probs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, len(prompt) :, None])[..., 0]
    sums: Tensor = (log_probs * counts).sum(1)
    return sums


def _gradient(loaded: LoadedModel) -> Tensor:
    return torch.cat([item.grad.flatten() for item in loaded.model.parameters() if item.grad is not None])


def _said(messages: Sequence[Turn], role: Role) -> str:
    return next(turn.content for turn in messages if turn.role == role)


def _people() -> list[list[Dialogue]]:
    """Sessions one to five of every pair."""
    folder = os.environ.get(DATA_FOLDER)
    paths = [Path(folder or "") / f"{name}.jsonl.gz" for name in (FIRST, LAST)]
    if not folder or not all(path.is_file() for path in paths):
        raise PersonalignError(f"set {DATA_FOLDER} to the folder that holds {FIRST} and {LAST}")
    sessions: dict[str, list[Dialogue]] = {}
    earlier, later = (read_dialogues(path) for path in paths)
    for dialogue in [*(item for item in earlier if item.extra["session"] == 1), *later]:
        sessions.setdefault(dialogue.id.rpartition("-")[0], []).append(replace(dialogue, persona=()))
    return [held for held in sessions.values() if len(held) == 5 and held[-1].reply_indices()]


def _model(people: Sequence[Sequence[Dialogue]]) -> tuple[LoadedModel, Prompter]:
    texts = [turn.content for sessions in people for session in sessions for turn in session.messages]
    tokenizer = train_bpe(texts, vocab_size=VOCABULARY)
    loaded = prepare(
        build_model(SIZE, max_positions=LONGEST), tokenizer, dtype="float32", device=torch.device("cpu")
    )
    return loaded, Prompter(tokenizer, PromptSettings(max_tokens=LONGEST, reserve=256))


if __name__ == "__main__":
    sys.exit(main())
