"""A selector that learns from the labels of a run which line comes next, or that none does.

Sentence embeddings stay as they are; a small network over them learns what follows what, and that a line that was told
is seldom told again. The paper lets the language model itself choose (PAL, section 2.3), which a small one cannot.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from personalign._files import write_json
from personalign.data.dialogue import Dialogue
from personalign.decoding.respond import Turns
from personalign.decoding.selection import Scores, labelled_line
from personalign.errors import PersonalignError
from personalign.evaluation.tokens import Language
from personalign.labels.labeller import TextEncoder
from personalign.labels.overlap import inverse_document_frequency
from personalign.methods.selector_network import Floats, LineRanker, TurnView, padded, view_of

FILE = "selector.json"
WEIGHTS = "selector.safetensors"
SELECTOR_FILES = (FILE, WEIGHTS)
_VERSION = 1
_MEMBERS = 4
_EPOCHS = 4
_FEWEST_STEPS = 300
"""Few turns are read more often."""
_BATCH = 128
_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 1e-2
_FEWEST_LABELLED = 20

Examples = Sequence[tuple[TurnView, int]]
"""Turns with the index of their line; the number of lines stands for none."""


@dataclass(slots=True)
class TrainedScorer:
    """Log-probabilities of every line and of none, the mean over independently trained networks.

    `words` are the inverse document frequencies of the training dialogues. Reads nothing at or after the turn.
    """

    encoder: TextEncoder
    members: Sequence[LineRanker]
    words: dict[str, float]
    language: Language
    _vectors: dict[str, Floats] = field(default_factory=dict)

    def __call__(self, dialogue: Dialogue, turns: Turns) -> list[Scores]:
        if not dialogue.persona:
            return [np.zeros(1) for _ in turns]
        if not turns:
            return []
        before = dialogue.messages[: max(turns)]
        _encode(self.encoder, [*dialogue.persona, *(item.content for item in before)], self._vectors)
        views = [
            view_of(dialogue, turn, self._vectors, weights=self.words, language=self.language)
            for turn in turns
        ]
        with torch.inference_mode():
            inputs = padded(views)
            shares = sum(torch.softmax(member(**inputs).double(), dim=1) for member in self.members)
        assert isinstance(shares, torch.Tensor)
        return list(torch.log(shares / len(self.members)).numpy())

    def save(self, folder: Path) -> None:
        from safetensors.torch import save_file

        tensors = {
            f"{place}.{name}": tensor
            for place, member in enumerate(self.members)
            for name, tensor in member.state_dict().items()
        }
        save_file(tensors, folder / WEIGHTS)
        write_json(
            folder / FILE,
            {
                "version": _VERSION,
                "language": self.language,
                "width": self.members[0].contexts[0].in_features,
                "members": len(self.members),
                "words": self.words,
            },
        )


def load_trained(folder: Path, encoder: TextEncoder) -> TrainedScorer:
    """Raises PersonalignError where the folder has no selector, a damaged one, or one of another version."""
    from safetensors.torch import load_file

    path = folder / FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["version"] != _VERSION or card["language"] not in get_args(Language):
            raise PersonalignError(
                f"{path}: the selector has version {card['version']}, and this personalign reads {_VERSION}; "
                "train it again"
            )
        tensors = load_file(folder / WEIGHTS)
        members = []
        for place in range(card["members"]):
            member = LineRanker(card["width"]).eval()
            start = f"{place}."
            member.load_state_dict(
                {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
            )
            members.append(member)
        return TrainedScorer(encoder, members, dict(card["words"]), card["language"])
    except PersonalignError:
        raise
    except Exception as error:  # of json, safetensors, or torch, each in its own way
        raise PersonalignError(
            f"{path}: the trained selector cannot be read ({error}); train it again"
        ) from error


class SelectorLearner:
    """Every labelled turn of the dialogues that have a persona, as the networks see it.

    Raises PersonalignError where fewer than 20 turns are labelled with a line.
    """

    def __init__(self, dialogues: Sequence[Dialogue], encoder: TextEncoder, *, language: Language) -> None:
        useful = [dialogue for dialogue in dialogues if dialogue.persona]
        texts = [
            text
            for dialogue in useful
            for text in (*dialogue.persona, *(item.content for item in dialogue.messages))
        ]
        weights = inverse_document_frequency(list(dict.fromkeys(texts)), language=language)
        # As they are written, so that a selector that was read scores as the one that was trained.
        self._words = {word: round(weight, 4) for word, weight in weights.items()}
        self._encoder = encoder
        self._language = language
        vectors: dict[str, Floats] = {}
        _encode(encoder, texts, vectors)
        self._examples = []
        for dialogue in useful:
            for turn in dialogue.reply_indices():
                view = view_of(dialogue, turn, vectors, weights=self._words, language=language)
                line = labelled_line(dialogue, turn)
                self._examples.append((view, len(view.lines) if line is None else line))
        self.turns = len(self._examples)
        self.labelled = sum(line < len(view.lines) for view, line in self._examples)
        if self.labelled < _FEWEST_LABELLED:
            raise PersonalignError(
                f"selector.kind is trained, and only {self.labelled} training turns are labelled with a line; give more "
                "dialogues or other labels (data.labels), or choose another selector.kind"
            )

    @property
    def steps(self) -> int:
        """Updates of all networks together."""
        return _MEMBERS * _steps(self.turns)

    def train(self, *, seed: int, progress: Callable[[], None]) -> TrainedScorer:
        """Listwise: cross-entropy over the lines and none, and over the lines alone where one is labelled."""
        members = [
            _train_member(self._examples, seed=seed * _MEMBERS + nth, progress=progress)
            for nth in range(_MEMBERS)
        ]
        return TrainedScorer(self._encoder, members, self._words, self._language)


def _train_member(examples: Examples, *, seed: int, progress: Callable[[], None]) -> LineRanker:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LineRanker(examples[0][0].lines.shape[1])
        network.standardise([view for view, _ in examples])
        optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        steps = _steps(len(examples))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        order: list[int] = []
        for _ in range(steps):
            order = order or torch.randperm(len(examples)).tolist()
            batch, order = order[:_BATCH], order[_BATCH:]
            loss = _loss(network, [examples[index] for index in batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress()
    return network.eval()


def _loss(network: LineRanker, batch: Examples) -> torch.Tensor:
    scores = network(**padded([view for view, _ in batch]))
    most = scores.shape[1] - 1
    # None comes last in the padded rows.
    truth = torch.tensor([line if line < len(view.lines) else most for view, line in batch])
    loss = cross_entropy(scores, truth)
    needs = truth < most
    if needs.any():
        loss = loss + cross_entropy(scores[needs, :most], truth[needs])
    return loss


def _steps(examples: int) -> int:
    """Updates of one network."""
    return max(_FEWEST_STEPS, _EPOCHS * -(-examples // _BATCH))


def _encode(encoder: TextEncoder, texts: Sequence[str], vectors: dict[str, Floats]) -> None:
    fresh = [text for text in dict.fromkeys(texts) if text not in vectors]
    if fresh:
        vectors.update(zip(fresh, encoder.encode(fresh), strict=True))
