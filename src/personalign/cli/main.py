"""The `personalign` command: a table of commands, each loaded only when it is the one asked for."""

import contextlib
import errno
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from personalign._version import __version__
from personalign.errors import PersonalignError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table. Targets are written `module:name` and name a function or a `typer.Typer`.

    `subcommands` adds functions of other modules to a target that is a `typer.Typer`.
    """

    target: str
    help: str
    subcommands: Mapping[str, str] = field(default_factory=dict)


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "quickstart": Command(
            "personalign.cli.quickstart:quickstart",
            "Train a small model that keeps its persona, in a few minutes.",
        ),
        "run": Command("personalign.cli.run:run", "Run a recipe: train, align, decode, print the table."),
        "pretrain": Command(
            "personalign.cli.pretrain:pretrain", "Train a small backbone of your own from dialogue text."
        ),
        "recipes": Command("personalign.cli.recipes:app", "List, show and copy the recipes that come along."),
        "chat": Command("personalign.cli.chat:chat", "Talk to a model, and see which persona line it chose."),
        "data": Command(
            "personalign.cli.data:app",
            "Show, count, validate, convert, split and label dialogue files.",
            subcommands=MappingProxyType({"label": "personalign.cli.label:label"}),
        ),
        "judge": Command("personalign.cli.judge:app", "Train and evaluate judges of consistency."),
        "extract": Command("personalign.cli.extract:app", "Find the facts in what people say, as triples."),
        "rank": Command("personalign.cli.rank:rank", "Rank candidate replies: hits@1 and reciprocal rank."),
        "evaluate": Command(
            "personalign.cli.evaluate:evaluate",
            "Score any system's predictions, with intervals and tests.",
        ),
        "report": Command(
            "personalign.cli.report:report", "Write a report on runs or predictions, as a page and as tables."
        ),
        "learn": Command(
            "personalign.cli.learn:learn", "Learn to talk like somebody from their exported chats."
        ),
        "metrics": Command("personalign.cli.metrics:app", "List and explain the metrics."),
        "merge": Command("personalign.cli.merge:merge", "Merge an adapter into its backbone."),
    }
)


def build_app(commands: Mapping[str, Command] = COMMANDS) -> typer.Typer:
    """The whole command line. Building it and printing its help import none of the targets."""
    app = typer.Typer(
        help="Give a language model a person to be, and keep it in character.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name, command in commands.items():
        # The stand-in leaves every argument, --help included, to the command that it loads.
        app.command(
            name,
            help=command.help,
            add_help_option=False,
            context_settings={
                "ignore_unknown_options": True,
                "allow_extra_args": True,
                "allow_interspersed_args": False,
            },
        )(_forward_to(command))
    return app


def _print_version(asked: bool) -> None:
    if asked:
        print(f"personalign {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options of `personalign` itself; Typer acts on them through their callbacks."""


def _forward_to(command: Command) -> Callable[[typer.Context], None]:
    def forward(context: typer.Context) -> None:
        with _ends_without_traceback():
            loaded: Any = _load(command)
            with loaded.make_context(context.info_name, list(context.args), parent=context.parent) as inner:
                loaded.invoke(inner)

    return forward


def _load(command: Command) -> Any:
    """The Click command behind a row. Typer carries its own copy of Click, hence no type to name."""
    loaded = _click_command(command.target)
    if command.subcommands:
        assert isinstance(loaded, TyperGroup), f"{command.target} takes no subcommands"
        for name, target in command.subcommands.items():
            loaded.add_command(_click_command(target), name)
    return loaded


def _click_command(target: str) -> Any:
    module_name, _, name = target.partition(":")
    value = getattr(importlib.import_module(module_name), name)
    if isinstance(value, typer.Typer):
        return typer.main.get_command(value)
    app = typer.Typer(add_completion=False)
    app.command(name)(value)
    return typer.main.get_command(app)


@contextlib.contextmanager
def _ends_without_traceback() -> Iterator[None]:
    try:
        yield
    except PersonalignError as error:
        _tell(str(error))
        raise typer.Exit(EXIT_ERROR) from error
    except UnicodeError as error:
        _tell(_said_of(error))
        raise typer.Exit(EXIT_ERROR) from error
    except OSError as error:
        # A reader that left, as `head` does, is no error; click ends quietly on it.
        if error.errno == errno.EPIPE:
            raise
        place = f"{error.filename}: " if error.filename is not None else ""
        _tell(f"{place}{error.strerror or error}")
        raise typer.Exit(EXIT_ERROR) from error
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from interrupt


def _tell(problem: str) -> None:
    from personalign.cli._output import clean

    # It may quote a file.
    print(f"error: {clean(problem)}", file=sys.stderr)


def _said_of(error: UnicodeError) -> str:
    if isinstance(error, UnicodeEncodeError):
        signs = error.object[error.start : error.end]
        if any("\ud800" <= sign <= "\udfff" for sign in signs):
            return (
                f"{signs[:10]!r} is half a character, which no file can hold; take it out of what was given"
            )
        return f"{signs[:10]!r} cannot be written in {error.encoding}; set PYTHONIOENCODING=utf-8"
    if isinstance(error, UnicodeDecodeError):
        return f"something that was read is not {error.encoding} ({error.reason}); convert it to UTF-8"
    return str(error)


app = build_app()


def main() -> None:
    app(prog_name="personalign")
