"""`personalign learn`: from somebody's exported chat to a model that talks like them."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from personalign.methods.steps import alone_in

_SHOWN_FACTS = 40
_CHINESE, _KANA, _LATIN = 0.2, 0.2, 0.5
# English: of at least so many messages of so many words, so large a share has one of these.
_LONGER, _SHARE = 5, 0.3
_ENGLISH = frozenset(
    [
        "the",
        "and",
        "you",
        "your",
        "are",
        "that",
        "this",
        "have",
        "with",
        "what",
        "it's",
        "i'm",
        "don't",
        "not",
        "they",
        "there",
        "just",
        "my",
        "was",
        "were",
        "like",
        "know",
        "think",
        "would",
        "about",
        "because",
        "want",
        "work",
        "from",
        "going",
        "at",
    ]
)
FEW_SESSIONS = 5


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
    strike_word: Annotated[
        list[str] | None,
        typer.Option(help="A word; no message that has it is learnt, whoever wrote it. May be repeated."),
    ] = None,
    all_facts: Annotated[
        bool, typer.Option("--all-facts", help="List every fact, not the first forty.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask which facts to strike.")] = False,
    latest: Annotated[int, typer.Option(min=1, help="How many sessions are learnt from, the latest.")] = 200,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 60,
    learning_rate: Annotated[float, typer.Option(help="Of the adapter.")] = 2e-4,
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
    from personalign.methods.idl_lineup import counted
    from personalign.methods.learn import LearnRun, learn_recipe
    from personalign.methods.models import SESSIONS

    console = _output.output_console()
    kept: list[Dialogue] | None = None
    found: dict[str, Any] = {}
    if resume:
        if out is None or not (out / SESSIONS).is_file():
            raise PersonalignError(
                f"{out or '--resume'}: nothing was begun there; name with --out the folder to go on with"
            )
        if strike or strike_word:
            raise PersonalignError(
                f"--resume goes on with what {out} was begun with, so nothing can be struck any more; learn anew into "
                "another folder"
            )
        # As it was begun, whatever else this command says.
        folder, recipe = out, learn_recipe(read_recipe(out / "recipe.yaml"))
    else:
        log, read = read_sessions(
            export, person, silence, format=format, chat=chat, date_order=date_order, column=column
        )
        folder = out or Path("runs") / f"learn-{_slug(read.person)}"
        if (folder / "steps" / "stage1.json").is_file():
            raise PersonalignError(
                f"{folder} has learnt somebody already; add --resume --out {folder} to go on, or name another folder "
                "with --out"
            )
        sessions = list(read.dialogues)[-latest:]
        if not (yes or strike or strike_word or sys.stdin.isatty()):
            raise PersonalignError(
                "nobody can be asked here which facts are not to be learnt; add --yes to learn all of them, or --strike"
            )
        language = _language(sessions)
        foreign = language == "en" and not _reads_as_english(sessions)
        _check_model(model, language, foreign=foreign)
        if foreign and extractor is None:
            console.print(
                "The chat seems to be neither English nor Chinese: what the person says of themselves is found by "
                "English and Chinese words alone. Look yourself for what is not to be learnt (--strike-word), or name an "
                "extractor",
                soft_wrap=True,
            )
        recipe = learn_recipe(
            _values(
                folder.name,
                language=language,
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
        _print(
            f"{read.person}: {counted(len(read.dialogues))} in {read.messages:,} messages, {read.first:%Y-%m-%d} to "
            f"{read.last:%Y-%m-%d}; the latest {len(sessions):,} are learnt from, with {replies:,} replies"
        )
        if len(sessions) < FEW_SESSIONS:
            console.print(
                f"That is little to learn from. Sessions end where nobody writes for {silence:g} hours; --silence takes "
                "another number",
                soft_wrap=True,
            )
        if person != read.person:
            _print(f"'{person}' is read as {read.person}")
        ask = not yes and sys.stdin.isatty()
        strikes = Strikes(strike or [], strike_word or [])
        kept, found = _struck(sessions, extractor, strikes, language=language, ask=ask, every=all_facts)
    _output.quieten()
    if kept is not None:
        folder.mkdir(parents=True, exist_ok=True)
        # Somebody else's learning in this folder must not find other sessions under it.
        with alone_in(folder):
            write_text(folder / "recipe.yaml", recipe_yaml(recipe))
            write_jsonl(folder / SESSIONS, map(dialogue_to_row, kept))
    run = LearnRun(recipe, folder, reporter=TerminalReporter(), resume=resume)
    again = resuming("learn", str(export), "--person", person, out=folder, set_=None, json=json)
    records = interruptible(run.run, again=again)
    told = records["model"]["told"]
    console.print(
        f"Learnt from {counted(records['stage1']['sessions'])} in {records['stage1']['steps']} steps"
        f"{', one held out to know when to stop' if records['stage1']['held_out'] else ''}; {len(told)} of the latest "
        f"{'is' if len(told) == 1 else 'are'} told before a chat.",
        markup=False,
        soft_wrap=True,
    )
    if not told:
        console.print(
            "No session of theirs fits into a chat's prompt: a chat begins with nothing", soft_wrap=True
        )
    _output.print_command(console, "Talk to it:", "chat", folder)
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
                # On the latest session, where there are enough to hold it out.
                "evaluate_every": min(5, steps),
                "patience": 3,
            }
        },
        "decoding": {"max_new_tokens": 40},
    }


@dataclass(frozen=True, slots=True)
class Strikes:
    """What is not to be learnt: facts by their numbers, and words."""

    numbers: list[int]
    words: list[str]


def _check_model(model: str, language: str, *, foreign: bool) -> None:
    """Before anybody has gone through a list of facts; `foreign`: neither English nor Chinese."""
    from personalign._mini import MINI, is_mini, shipped_model
    from personalign.models import load_tokenizer

    if is_mini(model) and (foreign or language != "en"):
        spoken = "is Chinese" if language == "zh" else "seems to be in another language"
        raise PersonalignError(
            f"the chat {spoken}, and {MINI} knows English alone; name a model with --model"
        )
    load_tokenizer(str(shipped_model(model)))


def _struck(
    sessions: list[Dialogue],
    extractor: Path | None,
    strikes: Strikes,
    *,
    language: str,
    ask: bool,
    every: bool,
) -> tuple[list[Dialogue], dict[str, Any]]:
    """Show the facts with their sentences; the sessions without what is struck."""
    from personalign.methods.extractors import open_extractor
    from personalign.methods.learn import facts_of, mentions, without_facts
    from personalign.personas.statements import Statements, messages_with

    finder = (
        None if extractor is None else open_extractor(str(extractor), language=language)
    ) or Statements()
    facts = facts_of(sessions, finder)
    _print(f"{len(facts):,} facts, found as {finder.name}:")
    # Who is asked must see all.
    shown = facts if every or ask else facts[:_SHOWN_FACTS]
    for number, found in enumerate(shown, start=1):
        subject, relation, thing = found.fact
        line = thing if relation == "say" else f"{subject} {relation} {thing}: {found.text}"
        _print(f"  {number:3} {' '.join(line.split())[:160]}")
    if len(facts) > len(shown):
        _print(f"  ... and {len(facts) - len(shown):,} more (--all-facts)")
    if wrong := [number for number in strikes.numbers if not 1 <= number <= len(facts)]:
        raise PersonalignError(
            f"--strike {wrong[0]}: there are {len(facts)} facts; write a number of the list"
        )
    said = [turn.content for item in sessions for turn in item.messages]
    numbers, hits = list(strikes.numbers), messages_with(said, strikes.words)
    _check_words(hits)
    if ask:
        more, more_hits = _asked(len(facts), said)
        numbers, hits = [*numbers, *more], hits | more_hits
    kept, gone = sessions, 0
    if numbers or hits:
        for word, count in hits.items():
            _print(f"{word}: in {count:,} messages")
        chosen = [facts[number - 1].fact for number in numbers]
        kept, gone = without_facts(sessions, chosen, finder, words=hits)
        _print(f"{gone} messages left out, which state what was struck")
        if left := mentions(kept, chosen):
            named = ", ".join(f"{word} ({count})" for word, count in left.items())
            _print(
                f"Words of these facts that other messages still have: {named}. They are learnt; --strike-word WORD "
                "leaves out every message with a word"
            )
    if not kept:
        raise PersonalignError("nothing is left to learn from; strike less")
    listed = [
        {"number": number, "fact": list(item.fact), "text": item.text, "session": sessions[item.session].id}
        for number, item in enumerate(facts, start=1)
    ]
    return kept, {
        "facts": listed,
        "struck": numbers,
        "struck_words": list(hits),
        "messages_with_word": hits,
        "messages_left_out": gone,
    }


def _print(text: str) -> None:
    """Somebody's words among others: nothing in them is markup, and the terminal obeys none of their signs."""
    _output.output_console().print(_output.clean(text), markup=False, emoji=False, soft_wrap=True)


def _check_words(hits: Mapping[str, int]) -> None:
    """A word that is nowhere is most likely misspelt, and what it is about would be learnt."""
    if missed := [word for word, count in hits.items() if not count]:
        raise PersonalignError(
            f"strike word '{missed[0]}': no message that would be learnt from has it, so it would strike nothing; write "
            "the word as it stands in the chat, or leave it out"
        )


def _asked(facts: int, said: Sequence[str]) -> tuple[list[int], dict[str, int]]:
    """The numbers and the words of the answer, these with how many messages have them; asks until it can be read."""
    from personalign.personas.statements import messages_with

    while True:
        try:
            answer = input("Strike which? Numbers (3 7-9), words that no message may have, or nothing: ")
        except EOFError:
            return [], {}
        try:
            strikes = read_strikes(answer, facts=facts)
            hits = messages_with(said, strikes.words)
            _check_words(hits)
        except PersonalignError as error:
            _output.message_console().print(f"{error}", markup=False, emoji=False)
        else:
            return strikes.numbers, hits


def read_strikes(text: str, *, facts: int) -> Strikes:
    """Raises PersonalignError for a number that no fact has."""
    numbers: list[int] = []
    words: list[str] = []
    for part in re.split(r"[\s,;]+", text.strip()):
        if match := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
            first, last = int(match[1]), int(match[2] or match[1])
            if not 1 <= first <= last <= facts:
                raise PersonalignError(f"{part}: the facts have the numbers 1 to {facts}")
            numbers += range(first, last + 1)
        elif part and part.lower() not in ("none", "nothing", "no"):
            words.append(part)
    return Strikes(numbers, words)


def _language(sessions: list[Dialogue]) -> str:
    """Chinese where a good part of what is said is Chinese characters, else English.

    Japanese has them, too, but hardly a sentence without kana.
    """
    letters = _letters(sessions)
    chinese = sum("\u4e00" <= sign <= "\u9fff" for sign in letters)
    kana = sum("\u3041" <= sign <= "\u30ff" or "\uff66" <= sign <= "\uff9d" for sign in letters)
    enough = bool(letters) and chinese / len(letters) > _CHINESE
    return "zh" if enough and kana <= _KANA * (kana + chinese) else "en"


def _reads_as_english(sessions: list[Dialogue]) -> bool:
    """Whether it is in Latin letters, and enough of the longer messages have one of the commonest English words.

    Of few messages nobody knows.
    """
    letters = _letters(sessions)
    if sum(sign.isascii() for sign in letters) < _LATIN * len(letters):
        return False
    cut = [re.findall(r"[^\W\d_]+(?:['’]\w+)?", text.lower()) for item in sessions for text in item.said()]
    longer = [set(words) for words in cut if len(words) >= _LONGER]
    return len(longer) < _LONGER or sum(bool(words & _ENGLISH) for words in longer) >= _SHARE * len(longer)


def _letters(sessions: list[Dialogue]) -> list[str]:
    return [sign for item in sessions for turn in item.messages for sign in turn.content if sign.isalpha()]


def _slug(name: str) -> str:
    words = "".join(sign if sign.isalnum() else " " for sign in name).split()
    return "-".join(words) or "somebody"
