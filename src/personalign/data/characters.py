"""Transcripts in which either speaker is somebody: Cornell's films, LIGHT's episodes, ConvAI2's wild chats.

Every conversation is read once per speaker, with that one as the assistant; `person` tells whose sessions are whose, and
`conversation` which two readings are of one: splits keep them together.
"""

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personalign.data.faults import Fault, Row, Rows, kind
from personalign.data.native import default_id
from personalign.data.text import read_json_values, read_text

LINES, CONVERSATIONS = "movie_lines.txt", "movie_conversations.txt"
_FIELD = " +++$+++ "
_LINE_IDS = re.compile(r"L[0-9]+")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class _Transcript:
    """What was said by whom; `person` and `persona` of each speaker who is somebody."""

    id: str
    said: Sequence[tuple[str, str]]
    person: Mapping[str, str]
    persona: Mapping[str, Sequence[str]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One per speaker who says something to somebody; blank messages are left out."""
        said = [(speaker, text) for speaker, text in self.said if text.strip()]
        for number, (speaker, person) in enumerate(self.person.items()):
            if len({who == speaker for who, _ in said}) < 2:
                continue
            others = [other for other in self.person if other != speaker]
            yield {
                "id": f"{self.id}:{number}",
                "person": person,
                "conversation": self.id,
                "persona": list(self.persona.get(speaker, ())),
                "partner_persona": [line for other in others for line in self.persona.get(other, ())],
                "messages": [
                    {"role": "assistant" if who == speaker else "user", "content": text} for who, text in said
                ],
                **self.extra,
            }


def is_cornell(path: Path) -> bool:
    """Whether this is the folder, or the file of conversations, of the published Cornell corpus."""
    return (path.is_dir() and (path / CONVERSATIONS).is_file()) or path.name == CONVERSATIONS


def read_cornell(path: Path) -> Rows:
    """The published corpus: `movie_conversations.txt` and the `movie_lines.txt` beside it (ISO 8859-1)."""
    conversations = path / CONVERSATIONS if path.is_dir() else path
    lines = conversations.parent / LINES
    for needed in (conversations, lines):
        if not needed.is_file():
            remedy = f"name the corpus's folder, with {LINES} and {CONVERSATIONS}"
            return Rows((), (Fault(str(path), 0, "file", f"there is no {needed}", remedy),))
    texts: dict[str, tuple[str, str]] = {}
    names: dict[str, str] = {}
    faults: list[Fault] = []
    for number, cells in _cells(lines):
        if len(cells) < 5:
            faults.append(_short(lines, number, len(cells), "line, character, film, name and text"))
            continue
        texts[cells[0]] = cells[1], _FIELD.join(cells[4:])
        names[cells[1]] = cells[3]
    rows: list[Row] = []
    for number, cells in _cells(conversations):
        if len(cells) != 4:
            faults.append(_short(conversations, number, len(cells), "two characters, film and lines"))
            continue
        wanted = _LINE_IDS.findall(cells[3])
        missing = [name for name in wanted if name not in texts]
        if missing or not wanted:
            problem = f"{missing[0]} is not in {LINES}" if missing else f"names no lines: {cells[3]}"
            faults.append(
                Fault(str(conversations), number, "lines", problem, "use files of one edition of the corpus")
            )
            continue
        person = {who: f"{cells[2]}/{names.get(who, who)}" for who in dict.fromkeys(cells[:2])}
        transcript = _Transcript(
            f"cornell-{number}", [texts[name] for name in wanted], person, extra={"movie": cells[2]}
        )
        rows += (Row(number, value) for value in transcript.rows())
    return Rows(tuple(rows), tuple(faults))


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    text = path.read_bytes().decode("latin-1")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r").split(_FIELD)


def _short(path: Path, number: int, found: int, wanted: str) -> Fault:
    remedy = f"write {wanted}, parted by '{_FIELD}'"
    return Fault(str(path), number, "line", f"has {found} fields", remedy)


def read_transcripts(text: str, *, file: str) -> Rows:
    """JSON Lines with `turns` of `speaker` and `text`: films with `characters`, wild chats with two profiles."""
    values = read_json_values(text, file=file)
    rows: list[Row] = []
    faults = list(values.faults)
    for row in values.rows:
        problems = list(_turn_problems(row.value, file=file, line=row.line))
        faults += problems
        if not problems:
            read = _wild if "bot_profile" in row.value else _film
            transcript = read(row.value, default_id(file, row.line))
            rows += (Row(row.line, value) for value in transcript.rows())
    return Rows(tuple(rows), tuple(faults))


def _turn_problems(value: Any, *, file: str, line: int) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault(file, line, "line", f"is {kind(value)}", "write an object with `turns`")
        return
    turns = value.get("turns")
    if not isinstance(turns, list):
        yield Fault(file, line, "turns", f"is {kind(turns)}", 'write a list of {"speaker": ..., "text": ...}')
        return
    for number, turn in enumerate(turns):
        for name in ("speaker", "text"):
            said = turn.get(name) if isinstance(turn, dict) else None
            if not isinstance(said, str):
                yield Fault(file, line, f"turns[{number}].{name}", f"is {kind(said)}", "write a string")
    for name in ("characters", "bot_profile", "user_profile"):
        given = value.get(name)
        if given is not None and not (
            isinstance(given, list) and all(isinstance(item, str) for item in given)
        ):
            yield Fault(file, line, name, f"is {kind(given)}", "write a list of strings")


def _film(value: Mapping[str, Any], name: str) -> _Transcript:
    said = [(turn["speaker"], turn["text"]) for turn in value["turns"]]
    film = str(value.get("movie", ""))
    speakers = dict.fromkeys([*(value.get("characters") or ()), *(speaker for speaker, _ in said)])
    person = {speaker: f"{film}/{speaker}" if film else speaker for speaker in speakers}
    return _Transcript(
        str(name if value.get("id") is None else value["id"]),
        said,
        person,
        extra={"movie": film} if film else {},
    )


def _wild(value: Mapping[str, Any], name: str) -> _Transcript:
    """participant2 has the bot's profile, participant1 the user's. Speakers without a profile are nobody's sessions."""
    profiles = {"participant1": value.get("user_profile"), "participant2": value.get("bot_profile")}
    persona = {speaker: [line for line in lines or () if line.strip()] for speaker, lines in profiles.items()}
    person = {speaker: "; ".join(sorted(lines)) for speaker, lines in persona.items() if lines}
    return _Transcript(
        str(name if value.get("id") is None else value["id"]),
        [(t["speaker"], t["text"]) for t in value["turns"]],
        person,
        persona,
    )


def read_light(path: Path) -> Rows:
    """LIGHT's episodes, as the published pickle or as JSON: `agents`, and `character` and `speech` per turn."""
    file = str(path)
    if not path.is_file():
        return Rows((), (Fault(file, 0, "file", "is a folder", "name the file of LIGHT's episodes"),))
    if path.suffix.lower() == ".pkl":
        try:
            with path.open("rb") as stream:
                episodes = _PlainUnpickler(stream).load()
        except (
            pickle.UnpicklingError,
            EOFError,
            ValueError,
            IndexError,
            KeyError,
            AttributeError,
            TypeError,
            OverflowError,
            MemoryError,
            UnicodeError,
        ) as error:
            remedy = "download it again; only plain lists, objects and texts are read from a pickle"
            return Rows((), (Fault(file, 0, "file", f"no pickle of episodes: {error}", remedy),))
        values = [Row(number, episode) for number, episode in enumerate(_list(episodes), start=1)]
    else:
        text, faults = read_text(path)
        if faults:
            return Rows((), faults)
        read = read_json_values(text, file=file)
        if read.faults:
            return read
        values = list(read.rows)
    rows: list[Row] = []
    problems: list[Fault] = []
    for row in values:
        fault = _episode_problem(row.value, file=file, line=row.line)
        if fault is not None:
            problems.append(fault)
        else:
            rows += (Row(row.line, value) for value in _episode(row.value, row.line).rows())
    return Rows(tuple(rows), tuple(problems))


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, lists and the like; a pickle that names anything else could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not read")


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else [value]


def _episode_problem(value: Any, *, file: str, line: int) -> Fault | None:
    agents = value.get("agents") if isinstance(value, dict) else None
    named = isinstance(agents, list) and all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in agents
    )
    if not named:
        return Fault(file, line, "agents", "is no list of agents with names", "give LIGHT's episodes")
    assert isinstance(agents, list)
    if len({item["name"] for item in agents}) < len(agents):
        return Fault(
            file, line, "agents", "two have one name", "give each agent a name of its own, or take it out"
        )
    speech, speakers = value.get("speech"), value.get("character")
    if not isinstance(speech, list) or not isinstance(speakers, list) or len(speech) != len(speakers):
        return Fault(file, line, "speech", "is no list as long as `character`", "give LIGHT's episodes")
    return None


def _episode(value: Mapping[str, Any], number: int) -> _Transcript:
    agents = {item["name"]: str(item.get("persona") or "") for item in value["agents"]}
    said = [
        (str(speaker), text)
        for speaker, text in zip(value["character"], value["speech"], strict=True)
        if isinstance(text, str)
    ]
    return _Transcript(
        f"light-{number}",
        said,
        {name: f"{name}: {persona}" if persona else name for name, persona in agents.items()},
        {
            name: [line for line in _SENTENCE.split(persona) if line.strip()]
            for name, persona in agents.items()
        },
    )
