"""Write, read, compare; and no bytes whatever raise anything but the one error."""

import gzip
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import Format, parse, read_dialogues, write_dialogues
from personalign.data.native import FIELDS
from personalign.errors import PersonalignError

VISIBLE = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
TEXT = st.text(VISIBLE, min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
# What ParlAI's text has marks for cannot be content there.
PARLAI_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00\t\r|\\"), min_size=1, max_size=12
).filter(lambda text: bool(text.strip()) and text != "__SILENCE__")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def dialogues(draw: st.DrawFn, *, text: st.SearchStrategy[str] = TEXT, id: str = "d") -> Dialogue:
    persona = draw(st.lists(text, max_size=4))
    roles = draw(st.lists(st.sampled_from(["user", "assistant"]), max_size=6))
    messages = tuple(Turn(role, draw(text)) for role in roles)  # type: ignore[arg-type]
    replies = [turn.content for turn in messages if turn.role == "assistant"]
    candidates = [
        (*draw(st.lists(text, max_size=2)), reply) if draw(st.booleans()) else () for reply in replies
    ]
    lines = st.lists(st.integers(0, len(persona) - 1), unique=True) if persona else st.just([])
    return Dialogue(
        id=id,
        persona=tuple(persona),
        messages=messages,
        partner_persona=tuple(draw(st.lists(text, max_size=2))),
        candidates=tuple(candidates) if draw(st.booleans()) else None,
        relevant=tuple(tuple(draw(lines)) for _ in replies) if draw(st.booleans()) else None,
        person=draw(st.none() | TEXT),
        extra=draw(st.dictionaries(TEXT.map(lambda key: f"x {key}"), JSON_VALUES, max_size=2)),
    )


@settings(max_examples=80, deadline=None)
@given(dialogues(id="a"), dialogues(id="b"), st.sampled_from(["rows.jsonl", "rows.jsonl.gz"]))
def test_native_round_trip(first: Dialogue, second: Dialogue, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        assert write_dialogues(path, [first, second]) == 2
        assert read_dialogues(path) == [first, second]


@settings(max_examples=80, deadline=None)
@given(st.lists(dialogues(text=PARLAI_TEXT), min_size=1, max_size=3))
def test_parlai_round_trip_of_what_it_carries(given_dialogues: list[Dialogue]) -> None:
    carried = [d for d in given_dialogues if d.persona or d.partner_persona or d.messages]
    if not carried:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.txt"
        write_dialogues(path, carried, format="parlai")
        read = read_dialogues(path, format="parlai")
    assert len(read) == len(carried)
    for before, after in zip(carried, read, strict=True):
        assert after.persona == before.persona
        assert after.partner_persona == before.partner_persona
        assert after.messages == before.messages
        assert after.candidates == (before.candidates if any(before.candidates or ()) else None)


@st.composite
def alternating(draw: st.DrawFn) -> Dialogue:
    texts = draw(st.lists(TEXT, min_size=1, max_size=8, unique=True))
    first = draw(st.integers(0, 1)) if len(texts) > 1 else 1
    roles = ("user", "assistant")
    messages = tuple(Turn(roles[(first + i) % 2], text) for i, text in enumerate(texts))  # type: ignore[arg-type]
    messages = messages[:-1] if messages[-1].role == "user" else messages
    persona = tuple(draw(st.lists(TEXT, max_size=3)))
    lines = st.lists(st.integers(0, len(persona) - 1), unique=True) if persona else st.just([])
    replies = sum(turn.role == "assistant" for turn in messages)
    return Dialogue("d", persona, messages, relevant=tuple(tuple(draw(lines)) for _ in range(replies)))


@settings(max_examples=80, deadline=None)
@given(st.lists(alternating(), min_size=1, max_size=3), st.sampled_from([None, 3]))
def test_pal_round_trip_with_and_without_its_window(
    given_dialogues: list[Dialogue], window: int | None
) -> None:
    from personalign.data.pal import tuples_from

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        path.write_text(json.dumps(list(tuples_from(given_dialogues, window=window))), encoding="utf-8")
        read = read_dialogues(path, format="pal")
    expected = [(d.persona, d.messages, d.relevant) for d in given_dialogues]
    assert [(d.persona, d.messages, d.relevant) for d in read] == expected


VALID = {
    "native": b'{"id": "a", "persona": ["i a."], "messages": [{"role": "assistant", "content": "h\xc3\xbc"}],'
    b'"candidates": [["h\xc3\xbc"]], "relevant": [[0]], "n": 1.5e3}\n{"messages": []}\n',
    "array": b'[{"messages": [{"role": "user", "content": "hi"}]},\n {"messages": []}]',
    "parlai": b"1 your persona: a\n2 hi\tyo\t\tno|yo\n1 __SILENCE__\tyo\n2 bye\n",
    "pal": b'[[["a"], ["b"], "c", [0]], [["a"], ["b", "c", "d"], "e", [-1]]]',
    "sharegpt": b'[{"conversations": [{"from": "system", "value": "a"}, {"from": "human", "value": "b"}]}]',
    "csv": b'persona,messages,relevant\n"a","b\nc","[[0]]"\n',
    "replies.csv": b'persona,history,response,relevant\n"a","b","c","[0]"\n"a","b\nc\nd","e",[]\n',
}
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1), st.integers(0, 3), st.sampled_from([*b'[]{}",:\\\t\n\r |0-9\x00\xff\xfe\xd8u'])
    )
)


def mutated(data: bytes, edits: list[tuple[float, int, int]]) -> bytes:
    changed = bytearray(data)
    for where, action, byte in edits:
        place = int(where * len(changed))
        match action:
            case 0:
                changed[place : place + 1] = bytes([byte])
            case 1:
                changed.insert(place, byte)
            case 2:
                del changed[place : place + 1]
            case _:
                del changed[place:]
    return bytes(changed)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(VALID)),
    EDITS,
    st.booleans(),
    st.sampled_from([None, "native", "parlai", "pal", "sharegpt", "hub"]),
    st.booleans(),
)
def test_mutated_bytes_are_dialogues_or_faults(
    kind: str,
    edits: list[tuple[float, int, int]],
    compress_first: bool,
    format: Format | None,
    mend: bool,
) -> None:
    data = mutated(gzip.compress(VALID[kind], mtime=0) if compress_first else VALID[kind], edits)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("rows.csv" if kind.endswith("csv") else "rows.jsonl")
        path.write_bytes(data)
        try:
            parsed = parse(path, format=format, merge_turns=mend, drop_empty_turns=mend)
        except PersonalignError:
            return
        assert parsed.faults or parsed.dialogues
        assert all(fault.problem and fault.remedy for fault in parsed.faults)
        if not parsed.faults:
            copy = Path(folder) / "copy.jsonl"
            write_dialogues(copy, parsed.dialogues)
            assert read_dialogues(copy) == list(parsed.dialogues)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES))
def test_any_row_is_a_dialogue_or_faults(row: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(json.dumps(row), encoding="utf-8")
        parsed = parse(path, format="native")
    assert len(parsed.dialogues) == (0 if parsed.faults else 1)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*FIELDS, "history", "response"]), JSON_VALUES))
def test_any_row_of_a_reply_is_a_dialogue_or_faults(change: dict[str, object]) -> None:
    row = {"persona": ["a"], "history": ["b"], "response": "c"} | change
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text(json.dumps(row), encoding="utf-8")
        parsed = parse(path, format="hub")
    assert len(parsed.dialogues) == (0 if parsed.faults else 1)
