"""A system is a trained model with a way to select; its predictions are one JSON object per test turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from personalign.data.dialogue import Dialogue
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Response, Selection, respond
from personalign.decoding.selection import Strategy
from personalign.evaluation.consistency import judge_consistency
from personalign.evaluation.judge import Judge
from personalign.evaluation.metrics import text_metrics
from personalign.evaluation.perplexity import perplexity_per_token
from personalign.evaluation.selection import selection_metrics
from personalign.evaluation.significance import bootstrap_by_dialogue
from personalign.evaluation.text_overlap import copied_share
from personalign.methods.recipe import Language
from personalign.models import LoadedModel, autocast
from personalign.prompts import UNSELECTED, Prompter
from personalign.training.examples import Example, Path, grow
from personalign.training.step import forward_trees
from personalign.trees import batches_under

Row = dict[str, Any]
SELECTING: frozenset[Strategy] = frozenset({"predicted", "random", "oracle"})


@dataclass(frozen=True, slots=True)
class System:
    """`stage` names the stage whose model answers; `part` the dialogues that it is tested on."""

    name: str
    title: str
    stage: str
    strategy: Strategy
    part: str = "test"


def predict(
    system: System,
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Sequence[Dialogue],
    *,
    selection: Selection,
    decoding: DecodingSettings,
    budget: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Decode every assistant turn and score its gold reply under the same prompt; one row per turn."""
    responses = respond(
        loaded,
        prompter,
        dialogues,
        selection=selection,
        decoding=decoding,
        budget=budget,
        progress=progress,
    )
    by_id = {dialogue.id: dialogue for dialogue in dialogues}
    gold = _gold_scores(loaded, prompter, by_id, responses, budget=budget)
    rows = []
    for response in responses:
        dialogue = by_id[response.dialogue]
        nth = dialogue.reply_indices().index(response.turn)
        nll, tokens = gold[response.dialogue, response.turn]
        choice = response.choice
        rows.append(
            {
                "system": system.name,
                "dialogue": response.dialogue,
                "turn": response.turn,
                "persona": list(dialogue.persona),
                "response": response.text,
                "gold": dialogue.messages[response.turn].content,
                "relevant": list(dialogue.relevant[nth]) if dialogue.relevant is not None else None,
                "selected": None if choice is None else choice.line,
                "selects": choice is not None,
                "probabilities": None if choice is None else [round(p, 4) for p in choice.probabilities],
                "ended": response.ended,
                "gold_nll": nll,
                "gold_tokens": tokens,
            }
        )
    return rows


def gold_rows(dialogues: Sequence[Dialogue]) -> list[Row]:
    """The gold replies as a system of their own: what every score is to be read against."""
    return [
        {
            "system": "gold",
            "dialogue": dialogue.id,
            "turn": turn,
            "persona": list(dialogue.persona),
            "response": dialogue.messages[turn].content,
            "gold": dialogue.messages[turn].content,
            "relevant": list(dialogue.relevant[nth]) if dialogue.relevant is not None else None,
            "selected": None,
            "selects": False,
        }
        for dialogue in dialogues
        for nth, turn in enumerate(dialogue.reply_indices())
    ]


def evaluate(
    rows: Sequence[Row], judges: Mapping[str, Judge], *, language: Language, bootstrap: int, seed: int
) -> dict[str, Any]:
    """Every metric of a system, under its exact name; consistency per judge, over all turns and by label.

    Turns labelled with a line and turns labelled none are also scored apart, since systems that do not select can be
    compared with those that do only there. `recall` is the share of labelled turns whose reply the judge finds to
    entail the labelled line. Intervals are 95 % bootstraps by dialogue.
    """
    responses = [row["response"] for row in rows]
    gold = [row["gold"] for row in rows]
    personas = [row["persona"] for row in rows]
    groups = [row["dialogue"] for row in rows]
    result: dict[str, Any] = {"turns": len(rows), **text_metrics(responses, gold, language=language)}
    copies = [copied_share(r, p, language=language) for r, p in zip(responses, personas, strict=True)]
    result["copy_rate"] = sum(copies) / len(copies)
    if "gold_nll" in rows[0]:
        result["ppl/token"] = perplexity_per_token(
            [row["gold_nll"] for row in rows], [row["gold_tokens"] for row in rows]
        )
    labelled = [row["relevant"] is not None for row in rows]
    if all(labelled) and all(row["selects"] for row in rows):
        result.update(selection_metrics([row["relevant"] for row in rows], [row["selected"] for row in rows]))
    for name, judge in judges.items():
        result[f"judge:{name}"] = _consistency(rows, judge, groups, bootstrap=bootstrap, seed=seed)
    return result


def _consistency(
    rows: Sequence[Row], judge: Judge, groups: Sequence[str], *, bootstrap: int, seed: int
) -> dict[str, Any]:
    scored = judge_consistency(judge, [row["response"] for row in rows], [row["persona"] for row in rows])
    values = {
        "c_score/max": scored.c_score_max(),
        "c_score/sum": scored.c_score_sum(),
        "entail_rate": scored.entailed(),
        "contradict_rate": scored.contradicted(),
    }
    needs = [bool(row["relevant"]) for row in rows]
    parts = {"all": [True] * len(rows)}
    if all(row["relevant"] is not None for row in rows):
        parts |= {"needs_line": needs, "needs_none": [not need for need in needs]}
    result: dict[str, Any] = {}
    for part, mask in parts.items():
        kept = [index for index, wanted in enumerate(mask) if wanted]
        if not kept:
            continue
        for metric, per_reply in values.items():
            chosen = per_reply[kept]
            low, high = bootstrap_by_dialogue(
                chosen, [groups[index] for index in kept], samples=bootstrap, seed=seed
            )
            result[f"{metric}/{part}"] = {"mean": float(chosen.mean()), "low": low, "high": high}
    if any(needs):
        hit = [
            float(scored.signs[index][row["relevant"][0]] == 1)  # the sign of entailment
            for index, row in enumerate(rows)
            if row["relevant"]
        ]
        held = [row["dialogue"] for row in rows if row["relevant"]]
        low, high = bootstrap_by_dialogue(hit, held, samples=bootstrap, seed=seed)
        result["recall"] = {"mean": sum(hit) / len(hit), "low": low, "high": high}
    return result


def _gold_scores(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Mapping[str, Dialogue],
    responses: Sequence[Response],
    *,
    budget: int,
) -> dict[tuple[str, int], tuple[float, int]]:
    """Negative log-likelihood and token count of each gold reply, end token included, under the system's prompt."""
    examples = []
    for response in responses:
        dialogue = dialogues[response.dialogue]
        line = UNSELECTED if response.choice is None else response.choice.line
        prompt = prompter.reply(dialogue, response.turn, line=line)
        target = prompter.reply_target(dialogue.messages[response.turn].content)
        examples.append(Example(dialogue.id, response.turn, (Path("reply", prompt, target),)))
    trees = grow(examples, budget=budget)
    scores: dict[tuple[str, int], tuple[float, int]] = {}
    loaded.model.eval()
    with torch.no_grad(), autocast(loaded.precision):
        for indices in batches_under(trees, length=len, budget=budget):
            held = [trees[index] for index in indices]
            batch, log_probs = forward_trees(loaded.model, held, plan=loaded.plan)
            sums = iter(batch.branch_sums(log_probs).tolist())
            lengths = iter(batch.branch_lengths().tolist())
            for tree in held:
                for example in tree.examples:
                    scores[example.key] = (-next(sums), next(lengths))
    return scores
