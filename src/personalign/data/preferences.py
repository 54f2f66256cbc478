"""Preference rows in TRL's conversational columns."""

from collections.abc import Mapping, Sequence
from typing import Any

from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError


def preference_rows(
    dialogues: Sequence[Dialogue], *, rejected: Mapping[tuple[str, int], str] | None = None
) -> list[dict[str, Any]]:
    """One row per reply that has a rejected one: `prompt`, `chosen`, `rejected`, `persona`.

    The rejected reply is `rejected[dialogue.id, index of the reply]` where that mapping is given (replies
    without an entry make no row), else the first candidate that differs from the gold reply. A reply that
    opens its dialogue makes no row: TRL has no empty prompt. The persona stays a column, so that the
    trainer's template decides where it goes. Raises PersonalignError when no row comes out, or where chosen
    and rejected are equal.
    """
    rows = [row for dialogue in dialogues for row in _rows_of(dialogue, rejected)]
    if not rows:
        raise PersonalignError(
            "no reply has a rejected one: preference rows need `candidates`, or replies given as rejected"
        )
    return rows


def _rows_of(dialogue: Dialogue, rejected: Mapping[tuple[str, int], str] | None) -> list[dict[str, Any]]:
    rows = []
    for reply, index in enumerate(dialogue.reply_indices()):
        chosen = dialogue.messages[index].content
        if rejected is not None:
            worse = rejected.get((dialogue.id, reply))
        else:
            candidates = dialogue.candidates[reply] if dialogue.candidates is not None else ()
            worse = next((candidate for candidate in candidates if candidate != chosen), None)
        if worse is None or index == 0:
            continue
        if worse == chosen or not worse.strip():
            raise PersonalignError(
                f"dialogue {dialogue.id}, reply {reply}: the rejected reply is empty or equals the gold one; "
                "leave it out of the mapping"
            )
        prompt = [{"role": turn.role, "content": turn.content} for turn in dialogue.messages[:index]]
        rows.append(
            {
                "prompt": prompt,
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": worse}],
                "persona": list(dialogue.persona),
            }
        )
    return rows
