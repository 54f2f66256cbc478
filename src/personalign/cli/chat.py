"""`personalign chat`: talk to a model in the terminal."""

import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personalign.cli._conversation import Conversation
from personalign.cli._output import emit_json, message_console, quieten
from personalign.cli._persona import checked, read_persona
from personalign.cli._terminal import Terminal
from personalign.errors import PersonalignError

if TYPE_CHECKING:
    from personalign.data.dialogue import Dialogue
    from personalign.methods.opening import Model


class Strategy(StrEnum):
    greedy = "greedy"
    sample = "sample"
    beam = "beam"


class SelectionName(StrEnum):
    predicted = "predicted"
    random = "random"
    unselected = "unselected"


def chat(
    source: Annotated[
        str, typer.Argument(help="A run, a model or adapter folder, a hub id, or personalign-mini.")
    ],
    persona: Annotated[
        Path | None,
        typer.Option(help="File with a persona line per line of text, a JSON list, or a dialogue."),
    ] = None,
    line: Annotated[list[str] | None, typer.Option(help="A persona line. May be repeated.")] = None,
    sessions: Annotated[
        Path | None,
        typer.Option(
            help="Earlier conversations of the one who is played (dialogues), for a model that learnt from such."
        ),
    ] = None,
    person: Annotated[str | None, typer.Option(help="Whose of the sessions.")] = None,
    selection: Annotated[
        SelectionName | None,
        typer.Option(
            help="Who chooses the line: the model, chance, or nobody, as for a model that learnt from sessions."
        ),
    ] = None,
    strategy: Annotated[
        Strategy | None, typer.Option(help="How replies are decoded; the model's own way by default.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.01, help="For sampling, which it implies.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="For sampling, which it implies.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.01, max=1.0, help="For sampling, which it implies.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="The longest reply, in tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling and of random selection.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Talk to a model, and see which persona line it chose. /help lists the commands."""
    changes = _sampling(strategy, temperature=temperature, top_k=top_k, top_p=top_p)
    lines = _persona_lines(persona, line or [])
    if lines and sessions is not None:
        raise PersonalignError("a persona and --sessions: give one of the two")
    past = _sessions(sessions, person)
    from personalign.decoding.chat import ChatSession
    from personalign.methods.opening import open_model

    quieten()

    message_console().print(f"Loading {source} ...", markup=False, style="dim", soft_wrap=True)
    model = open_model(source, device=device, seed=seed)
    if max_new_tokens is not None:
        changes["max_new_tokens"] = max_new_tokens
    _check_room(model, changes.get("max_new_tokens", model.decoding.max_new_tokens))
    # A persona that is given stands in for the sessions that came with the model.
    told = () if lines else _told(model, past)
    chosen = selection or (SelectionName.unselected if told else SelectionName(model.selection.strategy))
    session = ChatSession(
        model.loaded,
        model.prompter,
        selection=replace(model.selection, strategy=chosen.value),
        decoding=replace(model.decoding, **changes),
    )
    terminal = Terminal(interactive=sys.stdin.isatty())
    played = () if told else lines or _first_example(model)
    messages = tuple(turn for item in told for turn in item.messages)
    conversation = Conversation(session, terminal, persona=played, told=messages)
    if told:
        whose = told[0].person or "one person"
        terminal.show(
            f"Chat with {model.source}. /help lists the commands.\n"
            f"It was told {len(told)} earlier sessions of {whose}, {len(messages)} messages.",
            style="dim",
        )
    else:
        terminal.show(_introduction(model, given=bool(lines)), style="dim")
        conversation.show_persona()
    conversation.run()
    if json:
        emit_json({"source": source, "dialogue": conversation.row()})


def _sampling(strategy: Strategy | None, **values: float | None) -> dict[str, Any]:
    """The decoding settings that were given."""
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    if given and strategy not in (None, Strategy.sample):
        option = "--" + next(iter(given)).replace("_", "-")
        raise PersonalignError(f"{option} is for sampling; write --strategy sample, or leave {option} out")
    if strategy is not None or given:
        given["strategy"] = (strategy or Strategy.sample).value
    return given


def _check_room(model: "Model", max_new_tokens: int) -> None:
    """Refuse at once what would fail only when the conversation has become long."""
    longest, budget = model.loaded.plan.longest, model.prompter.settings.budget
    if longest is not None and budget + max_new_tokens > longest:
        raise PersonalignError(
            f"--max-new-tokens is {max_new_tokens}, but the model takes {longest} tokens, and prompts may have "
            f"{budget} of them; write {longest - budget} or fewer"
        )


def _persona_lines(path: Path | None, lines: list[str]) -> tuple[str, ...]:
    from_file = read_persona(path) if path is not None else ()
    return (*from_file, *(checked(tuple(lines), source="--line") if lines else ()))


def _sessions(path: Path | None, person: str | None) -> list["Dialogue"]:
    """The sessions that were given, of the person who was named."""
    if path is None:
        if person is not None:
            raise PersonalignError("--person says whose sessions; give them with --sessions FILE")
        return []
    from personalign.data.formats import read_dialogues
    from personalign.data.people import people_of

    try:
        read = read_dialogues(str(path))
    except PersonalignError as error:
        raise PersonalignError(
            f"{error}\n--sessions takes dialogues; of a chat that was exported, `personalign data import` makes them"
        ) from None
    if person is None:
        return read
    found = next((item for item in people_of(read) if item.name == person), None)
    if found is None:
        names = ", ".join(item.name for item in people_of(read)[:8])
        raise PersonalignError(
            f"{path}: nobody here is called '{person}'; write one of: {names or 'nobody is named'}"
        )
    return list(found.sessions)


def _told(model: "Model", past: list["Dialogue"]) -> tuple["Dialogue", ...]:
    """What the model is told before the chat: the sessions given, else those that came with it."""
    if not past:
        return model.sessions
    from personalign.methods.learn import told_before_chat

    return told_before_chat(past, model.prompter, model.remembers)


def _first_example(model: "Model") -> tuple[str, ...]:
    return model.examples[0] if model.examples else ()


def _introduction(model: "Model", *, given: bool) -> str:
    if given:
        persona = "Its persona:"
    elif model.examples:
        persona = (
            "No persona was given, so it plays an example that came with it (--persona, --line, /persona):"
        )
    else:
        persona = "No persona was given, and none came with it (--persona, --line, /persona):"
    return f"Chat with {model.source}. /help lists the commands.\n{persona}"
