"""hits@1: all turns of a dialogue and their candidates on one trunk, against one padded batch of candidates per turn.

Same weights, same prompts, fp32; the peer runs the 20 candidates of a turn behind its prompt as one right-padded forward
pass, with logits of the candidates' positions only. The model is a Llama of about 10M parameters with random weights:
any scores serve to compare rankings. Data: `convai2_candidates_sample.jsonl.gz` in the folder PERSONALIGN_DATA.

The last line is a JSON object; the exit code is 1 where the ratio misses its target or a ranking differs, 2 where it
could not run.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import torch

from _data import VOCABULARY
from _models import build_model
from _report import Row
from personalign.cli._output import emit_json, quieten
from personalign.data.dialogue import Dialogue
from personalign.data.formats import read_dialogues
from personalign.decoding.ranking import Ranking, rank_candidates
from personalign.decoding.respond import Selection
from personalign.errors import PersonalignError
from personalign.methods.parts import DATA_FOLDER
from personalign.models import LoadedModel, prepare, train_bpe
from personalign.prompts import UNSELECTED, Prompter, PromptSettings

FILE = "convai2_candidates_sample.jsonl.gz"
TARGET = 5.0
# Scores closer than this are equal but for rounding, and may change places.
TIE = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=int, default=40, help="dialogues at most, of 154 (default: 40)")
    parser.add_argument("--rounds", type=int, default=2, help="of either side; the fastest counts")
    options = parser.parse_args()
    quieten()
    try:
        row = measured(_dialogues()[: options.dialogues], rounds=options.rounds)
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{row.name}: ours {row.ours:.1f}, peer {row.peer:.1f} turns/s, ratio {row.ratio:.2f} (target {TARGET})"
    )
    emit_json({"rows": [asdict(row)]})
    return 0 if row.ok else 1


def measured(dialogues: Sequence[Dialogue], *, rounds: int) -> Row:
    loaded, prompter = _model(dialogues)
    best = {"ours": float("inf"), "peer": float("inf")}
    for _ in range(rounds):
        start = time.perf_counter()
        ours = rank_candidates(loaded, prompter, dialogues, selection=Selection("unselected"))
        best["ours"] = min(best["ours"], time.perf_counter() - start)
        start = time.perf_counter()
        peer = padded(loaded, prompter, dialogues, ours)
        best["peer"] = min(best["peer"], time.perf_counter() - start)
        print(f"ours {best['ours']:.1f} s, peer {best['peer']:.1f} s", flush=True)
    gap = max(
        abs(a - b)
        for one, other in zip(ours, peer, strict=True)
        for a, b in zip(one.scores, other, strict=True)
    )
    same = all(_order_kept(one.scores, other) for one, other in zip(ours, peer, strict=True))
    ratio = best["peer"] / best["ours"]
    return Row(
        "rank candidates",
        len(ours) / best["ours"],
        len(ours) / best["peer"],
        ratio,
        TARGET,
        same and ratio >= TARGET,
        {
            "unit": "turns/s",
            "turns": len(ours),
            "candidates": sum(len(one.scores) for one in ours),
            "same_ranking": same,
            "largest_difference": gap,
        },
    )


def padded(
    loaded: LoadedModel, prompter: Prompter, dialogues: Sequence[Dialogue], wanted: Sequence[Ranking]
) -> list[list[float]]:
    """One forward pass per turn over its prompt with each candidate, padded on the right."""
    by_id = {dialogue.id: dialogue for dialogue in dialogues}
    scores = []
    for ranking in wanted:
        prompt = list(prompter.reply(by_id[ranking.dialogue], ranking.turn, line=UNSELECTED))
        targets = [list(prompter.reply_target(candidate)) for candidate in ranking.candidates]
        longest = max(map(len, targets))
        ids = torch.tensor([[*prompt, *target, *[0] * (longest - len(target))] for target in targets])
        mask = torch.tensor(
            [[1] * (len(prompt) + len(target)) + [0] * (longest - len(target)) for target in targets]
        )
        with torch.inference_mode():
            output = loaded.model(
                input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=longest + 1
            )
        log_probs = output.logits[:, :-1].log_softmax(-1)
        values = log_probs.gather(2, ids[:, len(prompt) :, None])[..., 0] * mask[:, len(prompt) :]
        scores.append(values.sum(1).tolist())
    return scores


def _order_kept(ours: Sequence[float], peer: Sequence[float]) -> bool:
    """The same ranking, candidates that score alike aside."""
    order = sorted(range(len(ours)), key=lambda index: -ours[index])
    return all(peer[a] > peer[b] - TIE for a, b in pairwise(order))


def _dialogues() -> list[Dialogue]:
    folder = os.environ.get(DATA_FOLDER)
    if not folder or not (Path(folder) / FILE).is_file():
        raise PersonalignError(f"set {DATA_FOLDER} to the folder that holds {FILE}")
    return read_dialogues(Path(folder) / FILE)


def _model(dialogues: Sequence[Dialogue]) -> tuple[LoadedModel, Prompter]:
    texts = [text for d in dialogues for text in (*d.persona, *(message.content for message in d.messages))]
    tokenizer = train_bpe(texts, vocab_size=VOCABULARY)
    loaded = prepare(build_model("10M"), tokenizer, dtype="float32", device=torch.device("cpu"))
    return loaded, Prompter(tokenizer, PromptSettings(max_tokens=1024, reserve=64))


if __name__ == "__main__":
    sys.exit(main())
