"""`personalign quickstart`: watch a model learn to keep a persona."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from personalign.cli import _output
from personalign.cli.reporter import TerminalReporter
from personalign.cli.run import execute, finish, resuming

_STEPS = [
    "reply from a profile (fine-tuning, the baseline)",
    "choose the line that matters and reply with it (PAL stage 1)",
    "prefer that to replying without (stage 2)",
    "test",
]
_COUNTS = {4: "four", 5: "five"}


def quickstart(
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; runs/quickstart by default, from scratch runs/quickstart-scratch."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: a.b=c. May be repeated.")
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Begin with random weights instead of personalign-mini.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of a stage.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Train and test PAL on a synthetic corpus: no network, GPU or data; three minutes, from scratch three to five."""
    console = _output.message_console()
    steps = ["copy", *_STEPS] if from_scratch else _STEPS
    console.print(
        f"A small model learns to keep a persona, in {_COUNTS[len(steps)]} steps: {'; '.join(steps)}.",
        soft_wrap=True,
    )
    from personalign.methods.shipped import load_recipe

    recipe = load_recipe("quickstart-scratch" if from_scratch else "quickstart", set_ or [])
    from personalign.methods.run import PalRun

    _output.quieten()
    start = time.monotonic()
    # A folder for each: the model of one would else be replaced by that of the other.
    folder = out or Path("runs") / recipe.name
    pal_run = PalRun(recipe, folder, reporter=TerminalReporter(), resume=resume)
    command = ["quickstart", *(["--from-scratch"] if from_scratch else [])]
    again = resuming(*command, out=out, set_=set_, json=json)
    records = execute(pal_run, until=None, again=again)
    _show_sample(pal_run.sample_dialogue())
    console.print(f"Done in {_output.clock(time.monotonic() - start)}.")
    finish(pal_run, records, json=json)


def _show_sample(sample: dict[str, Any]) -> None:
    """One test dialogue with PAL's replies, each under the line that it chose."""
    console = _output.output_console()
    console.print("\nA person whom the model never met:", style="bold")
    for line in sample["persona"]:
        console.print(f"  {line}", markup=False)
    for turn in sample["turns"]:
        console.print(f"user       {turn['user']}", markup=False)
        console.print(f"           ({turn['selected'] or 'no line matters'})", markup=False, style="dim")
        console.print(f"assistant  {turn['reply']}", markup=False, style="green")
    console.print()
