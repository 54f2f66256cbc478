"""Pretraining a small backbone: language modelling on dialogue text, mixed with copies of real persona lines."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from personalign._files import read_json, write_json
from personalign._ranks import find_ranks
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import read_dialogues
from personalign.data.split import normalise_line
from personalign.evaluation.nli_rows import read_entailed_pairs
from personalign.methods.backbone import CopyWarmup, copy_warmup
from personalign.methods.parts import Parts, locate
from personalign.methods.recipe import CopyStage, Files, PretrainStage, Recipe
from personalign.methods.stages import stage_settings, stage_trees, warmup_remark
from personalign.methods.steps import Interrupted, Reporter, steps_of
from personalign.models import LoadedModel, plain_tokens
from personalign.prompts import UNSELECTED, Prompter
from personalign.training.examples import Example
from personalign.training.examples import Path as Target
from personalign.training.journal import checkpoints_of, read_marker
from personalign.training.trainer import total_steps, train_stage


def pretraining_dialogues(recipe: Recipe, parts: Parts) -> tuple[list[Dialogue], dict[str, int]]:
    """The dialogues that a backbone from scratch may read, and what was left out of them: see `untested`."""
    files = recipe.data.files
    if files is None:
        return parts["train"], {"dialogues": len(parts["train"])}
    pairs = files.pretrain_persona_pairs
    sources = [] if pairs is None else [pairs_as_dialogues(locate(pairs, files.hub))]
    return pretraining_texts(files, files.pretrain, parts["train"], parts["test"], sources)


def pretraining_texts(
    files: Files,
    keys: Sequence[str],
    train: Sequence[Dialogue],
    tested: Sequence[Dialogue],
    more: Sequence[Sequence[Dialogue]] = (),
) -> tuple[list[Dialogue], dict[str, int]]:
    """The training dialogues, those of the files `keys` and `more`, without what is tested and without labels."""
    sources = [train, *(read_dialogues(locate(key, files.hub)) for key in keys), *more]
    kept, counts = untested(sources, tested)
    return [replace(dialogue, relevant=None) for dialogue in kept], counts


def untested(
    sources: Iterable[Sequence[Dialogue]], tested: Sequence[Dialogue]
) -> tuple[list[Dialogue], dict[str, int]]:
    """The dialogues without what `tested` holds, numbered anew, and counts of what was left out.

    A message that equals one of a tested dialogue is dropped from its own, which then loses its labels; a dialogue
    whose persona shares a line with a tested persona, revised lines included, is dropped whole.
    """
    test_messages = {normalise_line(turn.content) for item in tested for turn in item.messages}
    test_lines = {normalise_line(line) for item in tested for line in _all_lines(item)}
    counts: Counter[str] = Counter()
    kept: list[Dialogue] = []
    for source in sources:
        for dialogue in source:
            if any(normalise_line(line) in test_lines for line in _all_lines(dialogue)):
                counts["dialogues dropped for a test persona line"] += 1
                continue
            messages = tuple(
                turn for turn in dialogue.messages if normalise_line(turn.content) not in test_messages
            )
            whole = len(messages) == len(dialogue.messages)
            counts["messages dropped for a test message"] += len(dialogue.messages) - len(messages)
            # A reply that nothing is left of teaches nothing; a pair of line and reply is one message.
            if len(messages) > 1 or (whole and messages):
                relevant = dialogue.relevant if whole else None
                number = f"{len(kept)}"
                kept.append(
                    replace(dialogue, id=number, messages=messages, relevant=relevant, candidates=None)
                )
    counts["dialogues"] = len(kept)
    return kept, dict(counts)


def copying(
    loaded: LoadedModel,
    stage: CopyStage,
    *,
    seed: int,
    reporter: Reporter,
    checkpoints: Path,
    resume: bool = False,
) -> dict[str, Any]:
    """The copy warm-up, in place; says so where copying was not learnt.

    With `resume` it is not done again where the pretraining behind it left a checkpoint, which holds what it made.
    """
    kept = checkpoints / "copying.json"
    if resume and kept.is_file() and any(read_marker(place) for _, place in checkpoints_of(checkpoints)):
        found: dict[str, Any] = read_json(kept, advice=f"remove {checkpoints} and give the command again")
        return found
    settings = CopyWarmup(**stage.model_dump())
    with reporter.task("Learning to copy (ends early)", settings.max_steps) as advance:
        result = copy_warmup(
            loaded.model,
            settings,
            token_ids=plain_tokens(loaded.tokenizer),
            seed=seed,
            progress=steps_of(advance),
        )
    if find_ranks().main:
        write_json(kept, asdict(result))
    if result.accuracy < settings.accuracy:
        reporter.say(
            f"Copying was not learnt: {result.accuracy:.2f} of the tokens after {result.steps} steps, "
            f"{settings.accuracy:g} were wanted. Personas will hardly be kept; try another "
            "learning_rate for copying, lower for a wider model, or more max_steps"
        )
    return asdict(result)


def pretrain(
    loaded: LoadedModel,
    examples: Sequence[Example],
    stage: PretrainStage,
    *,
    seed: int,
    checkpoints: Path,
    journal: Path,
    reporter: Reporter,
    resume: bool = False,
) -> dict[str, Any]:
    """Train the model in place on `examples`, such as `pretraining_examples`.

    Raises Interrupted after Ctrl-C; `resume` then goes on from what is under `checkpoints`.
    """
    trees = stage_trees(examples, stage)
    settings = stage_settings(stage, seed=seed, loaded=loaded)
    steps = total_steps(trees, settings)
    if remark := warmup_remark("pretrain", stage, steps):
        reporter.say(remark)
    with reporter.task("Pretraining", steps) as advance:
        result = train_stage(
            loaded.model,
            trees,
            settings=settings,
            folder=checkpoints,
            stage="pretrain",
            plan=loaded.plan,
            journal=journal,
            progress=steps_of(advance),
            resume=resume,
        )
    if result.interrupted:
        raise Interrupted("pretraining")
    return {
        "rows": len(examples),
        "tokens": sum(len(tree) for tree in trees),
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
    }


def pretraining_examples(
    dialogues: Sequence[Dialogue],
    prompter: Prompter,
    stage: PretrainStage,
    *,
    seed: int,
    dropped: Counter[str],
) -> list[Example]:
    """What each dialogue's last reply is given to read, every token a target, and copies of persona lines."""
    examples = _language_examples(dialogues, prompter, dropped=dropped)
    copies = copy_examples(dialogues, prompter, stage, rows=len(examples), seed=seed, dropped=dropped)
    return [*examples, *copies]


def _language_examples(
    dialogues: Sequence[Dialogue], prompter: Prompter, *, dropped: Counter[str]
) -> list[Example]:
    """The prompt of each dialogue's last reply, as much history as `prompts` shows, with the reply."""
    examples = []
    for dialogue in dialogues:
        turns = dialogue.reply_indices()
        if not turns or not prompter.window(dialogue, turns[-1]).fits:
            dropped["longer than max_tokens" if turns else "without a reply"] += 1
            continue
        prompt = prompter.reply(dialogue, turns[-1], line=UNSELECTED)
        row = [*prompt, *prompter.reply_target(dialogue.messages[turns[-1]].content)]
        if len(row) > prompter.settings.max_tokens:
            dropped["target longer than the room for it"] += 1
            continue
        examples.append(Example(dialogue.id, turns[-1], (Target("text", row[:1], row[1:]),)))
    return examples


def copy_examples(
    dialogues: Sequence[Dialogue],
    prompter: Prompter,
    stage: PretrainStage,
    *,
    rows: int,
    seed: int,
    dropped: Counter[str],
) -> list[Example]:
    """Persona lines of random dialogues, then the same lines in another order; the second half is the target.

    One for every `copy_every` of `rows`, but for those that are longer than a prompt may be.
    """
    count = rows // stage.copy_every if stage.copy_every else 0
    generator = np.random.default_rng((seed, 0xC0B1))
    lines = sorted({line for dialogue in dialogues for line in dialogue.persona})
    if len(lines) < 5:
        return []
    examples = []
    for number in range(count):
        chosen = generator.choice(len(lines), size=5, replace=False)
        first = [token for index in chosen for token in prompter.reply_target(lines[index])]
        second = [
            token for index in generator.permutation(chosen) for token in prompter.reply_target(lines[index])
        ]
        if len(first) + len(second) > prompter.settings.max_tokens:
            dropped["copies longer than max_tokens"] += 1
            continue
        examples.append(Example(f"copy-{number}", 0, (Target("copy", first, second),)))
    return examples


def pairs_as_dialogues(path: str) -> list[Dialogue]:
    """Rows of a persona line and a reply that expresses it, each as a dialogue of one message."""
    return [
        Dialogue(id=str(number), persona=(row.premise,), messages=(Turn("assistant", row.hypothesis),))
        for number, row in enumerate(read_entailed_pairs(path))
    ]


def _all_lines(dialogue: Dialogue) -> list[str]:
    revised = [*dialogue.extra.get("persona_revised", ()), *dialogue.extra.get("partner_persona_revised", ())]
    return [*dialogue.persona, *dialogue.partner_persona, *revised]
