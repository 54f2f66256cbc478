"""`personalign rank`: where a model ranks the true reply among candidates."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from personalign.cli._counting import counting
from personalign.cli._options import keep_existing
from personalign.cli._output import emit_json, output_console, quieten
from personalign.cli._systems import print_remarks
from personalign.data.dialogue import Dialogue
from personalign.data.formats import Format, read_dialogues

if TYPE_CHECKING:
    from personalign.decoding.ranking import Ranking


def rank(
    source: Annotated[
        str, typer.Argument(help="A run, a model or adapter folder, a hub id, or personalign-mini.")
    ],
    data: Annotated[Path, typer.Argument(help="Dialogues with candidates.")],
    out: Annotated[
        Path | None,
        typer.Option(help="File for the best candidate and the rank of the gold reply of each turn."),
    ] = None,
    format: Annotated[
        Format | None, typer.Option("--format", help="Format of the data; recognised when left out.")
    ] = None,
    budget: Annotated[int, typer.Option(min=256, help="Tokens of one forward pass.")] = 8192,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0 or mps.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """hits@1 and mean reciprocal rank of the gold reply among its candidates, by their summed log-probability.

    The line that the model selects for a turn is highlighted in its prompt, as for a reply.
    """
    from personalign._files import write_jsonl
    from personalign.decoding.ranking import rank_candidates
    from personalign.evaluation.ranking import hits_at_1, mean_reciprocal_rank
    from personalign.evaluation.significance import estimate
    from personalign.methods.opening import open_model
    from personalign.methods.tables import with_interval

    if out is not None:
        keep_existing(out, force=force)
    dialogues = read_dialogues(data, format=format)
    quieten()
    model = open_model(source, device=device)
    dropped = Counter[str]()
    with counting("ranking") as report:
        rankings = rank_candidates(
            model.loaded,
            model.prompter,
            dialogues,
            selection=model.selection,
            budget=budget,
            progress=report,
            dropped=dropped,
        )
    ranks = [ranking.rank for ranking in rankings]
    groups = [ranking.dialogue for ranking in rankings]
    figures = {
        name: estimate([measured(ranks)], groups)
        for name, measured in (("hits@1", hits_at_1), ("mrr", mean_reciprocal_rank))
    }
    console = output_console()
    sizes = sorted({len(ranking.scores) for ranking in rankings})
    shown = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    console.print(f"{len(rankings):,} turns of {len(set(groups)):,} dialogues, {shown} candidates each")
    remarks = [f"{count:,} {reason}" for reason, count in dropped.items()]
    print_remarks(
        [*remarks, _remark_on_candidates(rankings), _remark_on_words(model.loaded.tokenizer, dialogues)]
    )
    for name, found in figures.items():
        console.print(f"{name:<8}{with_interval(found.as_dict())}", markup=False)
    result: dict[str, Any] = {"turns": len(rankings), "candidates": sizes, "dropped": dict(dropped)}
    result |= {name: found.as_dict() for name, found in figures.items()}
    if out is not None:
        write_jsonl(out, map(_row, rankings))
        console.print(f"wrote {out}", markup=False)
        result["out"] = out
    if as_json:
        emit_json(result)


def _remark_on_candidates(rankings: "Sequence[Ranking]") -> str | None:
    alone = sum(len(ranking.candidates) == 1 for ranking in rankings)
    if not alone:
        return None
    return f"{alone:,} of {len(rankings):,} turns have no candidate but the gold reply, and count as hits"


def _remark_on_words(tokenizer: Any, dialogues: Sequence[Dialogue]) -> str | None:
    """Where the model does not know many of the words: its scores are then of little else than its unknown token."""
    if tokenizer.unk_token_id is None:
        return None
    texts = [
        text for item in dialogues for text in (*item.persona, *(turn.content for turn in item.messages))
    ]
    ids = [token for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in row]
    share = sum(token == tokenizer.unk_token_id for token in ids) / max(1, len(ids))
    return f"the model does not know {share:.0%} of the words of these dialogues" if share > 0.05 else None


def _row(ranking: "Ranking") -> dict[str, Any]:
    """As `personalign evaluate` reads it: the best candidate is the system's reply."""
    row: dict[str, Any] = {
        "dialogue": ranking.dialogue,
        "turn": ranking.turn,
        "response": ranking.best,
        "rank": ranking.rank,
        "candidates": len(ranking.candidates),
    }
    if ranking.choice is not None:
        row["selected"] = ranking.choice.line
        row["probabilities"] = list(ranking.choice.probabilities)
    return row
