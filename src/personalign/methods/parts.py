"""The dialogues of a run, by part: train, align, stop, test, and what a corpus has besides."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from personalign.data.dialogue import Dialogue
from personalign.data.formats import read_dialogues, write_dialogues
from personalign.data.native import dialogue_to_row
from personalign.data.split import overlap, split_by_persona, without_shared
from personalign.data.synthetic.corpus import CORPUS_VERSION
from personalign.errors import PersonalignError
from personalign.methods.recipe import FileData, Files, Recipe
from personalign.prompts import Prompter

DATA_FOLDER = "PERSONALIGN_DATA"
TRIMMED = "oldest messages trimmed"
Parts = dict[str, list[Dialogue]]


def load_parts(recipe: Recipe, *, say: Callable[[str], None]) -> Parts:
    """Make or read the dialogues of each part. Splits are disjoint by persona set; `say` is told what is left out."""
    if recipe.data.synthetic is not None:
        from personalign.data.synthetic import generate, shuffle_personas, swap_personas, with_made_up_values

        sizes = recipe.data.synthetic
        corpus = generate(
            recipe.language,
            seed=sizes.seed,
            people={
                "train": sizes.train,
                "align": sizes.align,
                "stop": sizes.stop,
                "test": sizes.test,
                "unseen": sizes.unseen,
            },
            exchanges=sizes.exchanges,
        )
        parts: Parts = {name: list(dialogues) for name, dialogues in corpus.splits().items()}
        parts["train"] = with_made_up_values(parts["train"], share=sizes.made_up, seed=sizes.seed)
        swapped = swap_personas(parts["test"], seed=sizes.seed)
        # The history stays as it was: only whom the model is meant to be changes.
        parts["swapped"] = [
            replace(dialogue, persona=other.persona)
            for dialogue, other in zip(parts["test"], swapped, strict=True)
        ]
        parts["shuffled"] = shuffle_personas(parts["test"], seed=sizes.seed)
        return parts
    files = recipe.data.files
    assert files is not None
    test = read_key(files, files.test)[: files.test_limit]

    def untested(key: str) -> list[Dialogue]:
        read = read_key(files, key)
        if files.shared == "refuse":
            return read
        kept = without_shared(read, test)
        say(
            f"{key}: {len(read) - len(kept)} of {len(read)} dialogues left out, whose persona or person is tested"
        )
        return kept

    train = untested(files.train)[: files.limit]
    shares = {"align": files.align_share, "stop": files.stop_share}
    if files.align is None:
        shares["train"] = 1.0 - files.align_share - files.stop_share
        parts = split_by_persona(train, shares, seed=recipe.data.split_seed)
    else:
        parts = split_by_persona(untested(files.align), shares, seed=recipe.data.split_seed)
        parts["train"] = train
    parts["test"] = test
    _refuse_overlap(parts, files)
    _refuse_silent(parts, files)
    return parts


def revised(dialogues: Sequence[Dialogue]) -> list[Dialogue]:
    """The dialogues under their rewritten personas (`persona_revised`): line by line, so that labels stay true.

    Raises PersonalignError for the first dialogue that has none.
    """
    found = []
    for dialogue in dialogues:
        lines = dialogue.extra.get("persona_revised")
        if not isinstance(lines, list) or len(lines) != len(dialogue.persona):
            raise PersonalignError(
                f"dialogue '{dialogue.id}' of the test part: evaluation.revised needs `persona_revised`, a list with a "
                f"rewritten line for each of the {len(dialogue.persona)} of `persona`; add it, or leave "
                "evaluation.revised out"
            )
        found.append(replace(dialogue, persona=tuple(str(line) for line in lines)))
    return found


def _refuse_overlap(parts: Parts, files: FileData) -> None:
    """A persona that was trained on cannot show whether a model keeps one that it is told, nor when to stop."""
    names = ("train", "align", "stop", "test")
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            shared = overlap(parts[name], parts[other])
            if shared.persona_sets or shared.people or shared.conversations:
                file = files.test if other == "test" else files.align
                more = f" and {shared.conversations} conversations" if shared.conversations else ""
                # It leaves out those that are tested, and no others.
                drop = ", or write data.files.shared=drop" if other == "test" else ""
                raise PersonalignError(
                    f"data: file '{file}', part '{other}', and part '{name}' share {shared.persona_sets} persona sets "
                    f"and {shared.people} people{more}; make files that share none with `personalign data split`{drop}"
                )


def _refuse_silent(parts: Parts, files: FileData) -> None:
    """What has no reply can be neither learnt from nor measured, and would be noticed after the training."""
    for name, dialogues in parts.items():
        if not any(dialogue.reply_indices() for dialogue in dialogues):
            file = (
                files.test
                if name == "test"
                else files.train
                if name == "train"
                else files.align or files.train
            )
            share = "" if name == "test" else ", or a greater data.files.align_share or stop_share"
            raise PersonalignError(
                f"data: part '{name}' of file '{file}' has {len(dialogues)} dialogues and no reply of the assistant in "
                f"them; give a file with more dialogues{share}"
            )


def locate(key: str, hub: Mapping[str, str]) -> str:
    """The path or hub id that a key stands for: an existing path, a file of the data folder, a hub id, in this order."""
    if Path(key).exists():
        return key
    folder = os.environ.get(DATA_FOLDER)
    if folder:
        for ending in ("", ".jsonl", ".jsonl.gz"):
            candidate = Path(folder) / f"{key}{ending}"
            if candidate.is_file():
                return str(candidate)
    if key in hub:
        return hub[key]
    if "/" in key:
        return key
    place = (
        f"the folder {folder} has no {key}.jsonl or {key}.jsonl.gz" if folder else f"{DATA_FOLDER} is not set"
    )
    raise PersonalignError(
        f"data: '{key}' is no file here, and {place}; set {DATA_FOLDER} to the folder that holds it, or give a path "
        "or a hub id instead"
    )


def write_parts(folder: Path, parts: Parts) -> None:
    for name, dialogues in parts.items():
        write_dialogues(folder / f"{name}.jsonl.gz", dialogues)


def read_parts(folder: Path) -> Parts:
    return {
        path.name.removesuffix(".jsonl.gz"): read_dialogues(str(path))
        for path in sorted(folder.glob("*.jsonl.gz"))
    }


def fingerprint(dialogues: Sequence[Dialogue]) -> str:
    """A hash of what the dialogues say, whatever file they came from."""
    digest = hashlib.sha256()
    for dialogue in dialogues:
        digest.update(json.dumps(dialogue_to_row(dialogue), sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()[:16]


def source_fingerprint(recipe: Recipe) -> dict[str, Any]:
    """What decides the parts: the recipe's section, the version of the synthetic corpus, and the bytes of files."""
    values: dict[str, Any] = recipe.data.model_dump(mode="json")
    if recipe.data.synthetic is not None:
        values["corpus version"] = CORPUS_VERSION
    if recipe.data.files is not None:
        files = recipe.data.files
        keys = (files.train, files.test, files.align, files.pretrain_persona_pairs, *files.pretrain)
        values |= bytes_of(files.hub, [key for key in keys if key is not None])
    return values


def bytes_of(hub: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    """A hash of each file of the recipe that lies here."""
    found = {}
    for key in keys:
        path = Path(locate(key, hub))
        if path.is_file():
            found[f"SHA-256 of {key}"] = file_hash(path)
    return found


def contents_of(name: str | None) -> str | None:
    """What a model's name stands for: the bytes of the files where it is a folder here, else the name."""
    if name is None or not Path(name).is_dir():
        return name
    files = sorted(path for path in Path(name).iterdir() if path.is_file())
    return " ".join(f"{path.name}:{file_hash(path)[:16]}" for path in files)


def trimmed_turns(parts: Parts, prompter: Prompter) -> dict[str, dict[str, int]]:
    """Count the turns that lose their oldest messages; refuse those that are too long for any reply.

    Over-long turns of `train` are dropped and counted by its stages.
    """
    counts = {}
    for name, dialogues in parts.items():
        turns = [(dialogue, turn) for dialogue in dialogues for turn in dialogue.reply_indices()]
        windows = [prompter.window(dialogue, turn) for dialogue, turn in turns]
        for (dialogue, turn), window in zip(turns, windows, strict=True):
            if name != "train" and not window.fits:
                raise PersonalignError(
                    f"data: part '{name}': dialogue '{dialogue.id}', message {turn}: the persona and the last "
                    "message alone leave no room for a reply within prompts.max_tokens "
                    f"({prompter.settings.max_tokens}); raise it, or take the dialogue out of the file"
                )
        counts[name] = {"turns": len(turns), TRIMMED: sum(window.trimmed > 0 for window in windows)}
    return counts


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, read again only when it changed."""
    status = path.stat()
    return _hash_of(path, status.st_size, status.st_mtime_ns)


@cache
def _hash_of(path: Path, size: int, time: int) -> str:
    """Read anew only where size or time changed since this process read it."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_key(files: Files, key: str) -> list[Dialogue]:
    """The dialogues of one of a recipe's files."""
    return read_dialogues(locate(key, files.hub), columns=files.columns or None)
