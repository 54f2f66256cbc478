"""A tagger on a small encoder: of each sentence one fact, its relation chosen, subject and object cut out of it."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from personalign._files import write_json
from personalign.errors import PersonalignError
from personalign.models.encoder import offline_encoder_folder
from personalign.models.hub import hub_arguments
from personalign.models.precision import Dtype, Precision, autocast, choose_device, choose_precision
from personalign.personas.extraction import Triple

NONE = "none"
"""The relation of sentences that state no fact about their speaker."""

RECORD, HEADS = "extractor.json", "heads.safetensors"
_LONGEST_SPAN = 8
_RELATIONS_TRIED = 3
_NEVER = -1e4
_WORD = re.compile(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}.-]\w+)*|[^\w\s]")


class TaggerNetwork(nn.Module):
    """Relations from the whole sentence; where the subject lies; and where the object of a given relation lies."""

    def __init__(self, encoder: nn.Module, *, relations: int) -> None:
        super().__init__()
        width: int = encoder.config.hidden_size  # type: ignore[union-attr,assignment]
        self.encoder = encoder
        self.relation = nn.Linear(2 * width, relations)
        self.relation_vectors = nn.Embedding(relations, width)
        self.subject = nn.Linear(width, 2)
        self.object = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, 3))
        self.dropout = nn.Dropout(0.1)

    def forward(self, batch: "WordBatch") -> tuple[Tensor, Tensor, Tensor]:
        """Logits of relations [texts, relations] and of the subject's ends [texts, words, 2], and the words' states."""
        states = self.encoder(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state.float()
        mask = batch.mask[..., None].float()
        mean = (states * mask).sum(1) / mask.sum(1)
        relations = self.relation(self.dropout(torch.cat([mean, states[:, 0]], dim=-1)))
        places = batch.words.clamp(min=0)[..., None].expand(-1, -1, states.shape[-1])
        words = states.gather(1, places)
        return relations, self._within(self.subject(words), batch), words

    def objects(self, words: Tensor, relations: Tensor, batch: "WordBatch") -> tuple[Tensor, Tensor]:
        """Of the object of these relations [texts]: logits of its ends [texts, words, 2], and of each word's being in it.

        An object may leave out words between its ends, as "long hair" of "my long brown hair".
        """
        asked = self.relation_vectors(relations)[:, None].expand(-1, words.shape[1], -1)
        found = self.object(torch.cat([words, asked], dim=-1))
        return self._within(found[..., :2], batch), found[..., 2]

    def heads(self) -> dict[str, Tensor]:
        """Everything but the encoder."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("encoder.")}

    @staticmethod
    def _within(logits: Tensor, batch: "WordBatch") -> Tensor:
        return logits.masked_fill((batch.words < 0)[..., None], _NEVER)


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, apart, as the sentences that taggers learn from have them."""
    return _WORD.findall(text)


@dataclass(frozen=True, slots=True)
class WordBatch:
    """Texts of one pass: ids and mask [texts, tokens], and the first token of each word [texts, words], -1 beyond."""

    ids: Tensor
    mask: Tensor
    words: Tensor


def word_batch(
    tokenizer: Any, texts: Sequence[Sequence[str]], *, max_length: int, device: torch.device
) -> WordBatch:
    """Texts given as words. Words beyond `max_length` tokens count as not there."""
    encoded = tokenizer(
        [list(words) for words in texts],
        is_split_into_words=True,
        padding=True,
        truncation=True,
        max_length=max_length,
        return_tensors="pt",
    )
    places = torch.full((len(texts), max(map(len, texts))), -1)
    for row in range(len(texts)):
        for at, word in enumerate(encoded.word_ids(row)):
            if word is not None and places[row, word] < 0:
                places[row, word] = at
    return WordBatch(encoded["input_ids"].to(device), encoded["attention_mask"].to(device), places.to(device))


@dataclass(frozen=True, slots=True)
class Tagger:
    """An Extractor. Build it with `load_tagger`, or train one with `personalign.personas.tagger_training`."""

    name: str
    network: TaggerNetwork
    tokenizer: Any
    relations: tuple[str, ...]
    precision: Precision
    batch_size: int = 64
    max_length: int = 64

    def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
        """At most one fact a text: the likeliest pair of relation and object, of the three likeliest relations.

        Texts are cut into words and punctuation marks; equal ones are read once.
        """
        distinct = sorted({text for text in texts if words_of(text)}, key=lambda text: (len(text), text))
        found: dict[str, tuple[Triple, ...]] = {}
        self.network.eval()
        for start in range(0, len(distinct), self.batch_size):
            part = distinct[start : start + self.batch_size]
            found.update(zip(part, self._read([words_of(text) for text in part]), strict=True))
        return [found.get(text, ()) for text in texts]

    @torch.inference_mode()
    def _read(self, texts: Sequence[Sequence[str]]) -> list[tuple[Triple, ...]]:
        device = next(self.network.parameters()).device
        batch = word_batch(self.tokenizer, texts, max_length=self.max_length, device=device)
        with autocast(self.precision):
            relations, subjects, words = self.network(batch)
        tried = relations.float().log_softmax(-1).topk(min(_RELATIONS_TRIED, len(self.relations)), dim=-1)
        scores, spans, within = [], [], []
        for rank in range(tried.indices.shape[1]):
            ends, inside = self.network.objects(words, tried.indices[:, rank], batch)
            best, first, last = best_span(ends.float())
            # Nothing is cut out for the relation that says that there is nothing.
            nothing = tried.indices[:, rank] == self._none()
            scores.append(tried.values[:, rank] + best.masked_fill(nothing, 0.0))
            spans.append((first.tolist(), last.tolist()))
            within.append((inside > 0).tolist())
        chosen = torch.stack(scores).argmax(0).tolist()
        _, *subject = best_span(subjects.float())
        found: list[tuple[Triple, ...]] = []
        for row, (said, rank) in enumerate(zip(texts, chosen, strict=True)):
            relation = self.relations[int(tried.indices[row, rank])]
            if relation == NONE:
                found.append(())
                continue
            first, last = spans[rank][0][row], spans[rank][1][row]
            kept = [at for at in range(first, last + 1) if at in {first, last} or within[rank][row][at]]
            start, end = (int(place[row]) for place in subject)
            who = " ".join(said[start : end + 1])
            found.append((Triple(who, relation, " ".join(said[at] for at in kept)),))
        return found

    def _none(self) -> int:
        return self.relations.index(NONE) if NONE in self.relations else -1

    def save(self, folder: Path, record: dict[str, Any]) -> None:
        """Into an empty folder: encoder, tokenizer, heads, and what is known of it."""
        self.network.encoder.save_pretrained(folder)  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder)
        save_file({name: value.contiguous() for name, value in self.network.heads().items()}, folder / HEADS)
        write_json(folder / RECORD, {"relations": list(self.relations), **record})


def best_span(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest span of at most eight words: its log-probability, first and last word, each [texts].

    `logits` [texts, words, 2] are those of first and last words, which are chosen apart but for their order.
    """
    log_probs = logits.log_softmax(1)
    scores = log_probs[:, :, 0, None] + log_probs[:, None, :, 1]
    words = scores.shape[1]
    allowed = torch.ones(words, words, dtype=torch.bool, device=logits.device).triu().tril(_LONGEST_SPAN - 1)
    best, place = scores.masked_fill(~allowed, 2 * _NEVER).flatten(1).max(1)
    return best, place // words, place % words


def new_network(encoder: str | None, *, relations: int) -> tuple[TaggerNetwork, Any]:
    """A network with fresh heads over an encoder (a folder or hub id; None: the offline MiniLM), and its tokenizer.

    Raises PersonalignError where that cannot be loaded.
    """
    from transformers import AutoModel, AutoTokenizer

    source = encoder if encoder is not None else str(offline_encoder_folder())
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **hub_arguments(source))
        model = AutoModel.from_pretrained(source, dtype=torch.float32, **hub_arguments(source))
    except (OSError, ValueError) as error:
        raise PersonalignError(f"'{source}' cannot be loaded as an encoder: {error}") from error
    if not tokenizer.is_fast:
        raise PersonalignError(
            f"'{source}' has a slow tokenizer, which does not tell words apart; name another encoder"
        )
    return TaggerNetwork(model, relations=relations), tokenizer


def load_tagger(folder: Path | str, *, dtype: Dtype = "float32", device: str = "cpu") -> Tagger:
    """Load a tagger from its folder. Raises PersonalignError where that is none."""
    path = Path(folder)
    if not (path / RECORD).is_file() or not (path / HEADS).is_file():
        raise PersonalignError(
            f"{path} is no extractor: it has no {RECORD} with {HEADS}; train one with `personalign extract train`"
        )
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        relations, max_length = tuple(record["relations"]), int(record["settings"]["max_length"])
        heads = load_file(path / HEADS)
        network, tokenizer = new_network(str(path), relations=len(relations))
        missing, unknown = network.load_state_dict(heads, strict=False)
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise PersonalignError(
            f"{path} is a damaged extractor ({error}); copy it again, or train it anew"
        ) from None
    lost = [name for name in missing if not name.startswith("encoder.")]
    if lost or unknown:
        named = ", ".join([*lost, *unknown])
        raise PersonalignError(
            f"{path / HEADS} does not have the weights of this network ({named}); train it anew"
        )
    place = choose_device(device)
    parameters = sum(item.numel() for item in network.parameters())
    return Tagger(
        name=path.name,
        network=network.to(place).eval(),
        tokenizer=tokenizer,
        relations=relations,
        precision=choose_precision(dtype, device=place, parameters=parameters),
        max_length=max_length,
    )
