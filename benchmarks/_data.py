"""The token ids that both sides train on, made once and handed to every process as files."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from personalign._files import write_json
from personalign.data.dialogue import Dialogue
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError
from personalign.models.tokenizers import train_bpe
from personalign.prompts import Prompter, PromptSettings
from personalign.training.examples import Example
from personalign.training.examples import Path as TargetPath

FILE = "convai2_valid.jsonl.gz"
VOCABULARY = 6000
STAGES = ("stage1", "dpo")


def load_dialogues() -> list[Dialogue]:
    """The dialogues of `convai2_valid` in the folder that PERSONALIGN_DATA names."""
    folder = os.environ.get("PERSONALIGN_DATA")
    if not folder:
        raise PersonalignError(
            "PERSONALIGN_DATA is unset; set it to the folder that holds convai2_valid.jsonl.gz (native format), "
            "for example: PERSONALIGN_DATA=/data/personachat make bench-trees"
        )
    path = Path(folder) / FILE
    if not path.exists():
        raise PersonalignError(
            f"{path} does not exist; PERSONALIGN_DATA must name the folder that holds {FILE}"
        )
    return read_dialogues(path)


def _texts(dialogues: Sequence[Dialogue]) -> Iterator[str]:
    for dialogue in dialogues:
        yield "\n ".join(dialogue.persona)
        yield "\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in dialogue.messages)


def make_examples(dialogues: Sequence[Dialogue], prompter: Prompter, *, stage: str) -> list[Example]:
    """One example per assistant turn.

    Stage 1 learns the selection and the reply; DPO prefers the reply to the one given at the same place of the
    next dialogue.
    """
    examples = []
    for number, dialogue in enumerate(dialogues):
        other = dialogues[(number + 1) % len(dialogues)]
        strangers = [other.messages[turn].content for turn in other.reply_indices()]
        for count, turn in enumerate(dialogue.reply_indices()):
            relevant = dialogue.relevant[count] if dialogue.relevant else ()
            line = relevant[0] if relevant else None
            prompt = prompter.reply(dialogue, turn, line=line)
            gold = prompter.reply_target(dialogue.messages[turn].content)
            stranger = prompter.reply_target(strangers[count % len(strangers)])
            if stage == "stage1":
                selection = prompter.select_target(dialogue, line)
                paths = (
                    TargetPath("selection", prompter.select(dialogue, turn), selection),
                    TargetPath("reply", prompt, gold),
                )
            else:
                paths = (TargetPath("chosen", prompt, gold), TargetPath("rejected", prompt, stranger))
            examples.append(Example(dialogue.id, turn, paths))
    return examples


def first_dialogues(examples: Sequence[Example], count: int) -> list[Example]:
    """The examples of the first `count` dialogues."""
    kept = set(list(dict.fromkeys(example.dialogue for example in examples))[:count])
    return [example for example in examples if example.dialogue in kept]


def write_workload(folder: Path, dialogues: Sequence[Dialogue], *, histories: dict[str, int | None]) -> None:
    """Write `{stage}-{history}.json` for each stage and history, and the tokenizer, into `folder`."""
    tokenizer = train_bpe(_texts(dialogues), vocab_size=VOCABULARY)
    tokenizer.save_pretrained(folder / "tokenizer")
    for name, history in histories.items():
        prompter = Prompter(tokenizer, PromptSettings(history=history))
        for stage in STAGES:
            examples = make_examples(dialogues, prompter, stage=stage)
            write_json(folder / f"{stage}-{name}.json", [asdict(example) for example in examples])


def read_workload(folder: Path, *, stage: str, history: str, dialogues: int) -> list[Example]:
    """What `write_workload` wrote, of the first `dialogues` dialogues."""
    rows = json.loads((folder / f"{stage}-{history}.json").read_text(encoding="utf-8"))
    examples = [
        Example(row["dialogue"], row["turn"], tuple(TargetPath(**path) for path in row["paths"]))
        for row in rows
    ]
    return first_dialogues(examples, dialogues)
