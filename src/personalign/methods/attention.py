"""What a model looks at in the sessions that it is told, while it replies (IDL, appendix A.5 and Figure 5)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from personalign.methods.idl_sessions import Told
from personalign.models import LoadedModel
from personalign.personas.statements import WORD, content_words
from personalign.prompts import UNSELECTED, Prompter

TOP = 100


@dataclass(frozen=True, slots=True)
class Attended:
    """The told part of a prompt: its tokens as text, and how much the reply attends to each, float [tokens].

    `persona`: which of them stand in a word that the profile has, too.
    """

    reply: str
    tokens: Sequence[str]
    weights: npt.NDArray[np.float64]
    persona: npt.NDArray[np.bool_]

    def top(self, count: int = TOP) -> npt.NDArray[np.int64]:
        """The tokens that are attended to most, most first."""
        found: npt.NDArray[np.int64] = np.argsort(-self.weights, kind="stable")[:count]
        return found

    def shares(self, count: int = TOP) -> tuple[float, float]:
        """Of the `count` most attended tokens, and of all, the share that stand in the profile's words."""
        return float(self.persona[self.top(count)].mean()), float(self.persona.mean())


@torch.no_grad()
def attended(loaded: LoadedModel, prompter: Prompter, told: Told, *, turn: int, reply: str) -> Attended:
    """Read `reply` as the answer to message `turn` of the session, behind the sessions that are told before it.

    The weights are means over layers, heads and the places from which the reply's tokens are predicted. The model then
    computes attention as it did before.
    """
    remembered = told.remembered()
    dialogue, past = remembered.dialogue, remembered.past
    prompt = prompter.reply(dialogue, past + turn, line=UNSELECTED)
    target = prompter.reply_target(reply)
    only = replace(dialogue, messages=dialogue.messages[:past])
    end = _shared(prompt, prompter.reply(only, past, line=UNSELECTED))
    model, before = loaded.model, loaded.model.config._attn_implementation
    ids = torch.tensor([[*prompt, *target[:-1]]], device=loaded.device)
    # The prompt apart, so that of all its pairs of tokens no weights are kept.
    cache = model(ids[:, : len(prompt) - 1], use_cache=True).past_key_values
    model.set_attn_implementation("eager")
    try:
        read = model(ids[:, len(prompt) - 1 :], past_key_values=cache, output_attentions=True)
    finally:
        model.set_attn_implementation(before)
    weights = torch.stack([layer[0, :, :, :end].float().mean(dim=(0, 1)) for layer in read.attentions]).mean(
        dim=0
    )
    tokens = _pieces(prompter, prompt[:end])
    return Attended(reply, tokens, weights.cpu().double().numpy(), of_profile(tokens, told.session.persona))


def _pieces(prompter: Prompter, ids: Sequence[int]) -> list[str]:
    """The text of each token, with the space that it has behind the one before."""
    decode = prompter.tokenizer.decode
    pieces = [str(decode(list(ids[:1])))]
    for before, here in pairwise(ids):
        both, first = str(decode([before, here])), str(decode([before]))
        # Half a character, which two tokens write together, cannot be told apart.
        pieces.append(both.removeprefix(first) if both.startswith(first) else str(decode([here])))
    return pieces


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    differing = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def of_profile(tokens: Sequence[str], persona: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which tokens overlap a word that the profile has, too."""
    wanted = {word for line in persona for word in content_words(line)}
    ends = np.cumsum([len(token) for token in tokens])
    found = np.zeros(len(tokens), dtype=np.bool_)
    for match in WORD.finditer("".join(tokens).lower()):
        if match.group() in wanted:
            first = int(np.searchsorted(ends, match.start(), side="right"))
            last = int(np.searchsorted(ends, match.end() - 1, side="right"))
            found[first : last + 1] = True
    return found


def picture(found: Attended, *, title: str, count: int = TOP) -> str:
    """The told sessions as a piece of HTML, the most attended tokens marked, words of the profile in bold."""
    top = set(found.top(count).tolist())
    most = float(found.weights.max()) or 1.0
    pieces = []
    for at, token in enumerate(found.tokens):
        text = escape(token)
        if found.persona[at]:
            text = f"<b>{text}</b>"
        if at in top:
            share = 0.25 + 0.75 * float(found.weights[at]) / most
            text = f'<mark style="background:rgba(255,196,0,{share:.2f})">{text}</mark>'
        pieces.append(text.replace("\n", "<br>"))
    near, everywhere = found.shares(count)
    caption = (
        f"{title}: reply “{found.reply}”. Marked: the {min(count, len(found.tokens))} tokens that it attends to most; "
        f"bold: words of the profile, {near:.0%} of the marked tokens and {everywhere:.0%} of all."
    )
    return f"<figure><figcaption>{escape(caption)}</figcaption><p>{''.join(pieces)}</p></figure>"
