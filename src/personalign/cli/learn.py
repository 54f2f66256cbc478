"""`personalign learn`: from somebody's exported chat to a model that talks like them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from personalign._files import write_jsonl, write_text
from personalign.cli import _output
from personalign.cli.exports import (
    HOURS,
    ChatFormat,
    ChatName,
    Columns,
    Dates,
    Export,
    Person,
    Silence,
    read_sessions,
    tell_losses,
)
from personalign.cli.reporter import TerminalReporter
from personalign.cli.run import interruptible, resuming
from personalign.data.dialogue import Dialogue
from personalign.data.native import dialogue_to_row
from personalign.errors import PersonalignError
from personalign.methods.recipe import read_recipe, recipe_yaml

_SHOWN_FACTS = 40
_CHINESE = 0.2


def learn(
    export: Export,
    person: Person,
    out: Annotated[Path | None, typer.Option(help="Folder; runs/learn-NAME by default.")] = None,
    model: Annotated[
        str, typer.Option(help="What learns: a model or adapter folder, or a hub id.")
    ] = "personalign-mini",
    extractor: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a fact extractor. Without one, sentences in the first person are shown."
        ),
    ] = None,
    strike: Annotated[
        list[int] | None, typer.Option(help="Number of a fact that is not to be learnt. May be repeated.")
    ] = None,
    all_facts: Annotated[
        bool, typer.Option("--all-facts", help="List every fact, not the first forty.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask which facts to strike.")] = False,
    latest: Annotated[int, typer.Option(min=1, help="How many sessions are learnt from, the latest.")] = 200,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 60,
    learning_rate: Annotated[float, typer.Option(help="Of the adapter.")] = 1e-3,
    max_tokens: Annotated[int, typer.Option(min=64, help="Longest prompt, in tokens.")] = 896,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps.")] = "auto",
    silence: Silence = HOURS,
    format: ChatFormat = None,
    chat: ChatName = None,
    date_order: Dates = None,
    column: Columns = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --out as it was begun, whatever else is asked.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Learn to talk like somebody from an exported chat: sessions, facts, an adapter. Nothing leaves the machine.

    Ask everybody who wrote before you do: the model may repeat what they said.
    """
    from personalign.methods.learn import LearnRun, learn_recipe
    from personalign.methods.models import SESSIONS

    console = _output.output_console()
    kept: list[Dialogue] | None = None
    found: dict[str, Any] = {}
    if resume:
        if out is None or not (out / SESSIONS).is_file():
            raise PersonalignError("--resume goes on with a folder that was begun; name it with --out")
        # As it was begun, whatever else this command says.
        folder, recipe = out, learn_recipe(read_recipe(out / "recipe.yaml"))
    else:
        log, read = read_sessions(
            export, person, silence, format=format, chat=chat, date_order=date_order, column=column
        )
        folder = out or Path("runs") / f"learn-{_slug(read.person)}"
        if any((folder / "steps").glob("*.json")):
            raise PersonalignError(
                f"{folder} has learnt somebody already; add --resume --out {folder} to go on, or name another folder "
                "with --out"
            )
        sessions = list(read.dialogues)[-latest:]
        recipe = learn_recipe(
            _values(
                folder.name,
                language=_language(sessions),
                model=model,
                extractor=extractor,
                steps=steps,
                learning_rate=learning_rate,
                max_tokens=max_tokens,
                seed=seed,
                device=device,
            )
        )
        tell_losses(export, log, read)
        replies = sum(len(item.reply_indices()) for item in sessions)
        console.print(
            f"{read.person}: {len(read.dialogues):,} sessions in {read.messages:,} messages, {read.first:%Y-%m-%d} to "
            f"{read.last:%Y-%m-%d}; the latest {len(sessions):,} are learnt from, with {replies:,} replies",
            markup=False,
            soft_wrap=True,
        )
        ask = not yes and sys.stdin.isatty()
        kept, found = _struck(sessions, extractor, strike or [], ask=ask, every=all_facts)
    _output.quieten()
    if kept is not None:
        write_text(folder / "recipe.yaml", recipe_yaml(recipe))
        write_jsonl(folder / SESSIONS, map(dialogue_to_row, kept))
    run = LearnRun(recipe, folder, reporter=TerminalReporter(), resume=resume)
    again = resuming("learn", str(export), "--person", person, out=folder, set_=None, json=json)
    records = interruptible(run.run, again=again)
    told = records["model"]["told"]
    console.print(
        f"Learnt from {records['stage1']['sessions']} sessions in {records['stage1']['steps']} steps; "
        f"{len(told)} of them are told before a chat.",
        markup=False,
        soft_wrap=True,
    )
    console.print(f"Talk to it: {_output.program()} chat {folder}", markup=False, soft_wrap=True)
    if json:
        _output.emit_json({"folder": folder, "steps": records, **found})


def _values(
    name: str,
    *,
    language: str,
    model: str,
    extractor: Path | None,
    steps: int,
    learning_rate: float,
    max_tokens: int,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """The recipe that the options stand for."""
    return {
        "name": name,
        "language": language,
        "seed": seed,
        "backbone": {"name": model, "device": device, "lora": {"r": 16, "alpha": 32}},
        "prompts": {"max_tokens": max_tokens, "reserve": 40},
        "sessions": {
            "identification": "every",
            "supervise": "every",
            "extractor": None if extractor is None else str(extractor),
        },
        "stages": {
            "stage1": {
                "learning_rate": learning_rate,
                "batch_examples": 16,
                "steps": steps,
                "warmup_steps": min(5, steps - 1),
                "schedule": "linear",
                "max_grad_norm": 1.0,
                "save_every": 20,
            }
        },
        "decoding": {"max_new_tokens": 40},
    }


def _struck(
    sessions: list[Dialogue], extractor: Path | None, strike: list[int], *, ask: bool, every: bool
) -> tuple[list[Dialogue], dict[str, Any]]:
    """Show the facts with their sentences; the sessions without those that are struck."""
    from personalign.methods.extractors import open_extractor
    from personalign.methods.learn import facts_of, without_facts
    from personalign.personas.statements import Statements

    language = _language(sessions)
    finder = (
        None if extractor is None else open_extractor(str(extractor), language=language)
    ) or Statements()
    facts = facts_of(sessions, finder)
    console = _output.output_console()
    console.print(f"{len(facts):,} facts, found as {finder.name}:", markup=False, soft_wrap=True)
    shown = facts if every else facts[:_SHOWN_FACTS]
    for number, found in enumerate(shown, start=1):
        said = " ".join(found.text.split())
        subject, relation, thing = found.fact
        line = said if relation == "say" else f"{subject} {relation} {thing}: {said}"
        console.print(f"  {number:3} {line[:160]}", markup=False, soft_wrap=True)
    if len(facts) > len(shown):
        console.print(f"  ... and {len(facts) - len(shown):,} more (--all-facts)", markup=False)
    numbers = list(strike)
    if ask and facts:
        answer = typer.prompt("Strike which? Numbers, or nothing", default="", show_default=False)
        numbers += [_number(word) for word in answer.replace(",", " ").split()]
    if wrong := [number for number in numbers if not 1 <= number <= len(facts)]:
        raise PersonalignError(
            f"--strike {wrong[0]}: there are {len(facts)} facts; write a number of the list"
        )
    kept, gone = sessions, 0
    if numbers:
        kept, gone = without_facts(sessions, [facts[number - 1].fact for number in numbers], finder)
        console.print(f"{gone} messages left out, which state what was struck", markup=False)
    if not kept:
        raise PersonalignError("nothing is left to learn from; strike less")
    listed = [
        {"number": number, "fact": list(item.fact), "text": item.text, "session": sessions[item.session].id}
        for number, item in enumerate(facts, start=1)
    ]
    return kept, {"facts": listed, "struck": numbers, "messages_left_out": gone}


def _number(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise PersonalignError(f"'{word}' is no number of the list; write numbers, as in 3 7") from None


def _language(sessions: list[Dialogue]) -> str:
    """Chinese where a good part of what is said is Chinese characters, else English."""
    text = "".join(turn.content for item in sessions for turn in item.messages)
    signs = [sign for sign in text if sign.isalpha()]
    chinese = sum("一" <= sign <= "鿿" for sign in signs)
    return "zh" if signs and chinese / len(signs) > _CHINESE else "en"


def _slug(name: str) -> str:
    words = "".join(sign if sign.isalnum() else "-" for sign in name).strip("-")
    return words or "somebody"
