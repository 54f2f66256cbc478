"""`personalign run`: a recipe from data to a table."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from personalign._ranks import ALONE, Ranks, find_ranks
from personalign.cli import _output
from personalign.cli.main import EXIT_INTERRUPTED
from personalign.cli.reporter import TerminalReporter

if TYPE_CHECKING:
    from personalign.methods.runs import AnyRun


def run(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or a file.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME by default.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: a.b=c. May be repeated.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint of a stage.")
    ] = False,
    until: Annotated[str | None, typer.Option(help="Stop after this step.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and its size.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Run a recipe: data, backbone, training, alignment, decoding, table. A finished step is not run again."""
    from personalign.methods.shipped import load_run_recipe

    # Before anything heavy is imported: a mistyped key is told at once.
    chosen = load_run_recipe(recipe, set_ or [])
    from personalign.methods.runs import make_run

    _output.quieten()
    folder = out or Path("runs") / chosen.name
    ranks = find_ranks()
    reporter = TerminalReporter(ranks=ranks)
    made = make_run(chosen, folder, reporter=reporter, resume=resume, ranks=ranks)
    if dry_run:
        print_dry_run(made, until=until, json=json)
        return
    again = resuming("run", recipe, out=out, set_=set_, until=until, json=json)
    records = execute(made, until=until, again=again, ranks=ranks)
    if ranks.main:
        finish(made, records, json=json)


def resuming(
    *command: str, out: Path | None, set_: list[str] | None, until: str | None = None, json: bool = False
) -> str:
    """The command line that goes on where this one was stopped."""
    words = list(command)
    words += [] if out is None else ["--out", str(out)]
    words += [word for assignment in set_ or [] for word in ("--set", assignment)]
    words += [] if until is None else ["--until", until]
    words += ["--json"] if json else []
    return _output.command_line(*words, "--resume")


def execute(made: "AnyRun", *, until: str | None, again: str, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Run it, telling which steps were done before."""
    console = _output.message_console()
    for item in made.plan(until=until):
        if item.state == "done" and ranks.main:
            console.print(f"{item.step.title}: done before", markup=False, style="dim")
    return interruptible(partial(made.run, until=until), again=again, ranks=ranks)


def interruptible(work: Callable[[], dict[str, Any]], *, again: str, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Do the work; when it is interrupted say what is kept and that the command `again` goes on."""
    from personalign.methods.steps import Interrupted

    console = _output.message_console()
    try:
        return work()
    except (Interrupted, KeyboardInterrupt) as stopped:
        if isinstance(stopped, Interrupted):
            said = f"stopped in {stopped}, which is kept like all before it"
        else:
            said = "interrupted; what was finished before is kept"
        if ranks.main:
            console.print(f"{said}. Go on with:", markup=False, soft_wrap=True)
            console.print(f"  {again}", markup=False, emoji=False, soft_wrap=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


def finish(made: "AnyRun", records: dict[str, Any], *, json: bool) -> None:
    """Show the table and where everything is."""
    from personalign.methods.tables import legend, read_results, summary_rows

    console = _output.output_console()
    results = read_results(made.folder) if "results" in records else {}
    if results:
        remembers = made.recipe.method == "idl"
        header, rows = summary_rows(_first_part(results) if remembers else results)
        # Without a frame the widest row still fits 80 columns; a cut figure is worse than a plain table.
        table = Table(
            title=escape(made.recipe.name),
            title_justify="left",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        for index, name in enumerate(header):
            table.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        _output.print_table(table)
        for name, meaning in legend(results).items():
            console.print(f"{name}: {meaning}", markup=False, soft_wrap=True, style="dim")
        console.print(
            f"Every metric with its interval: {made.folder / 'table.md'}", markup=False, soft_wrap=True
        )
        _output.print_command(console, "Look at every turn:", "report", made.folder)
        told = ("--sessions", "FILE", "--person", "NAME") if remembers else ()
        _output.print_command(console, "Chat with it:", "chat", made.folder, *told)
    if json:
        _output.emit_json({"run": made.folder, "steps": records, "results": results})


def _first_part(results: dict[str, Any]) -> dict[str, Any]:
    """Of several groups of people that were tested, the one that the report is on; the others have the same rows."""
    return {name: system for name, system in results.items() if system["part"] == "test"}


def print_dry_run(made: "AnyRun", *, until: str | None, json: bool) -> None:
    """The steps as far as `until`, and the sizes of the stages among them; what cannot work is told before either."""
    from personalign.methods.dry_run import estimate

    console = _output.output_console()
    planned = made.plan(until=until)
    sizes = estimate(made.recipe, reporter=TerminalReporter())
    table = Table(title="Steps", title_justify="left")
    for name in ("step", "what", "state"):
        table.add_column(name)
    for item in planned:
        state = "to do" if item.state == "new" else item.state
        table.add_row(item.step.name, item.step.title, escape(": ".join([state, *item.changes[:1]])))
    console.print(table)
    todo = {item.step.name for item in planned if item.state != "done"}
    for line in sizes.lines(done={step.name for step in made.steps()} - todo):
        console.print(line, markup=False, soft_wrap=True)
    if json:
        steps = [
            {
                "step": item.step.name,
                "title": item.step.title,
                "state": item.state,
                "changes": item.changes,
            }
            for item in planned
        ]
        _output.emit_json({"steps": steps, "estimate": sizes})
