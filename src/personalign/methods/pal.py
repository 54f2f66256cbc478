"""PAL: persona-aware learning, then persona alignment, then select-then-generate.

"Persona-Aware Alignment Framework for Personalized Dialogue Generation". The three steps, as functions:

1. `persona_aware_learning` (section 2.1): from every turn two examples, mixed: choose the persona line that the
   gold reply expresses, or none; reply with that line highlighted. Objective: nll.
2. `alignment_pairs` (section 2.2): the gold reply against the reply that the stage-1 model itself gave under a prompt
   without persona. Both hang off the prompt that highlights the gold line. Objective: DPO against the stage-1 model.
3. At inference the model selects, then generates (section 2.3): `personalign.decoding.respond`.

On trees both tasks of a turn share its history, and the reply hangs off the selection that it rests on.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from personalign.data.dialogue import Dialogue
from personalign.decoding.selection import labelled_line
from personalign.errors import PersonalignError
from personalign.methods.recipe import Ablation
from personalign.models import LoadedModel, autocast
from personalign.prompts import UNSELECTED, Prompter
from personalign.training.examples import Example, GrownTree, Path, micro_batches
from personalign.training.step import StageSettings, forward_trees, step_loss

Ids = Sequence[int]

# Of policy to reference at step 0, per token. In bf16 the rounding of a pass depends on what is packed with what.
LARGEST_LOG_RATIO = {"float32": 1e-4, "bfloat16": 0.1}


@dataclass(slots=True)
class Dropped:
    """Turns that gave no example, by reason; nothing disappears silently."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str) -> None:
        self.counts[reason] += 1


def fine_tuning(
    dialogues: Iterable[Dialogue], prompter: Prompter, *, dropped: Dropped, trunk_weight: float = 0.0
) -> list[Example]:
    """The baseline: all persona lines and the history, then the reply; nothing selected."""
    examples = []
    for dialogue in dialogues:
        for turn in _fitting_turns(dialogue, prompter, dropped):
            reply = prompter.reply_target(dialogue.messages[turn].content)
            prompt = prompter.reply(dialogue, turn, line=UNSELECTED)
            example = Example(dialogue.id, turn, (Path("reply", prompt, reply),))
            if _fits(example, prompter, dropped):
                examples.append((prompt, example))
    return _with_trunk(examples, weight=trunk_weight)


def persona_aware_learning(
    dialogues: Iterable[Dialogue],
    prompter: Prompter,
    *,
    dropped: Dropped,
    ablation: Ablation = "none",
    trunk_weight: float = 0.0,
    reply_weight: float = 1.0,
) -> list[Example]:
    """Stage 1, the mix of dialogue-informed persona selection and persona-enhanced generation.

    `trunk_weight` adds the history itself as a language-modelling target; the paper has none, small models gain. With a
    `reply_weight` below 1 the selection counts for more, where it is what takes longest to learn; the paper has 1.
    """
    examples = []
    for dialogue in dialogues:
        for turn in _fitting_turns(dialogue, prompter, dropped):
            line = labelled_line(dialogue, turn)
            paths = []
            # No selected line may stand in the trunk: as a target there it would teach what the ablation leaves out.
            trunk = prompter.reply(dialogue, turn, line=UNSELECTED)
            if ablation != "only_generation":
                trunk = prompter.select(dialogue, turn)
                paths.append(Path("selection", trunk, prompter.select_target(dialogue, line)))
            if ablation != "only_selection":
                reply = prompter.reply_target(dialogue.messages[turn].content)
                prompt = prompter.reply(dialogue, turn, line=line)
                paths.append(Path("reply", prompt, reply, reply_weight))
            example = Example(dialogue.id, turn, tuple(paths))
            if _fits(example, prompter, dropped):
                examples.append((trunk, example))
    return _with_trunk(examples, weight=trunk_weight)


def alignment_pairs(
    dialogues: Sequence[Dialogue],
    rejected: Sequence[Sequence[str]],
    prompter: Prompter,
    *,
    dropped: Dropped,
    only_labelled: bool = False,
) -> list[Example]:
    """Stage 2: gold reply against the model's own reply without a persona, under the prompt with the gold line.

    `rejected` holds, per dialogue, one reply per assistant turn. Pairs whose replies are equal, or whose rejected
    reply is empty, teach nothing and are dropped and counted; `only_labelled` keeps turns labelled with a line.
    """
    examples = []
    for dialogue, replies in zip(dialogues, rejected, strict=True):
        reply_of = dict(zip(dialogue.reply_indices(), replies, strict=True))
        for turn in _fitting_turns(dialogue, prompter, dropped):
            gold, other = dialogue.messages[turn].content, reply_of[turn]
            line = labelled_line(dialogue, turn)
            if only_labelled and line is None:
                dropped.add("labelled none")
            elif not other.strip():
                dropped.add("empty rejected reply")
            elif other.split() == gold.split() or prompter.reply_target(other) == prompter.reply_target(gold):
                # To a tokenizer that knows no capitals, what differs in these alone is the same.
                dropped.add("rejected reply equals gold")
            else:
                prompt = prompter.reply(dialogue, turn, line=line)
                chosen = Path("chosen", prompt, prompter.reply_target(gold))
                worse = Path("rejected", prompt, prompter.reply_target(other))
                example = Example(dialogue.id, turn, (chosen, worse))
                if _fits(example, prompter, dropped):
                    examples.append(example)
    return examples


def gold_alone(
    dialogues: Sequence[Dialogue], prompter: Prompter, *, dropped: Dropped, only_labelled: bool = False
) -> list[Example]:
    """Stage 2 without pairs construction (Table 5): the gold replies of the same turns as nll targets."""
    examples = persona_aware_learning(dialogues, prompter, dropped=dropped, ablation="only_generation")
    if not only_labelled:
        return examples
    of = {dialogue.id: dialogue for dialogue in dialogues}
    kept = [item for item in examples if labelled_line(of[item.dialogue], item.turn) is not None]
    for _ in range(len(examples) - len(kept)):
        dropped.add("labelled none")
    return kept


def branch_scores(
    loaded: LoadedModel, trees: Sequence[GrownTree], *, budget: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Log-probability and number of tokens of every branch of each tree under the model as it is now, on the CPU."""
    scored: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    loaded.model.eval()
    with torch.no_grad(), autocast(loaded.precision):
        for held in micro_batches(trees, plan=loaded.plan, budget=budget):
            batch, log_probs = forward_trees(loaded.model, held, plan=loaded.plan)
            sums, lengths = batch.branch_sums(log_probs).cpu(), batch.branch_lengths().cpu()
            examples = [example for tree in held for example in tree.examples]
            sizes = [len(example.paths) for example in examples]
            parts = zip(torch.split(sums, sizes), torch.split(lengths, sizes), strict=True)
            scored.update(zip(map(id, examples), parts, strict=True))
    of_tree = ([scored[id(example)] for example in tree.examples] for tree in trees)
    return [
        (torch.cat(sums), torch.cat(lengths))
        for found in of_tree
        for sums, lengths in [zip(*found, strict=True)]
    ]


def with_reference(loaded: LoadedModel, trees: Sequence[GrownTree], *, budget: int) -> list[GrownTree]:
    """Score every branch once with the model as it is now, the reference of stage 2; same packing, same dtype."""
    scores = branch_scores(loaded, trees, budget=budget)
    return [tree.with_reference(sums) for tree, (sums, _) in zip(trees, scores, strict=True)]


def check_reference(loaded: LoadedModel, trees: Sequence[GrownTree], *, budget: int) -> float:
    """The largest |log-ratio| of policy to reference per token of a branch, before the first step.

    Scores one batch within the budget of training. Raises PersonalignError above the bound of the model's precision:
    the reference is then another model than the one that training begins from, or was scored in another way.
    """
    if not trees:
        return 0.0
    held = micro_batches(trees, plan=loaded.plan, budget=budget)[0]
    gaps = [
        ((now - tree.reference).abs() / lengths).max()
        for tree, (now, lengths) in zip(held, branch_scores(loaded, held, budget=budget), strict=True)
        if tree.reference is not None
    ]
    # Of tensors, since Python's max may pass over what is not a number.
    largest = float(torch.stack(gaps).max())
    bound = LARGEST_LOG_RATIO[loaded.precision.dtype]
    if not largest <= bound:
        raise PersonalignError(
            f"before the first step of DPO the policy and its reference differ by {largest:.2g} per token (allowed in "
            f"{loaded.precision.dtype}: {bound:g}); the reference must be the very model that training begins from"
        )
    return largest


def _fitting_turns(dialogue: Dialogue, prompter: Prompter, dropped: Dropped) -> list[int]:
    turns = []
    for turn in dialogue.reply_indices():
        window = prompter.window(dialogue, turn)
        if not window.fits:
            dropped.add("longer than max_tokens")
            continue
        if window.trimmed:
            dropped.add("kept, oldest turns trimmed")
        turns.append(turn)
    return turns


def _fits(example: Example, prompter: Prompter, dropped: Dropped) -> bool:
    """Whether every prompt with its target is within max_tokens; a target longer than the reserve may not be."""
    fits = max(len(path) for path in example.paths) <= prompter.settings.max_tokens
    if not fits:
        dropped.add("target longer than the room for it")
    return fits


def _with_trunk(examples: Sequence[tuple[Ids, Example]], *, weight: float) -> list[Example]:
    """Add the longest of each dialogue's histories as a target of its own, at the given weight per token."""
    longest: dict[str, tuple[Ids, Example]] = {}
    for trunk, example in examples:
        if example.dialogue not in longest or len(trunk) > len(longest[example.dialogue][0]):
            longest[example.dialogue] = trunk, example
    result = []
    for trunk, example in examples:
        if weight and longest[example.dialogue][1] is example:
            path = Path("trunk", trunk[:1], trunk[1:], weight)
            example = Example(example.dialogue, example.turn, (*example.paths, path))
        result.append(example)
    return result


def measure_pairs(
    loaded: LoadedModel, trees: Sequence[GrownTree], *, beta: float, budget: int
) -> dict[str, float]:
    """DPO's mean loss and implicit-reward accuracy over pairs whose reference is known; no training."""
    loss = accuracy = ratio = 0.0
    pairs = sum(len(tree.examples) for tree in trees)
    if not pairs:
        return {"pairs": 0.0}
    loaded.model.eval()
    settings = StageSettings(objective="dpo", beta=beta)
    with torch.no_grad(), autocast(loaded.precision):
        for held in micro_batches(trees, plan=loaded.plan, budget=budget):
            part, values = step_loss(loaded.model, held, settings=settings, plan=loaded.plan, total=pairs)
            loss += float(part)
            accuracy += values["pair_accuracy"]
            ratio += values["chosen_log_ratio"]
    return {"pairs": float(pairs), "loss": loss, "pair_accuracy": accuracy, "chosen_log_ratio": ratio}
