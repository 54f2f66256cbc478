"""`personalign pretrain`: a backbone of one's own, from dialogue text."""

import time
from pathlib import Path
from typing import Annotated

import typer

from personalign._ranks import find_ranks
from personalign.cli import _output
from personalign.cli.reporter import TerminalReporter
from personalign.cli.run import interruptible, resuming


def pretrain(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a file.")],
    out: Annotated[Path | None, typer.Option(help="Folder; runs/NAME by default.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: a.b=c. May be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Train a small backbone and its tokenizer from dialogue text; out comes a model folder that loads and chats."""
    from personalign.methods.shipped import load_pretrain_recipe

    chosen = load_pretrain_recipe(recipe, set_ or [])
    from personalign.methods.pretrain_run import MODEL, PretrainRun

    _output.quieten()
    folder = out or Path("runs") / chosen.name
    ranks = find_ranks()
    reporter = TerminalReporter(ranks=ranks)
    run = PretrainRun(chosen, folder, reporter=reporter, resume=resume, ranks=ranks)
    start = time.monotonic()
    again = resuming("pretrain", recipe, out=out, set_=set_, json=json)
    record = interruptible(run.run, again=again, ranks=ranks)
    if not ranks.main:
        return
    console = _output.output_console()
    for name, value in record["held_out"].items():
        console.print(f"held out, {name}: {value:.3f}", markup=False)
    console.print(f"Done in {_output.clock(time.monotonic() - start)}.")
    console.print(f"Model, card and loss curve: {folder / MODEL}", markup=False, soft_wrap=True)
    _output.print_command(console, "Chat with it:", "chat", folder / MODEL)
    if json:
        _output.emit_json({"model": folder / MODEL, "record": record})
