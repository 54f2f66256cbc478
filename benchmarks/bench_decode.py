"""Select-then-generate: our decoding against two left-padded passes of transformers' `generate()`.

The peer decodes the selection freely, one row per turn, then the reply. Ours scores every persona line as a branch
of the dialogue's tree and decodes the replies of all turns over one cache. Same weights, same prompts, fp32, greedy,
same `max_new_tokens`. The peer's replies rest on the lines that we selected, so that both write the same replies,
which is asserted; how often its own freely decoded selection agrees with ours is reported.

The model is a Llama of about 10M parameters, trained from scratch before the measurement: stage 1 of PAL, history
included, on dialogues that are not measured, for some minutes, so that selections and replies end as those of a
trained model do. So young a model selects "none" almost always; its bias for none is therefore calibrated to the
labelled share on training dialogues, and replies rest on lines as well. Agreement compares the free decoding with
the choice without bias. Data: `convai2_valid.jsonl.gz` in the folder PERSONALIGN_DATA, else the synthetic corpus.

Both sides alternate for a number of rounds and the fastest round of each counts. The last line is a JSON object;
the exit code is 1 where the ratio misses its target or a reply differs.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from _data import FILE, VOCABULARY, load_dialogues
from _models import build_model
from personalign.cli._output import emit_json
from personalign.data.dialogue import Dialogue
from personalign.data.synthetic.corpus import generate
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Response, Selection, respond, selection_scores
from personalign.decoding.selection import calibrate_none, choose, labelled_line
from personalign.errors import PersonalignError
from personalign.methods.pal import Dropped, persona_aware_learning
from personalign.models import LoadedModel, prepare, train_bpe
from personalign.models.precision import cpu_multiplies_bf16
from personalign.prompts import Prompter, PromptSettings
from personalign.training.examples import grow
from personalign.training.step import StageSettings
from personalign.training.trainer import train_stage

TARGET = 3.0
PEER_BATCH = 32
MAX_NEW_TOKENS = 40
CALIBRATION_DIALOGUES = 40

# A turn: the dialogue's id and the index of the message that is answered for.
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is measured: dialogues and the turns of each that are answered; and what the model is trained on."""

    name: str
    measured: list[Dialogue]
    turns: dict[str, list[int]]
    training: list[Dialogue]


@dataclass(frozen=True, slots=True)
class PeerRun:
    """Freely decoded selections and replies, per dialogue id and turn, and the seconds that both passes took."""

    selected: dict[Key, int | None]
    replies: dict[Key, str]
    seconds: float


def make_workload(turns: int, *, training: int) -> Workload:
    if os.environ.get("PERSONALIGN_DATA"):
        name, dialogues = FILE, load_dialogues()
    else:
        corpus = generate("en", seed=0, people={"train": training, "test": turns})
        name, dialogues = "synthetic corpus", [*corpus.test, *corpus.train]
    wanted: dict[str, list[int]] = {}
    left = turns
    for dialogue in dialogues:
        if left == 0:
            break
        wanted[dialogue.id] = list(dialogue.reply_indices())[:left]
        left -= len(wanted[dialogue.id])
    measured = dialogues[: len(wanted)]
    return Workload(name, measured, wanted, dialogues[-training:] if training else dialogues[len(wanted) :])


def train_model(workload: Workload, *, steps: int) -> tuple[LoadedModel, Prompter]:
    texts = (text for dialogue in workload.training for text in _texts(dialogue))
    tokenizer = train_bpe(texts, vocab_size=VOCABULARY)
    trained = prepare(build_model("10M"), tokenizer, dtype="float32", device=torch.device("cpu"))
    prompter = Prompter(tokenizer, PromptSettings())
    examples = persona_aware_learning(workload.training, prompter, dropped=Dropped(), trunk_weight=1.0)
    settings = StageSettings(
        learning_rate=1.5e-3,
        max_steps=steps,
        batch_examples=16,
        token_budget=4096,
        warmup_steps=20,
        schedule="linear",
        max_grad_norm=1.0,
        bf16=cpu_multiplies_bf16(),
    )
    with tempfile.TemporaryDirectory() as folder:
        train_stage(
            trained.model,
            grow(examples, budget=4096),
            settings=settings,
            folder=Path(folder),
            stage="stage1",
            plan=trained.plan,
            progress=_show,
        )
    # A model of its own: training may have left autocast around the other one's forward pass.
    model = build_model("10M")
    model.load_state_dict(trained.model.state_dict())
    return prepare(model, tokenizer, dtype="float32", device=torch.device("cpu")), prompter


def _texts(dialogue: Dialogue) -> list[str]:
    return ["\n ".join(dialogue.persona), *(f"User: {turn.content}\n" for turn in dialogue.messages)]


def calibrated_bias(loaded: LoadedModel, prompter: Prompter, dialogues: Sequence[Dialogue]) -> float:
    """The bias at which as many turns choose none as are labelled so."""
    labels = [labelled_line(dialogue, turn) for dialogue in dialogues for turn in dialogue.reply_indices()]
    scores = selection_scores(loaded, prompter, dialogues)
    share = sum(label is None for label in labels) / len(labels)
    return calibrate_none([item for row in scores for item in row], share_of_none=share)


def unbiased_lines(loaded: LoadedModel, prompter: Prompter, workload: Workload) -> dict[Key, int | None]:
    scores = selection_scores(
        loaded, prompter, workload.measured, turns=lambda dialogue: workload.turns[dialogue.id]
    )
    return {
        (dialogue.id, turn): choose(item).line
        for dialogue, row in zip(workload.measured, scores, strict=True)
        for turn, item in zip(workload.turns[dialogue.id], row, strict=True)
    }


def run_ours(
    loaded: LoadedModel, prompter: Prompter, workload: Workload, *, none_bias: float = 0.0
) -> tuple[list[Response], float]:
    start = time.perf_counter()
    responses = respond(
        loaded,
        prompter,
        workload.measured,
        selection=Selection("predicted", none_bias=none_bias),
        decoding=DecodingSettings(max_new_tokens=MAX_NEW_TOKENS),
        turns=lambda dialogue: workload.turns[dialogue.id],
    )
    return responses, time.perf_counter() - start


def run_peer(
    loaded: LoadedModel, prompter: Prompter, workload: Workload, *, lines: dict[Key, int | None]
) -> PeerRun:
    """Both passes; the replies rest on `lines`."""
    start = time.perf_counter()
    keys = [(dialogue, turn) for dialogue in workload.measured for turn in workload.turns[dialogue.id]]
    select = [prompter.select(dialogue, turn) for dialogue, turn in keys]
    chosen = _generate(loaded, select, end_ids=prompter.selection_end_ids)
    texts = loaded.tokenizer.batch_decode(chosen, skip_special_tokens=True)
    selected = {
        (dialogue.id, turn): prompter.read_selection(text, dialogue)
        for (dialogue, turn), text in zip(keys, texts, strict=True)
    }
    prompts = [prompter.reply(dialogue, turn, line=lines[dialogue.id, turn]) for dialogue, turn in keys]
    replies = [prompter.decode_reply(ids) for ids in _generate(loaded, prompts, end_ids=prompter.end_ids)]
    seconds = time.perf_counter() - start
    return PeerRun(
        selected,
        {(dialogue.id, turn): reply for (dialogue, turn), reply in zip(keys, replies, strict=True)},
        seconds,
    )


def _generate(
    loaded: LoadedModel, prompts: Sequence[list[int]], *, end_ids: Sequence[int]
) -> list[list[int]]:
    """New tokens of each prompt; batches hold prompts of like length, so that little is padding."""
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    results: dict[int, list[int]] = {}
    for first in range(0, len(order), PEER_BATCH):
        batch = order[first : first + PEER_BATCH]
        width = max(len(prompts[index]) for index in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(batch):
            ids[row, width - len(prompts[index]) :] = torch.tensor(prompts[index])
            mask[row, width - len(prompts[index]) :] = 1
        with torch.inference_mode():
            output = loaded.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                eos_token_id=list(end_ids),
                pad_token_id=loaded.tokenizer.pad_token_id,
            )
        results.update(zip(batch, output[:, width:].tolist(), strict=True))
    return [_until(results[index], end_ids) for index in range(len(prompts))]


def _until(tokens: list[int], end_ids: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(tokens) if token in end_ids), len(tokens))
    return tokens[:end]


def _show(done: int, total: int, values: dict[str, float]) -> None:
    if done % 20 == 0 or done == total:
        print(f"  step {done} of {total}: {values}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=500, help="turns to answer")
    parser.add_argument("--training-dialogues", type=int, default=400, help="dialogues to train on")
    parser.add_argument("--training-steps", type=int, default=400, help="optimizer steps of 16 turns")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of either side")
    arguments = parser.parse_args()

    try:
        workload = make_workload(arguments.turns, training=arguments.training_dialogues)
    except PersonalignError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{workload.name}: {arguments.turns} turns of {len(workload.measured)} dialogues; training the model"
    )
    loaded, prompter = train_model(workload, steps=arguments.training_steps)
    bias = calibrated_bias(loaded, prompter, workload.training[:CALIBRATION_DIALOGUES])
    ours_seconds, peer_seconds = [], []
    for number in range(1, arguments.rounds + 1):
        responses, seconds = run_ours(loaded, prompter, workload, none_bias=bias)
        ours_seconds.append(seconds)
        lines = {
            (item.dialogue, item.turn): None if item.choice is None else item.choice.line
            for item in responses
        }
        peer = run_peer(loaded, prompter, workload, lines=lines)
        peer_seconds.append(peer.seconds)
        print(f"round {number}: ours {seconds:.1f} s, generate() twice {peer.seconds:.1f} s", flush=True)
    free, scored = peer.selected, unbiased_lines(loaded, prompter, workload)
    result = {
        "rows": _rows(responses, peer, ours=min(ours_seconds), peers=min(peer_seconds)),
        "agreement_with_free_decoding": _share(free[key] == line for key, line in scored.items()),
        "share_of_none": {
            "calibrated": _share(line is None for line in lines.values()),
            "scored": _share(line is None for line in scored.values()),
            "free_decoding": _share(line is None for line in free.values()),
        },
        "replies_ended": _share(item.ended for item in responses),
        "tokens_per_reply": sum(item.tokens for item in responses) / len(responses),
        "data": workload.name,
        "turns": len(responses),
        "parameters": loaded.model.num_parameters(),
        "threads": torch.get_num_threads(),
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    emit_json(result)
    return 0 if all(row["ok"] for row in result["rows"]) else 1


def _rows(
    responses: Sequence[Response], peer: PeerRun, *, ours: float, peers: float
) -> list[dict[str, str | float | bool]]:
    ratio, turns = peers / ours, len(responses)
    identical = _share(item.text == peer.replies[item.dialogue, item.turn] for item in responses)
    return [
        {
            "name": "select-then-generate, turns per second",
            "ours": turns / ours,
            "peer": turns / peers,
            "ratio": ratio,
            "target": TARGET,
            "ok": ratio >= TARGET,
        },
        {
            "name": "share of replies that are identical, given the same line",
            "ours": identical,
            "peer": 1.0,
            "ratio": identical,
            "target": 1.0,
            "ok": identical == 1.0,
        },
    ]


def _share(flags: Iterable[bool]) -> float:
    counted = list(flags)
    return sum(counted) / len(counted)


if __name__ == "__main__":
    sys.exit(main())
