"""Train a tagger on sentences whose facts are known, and say how good it is."""

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from personalign._files import whole_folder, write_text
from personalign._version import __version__
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError
from personalign.evaluation.encoder_training import batches_of_like_length, warm_up_and_decay
from personalign.evaluation.nli_rows import normalise
from personalign.evaluation.nli_triples import Fact, read_facts
from personalign.models.precision import Dtype, autocast, choose_device, choose_precision
from personalign.personas.extraction import Extractor, gold_triples, score_extraction, split_facts
from personalign.personas.tagger import NONE, Tagger, WordBatch, new_network, word_batch, words_of

Progress = Callable[[int, int], None]

# Who talks of themselves says one of these; without them a sentence states nothing of its speaker.
_FIRST_PERSON = frozenset(
    {"i", "i'm", "im", "i've", "i'd", "i'll", "me", "my", "mine", "myself", "we", "us", "our", "ours"}
)
_WORD = re.compile(r"[\w']+")
_IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggerTraining:
    """What one training is made of.

    `facts`: sentences with triples, as `read_facts` reads them. `dialogues`: whose sentences without a word of the first
    person teach the tagger that some state nothing, `others` per hundred facts. `encoder`: folder or hub id; None: the
    offline MiniLM. The heads learn `head_factor` times as fast as the encoder.
    """

    facts: Path
    out: Path
    dialogues: Path | None = None
    others: int = 20
    encoder: str | None = None
    held_out: float = 0.1
    epochs: int = 6
    learning_rate: float = 1e-4
    head_factor: float = 5.0
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    batch_size: int = 32
    max_length: int = 64
    dtype: Dtype = "auto"
    device: str = "cpu"
    seed: int = 0


def train_tagger(config: TaggerTraining, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train on nine sentences of ten, measure on the rest, save; returns what `extractor.json` holds.

    The folder `config.out` appears when all is done. Raises PersonalignError where it exists, and for files that hold no
    facts.
    """
    if config.out.exists():
        raise PersonalignError(f"{config.out} exists; name another folder, or delete it first")
    from transformers import set_seed

    set_seed(config.seed)
    learnt, held_out = split_facts(read_facts(config.facts), held_out=config.held_out, seed=config.seed)
    spans = [(fact, span) for fact in learnt if (span := places_of(fact)) is not None]
    if not spans:
        raise PersonalignError(
            f"{config.facts}: of {len(learnt)} facts to learn from none has its words in its sentence; write words with "
            "spaces between them, or give more sentences"
        )
    others = texts_without_facts(
        config.dialogues,
        {fact.text for fact in learnt} | {fact.text for fact in held_out},
        len(spans) * config.others // 100,
        seed=config.seed,
    )
    relations = tuple(sorted({fact.relation for fact, _ in spans} | ({NONE} if others else set())))
    network, tokenizer = new_network(config.encoder, relations=len(relations))
    device = choose_device(config.device)
    parameters = sum(item.numel() for item in network.parameters())
    tagger = Tagger(
        name=config.out.name,
        network=network.to(device),
        tokenizer=tokenizer,
        relations=relations,
        precision=choose_precision(config.dtype, device=device, parameters=parameters),
        max_length=config.max_length,
    )
    start = time.monotonic()
    losses = _fit(tagger, _rows(spans, others, relations), config=config, progress=progress)
    settings = asdict(replace(config, dtype=tagger.precision.dtype))
    record = {
        "held_out": evaluate_extractor(tagger, held_out),
        "rows": {
            "facts": len(spans),
            "facts whose words are not in the sentence": len(learnt) - len(spans),
            "sentences without a fact": len(others),
            "held-out facts": len(held_out),
        },
        "loss_per_epoch": losses,
        "seconds": round(time.monotonic() - start, 1),
        "settings": {
            name: value.name if isinstance(value, Path) else value for name, value in settings.items()
        },
        "personalign": __version__,
    }
    with whole_folder(config.out) as folder:
        tagger.save(folder, record)
        write_text(folder / "README.md", _card(tagger, record))
    return record


def evaluate_extractor(extractor: Extractor, facts: Sequence[Fact]) -> dict[str, float]:
    """`score_extraction` over the sentences of facts, as plain values."""
    gold = gold_triples(facts)
    return asdict(score_extraction(list(gold.values()), extractor.triples(list(gold))))


Places = tuple[int, ...]
"""Numbers of words, in order."""


def places_of(fact: Fact) -> tuple[Places, Places] | None:
    """The words of subject and object in the sentence; None where it does not have all of them.

    Case and punctuation make no difference. Of words that are scattered, those of the shortest stretch that has them all,
    in their order where there is one.
    """
    words = [(part, at) for at, word in enumerate(words_of(fact.text)) for part in normalise(word).split()]
    subject, thing = (_shortest(words, normalise(text).split()) for text in (fact.subject, fact.object))
    return None if not subject or not thing else (subject, thing)


def _shortest(words: Sequence[tuple[str, int]], wanted: Sequence[str]) -> Places:
    for in_order in (True, False):
        found = [_taken(words[start:], wanted, in_order=in_order) for start in range(len(words))]
        stretches = [places for places in found if places]
        if stretches:
            return min(stretches, key=lambda places: places[-1] - places[0])
    return ()


def _taken(words: Sequence[tuple[str, int]], wanted: Sequence[str], *, in_order: bool) -> Places:
    """The first words that are all the wanted ones, from the very first on; nothing where they are not there."""
    left, taken = list(wanted), list[int]()
    for word, at in words:
        if word in (left[:1] if in_order else left):
            left.remove(word)
            taken.append(at)
        if not left or not taken:
            break
    return () if left else tuple(dict.fromkeys(taken))


@dataclass(frozen=True, slots=True)
class _Row:
    words: tuple[str, ...]
    relation: int
    subject: Places
    object: Places


def _rows(
    spans: Sequence[tuple[Fact, tuple[Places, Places]]], others: Sequence[str], relations: Sequence[str]
) -> list[_Row]:
    number = {name: at for at, name in enumerate(relations)}
    rows = [_Row(tuple(words_of(fact.text)), number[fact.relation], *span) for fact, span in spans]
    return rows + [_Row(tuple(words_of(text)), number[NONE], (), ()) for text in others]


def texts_without_facts(dialogues: Path | None, known: set[str], most: int, *, seed: int) -> list[str]:
    """Messages that state nothing of their speaker, as far as their words tell; none of those that are `known`."""
    if dialogues is None:
        return []
    texts = {turn.content for dialogue in read_dialogues(dialogues) for turn in dialogue.messages}
    found = sorted(text for text in texts - known if text.split() and not _FIRST_PERSON & _words(text))
    random.Random(f"{seed}/others").shuffle(found)
    return found[:most]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))


def _fit(
    tagger: Tagger, rows: Sequence[_Row], *, config: TaggerTraining, progress: Progress | None
) -> list[float]:
    """AdamW with linear warm-up and decay; the mean loss of each epoch."""
    network = tagger.network
    encoder = {id(item) for item in network.encoder.parameters()}
    heads = [item for item in network.parameters() if id(item) not in encoder]
    optimizer = torch.optim.AdamW(
        [
            {"params": list(network.encoder.parameters()), "lr": config.learning_rate},
            {"params": heads, "lr": config.learning_rate * config.head_factor},
        ],
        weight_decay=config.weight_decay,
        fused=True,
    )
    updates = config.epochs * -(-len(rows) // config.batch_size)
    schedule = warm_up_and_decay(optimizer, updates=updates, warmup_share=config.warmup_share)
    lengths = [len(row.words) for row in rows]
    shuffle = random.Random(config.seed)
    losses, done = [], 0
    for _ in range(config.epochs):
        network.train()
        total = 0.0
        for batch in batches_of_like_length(lengths, size=config.batch_size, shuffle=shuffle):
            loss = _loss(tagger, [rows[index] for index in batch])
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += float(loss.detach()) * len(batch)
            done += 1
            if progress is not None:
                progress(done, updates)
        losses.append(round(total / len(rows), 4))
    network.eval()
    return losses


def _loss(tagger: Tagger, rows: Sequence[_Row]) -> Tensor:
    device = next(tagger.network.parameters()).device
    batch = word_batch(
        tagger.tokenizer, [row.words for row in rows], max_length=tagger.max_length, device=device
    )
    relations = torch.tensor([row.relation for row in rows], device=device)
    with autocast(tagger.precision):
        found, subjects, words = tagger.network(batch)
        ends, inside = tagger.network.objects(words, relations, batch)
    loss = functional.cross_entropy(found.float(), relations)
    loss = loss + _ends_loss(ends, [row.object for row in rows], batch)
    loss = loss + _inside_loss(inside, [row.object for row in rows], batch)
    # Nearly all subjects are "i": they need less of the encoder.
    return loss + 0.5 * _ends_loss(subjects, [row.subject for row in rows], batch)


def _ends_loss(logits: Tensor, places: Sequence[Places], batch: WordBatch) -> Tensor:
    """Cross-entropy of first and last word; rows without any cost nothing."""
    ends = torch.tensor(
        [(held[0], held[-1]) if held else (_IGNORED, _IGNORED) for held in places], device=logits.device
    )
    # Words that were cut off are nowhere.
    there = (ends >= 0) & (batch.words.gather(1, ends.clamp(min=0)) >= 0)
    ends = ends.masked_fill(~there, _IGNORED)
    losses = functional.cross_entropy(logits.float(), ends, ignore_index=_IGNORED, reduction="none")
    return losses.sum() / len(places)


def _inside_loss(logits: Tensor, places: Sequence[Places], batch: WordBatch) -> Tensor:
    """Whether each word between the ends belongs, the mean over these words."""
    wanted = torch.zeros_like(logits)
    counted = torch.zeros_like(logits)
    for row, held in enumerate(places):
        if held:
            wanted[row, list(held)] = 1
            counted[row, held[0] : held[-1] + 1] = 1
    counted = counted * (batch.words >= 0)
    losses = functional.binary_cross_entropy_with_logits(logits.float(), wanted.float(), reduction="none")
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def _card(tagger: Tagger, record: dict[str, Any]) -> str:
    settings, scores = record["settings"], record["held_out"]
    encoder = settings["encoder"] or "all-MiniLM-L6-v2 (offline copy)"
    return f"""---
library_name: personalign
tags: [persona, information-extraction]
---
# {tagger.name}: an extractor of facts about who speaks

Of each sentence one fact, as subject, relation and object, of {len(tagger.relations)} relations; subject and object
are words of the sentence.

- Encoder: {encoder}, {settings["epochs"]} epochs, learning rate {settings["learning_rate"]}, seed {settings["seed"]}.
- Data: `{settings["facts"]}`, {record["rows"]["facts"]:,} facts, and {record["rows"]["sentences without a fact"]:,}
  sentences without one.
- On {scores["gold"]:,} held-out facts: exact match {scores["exact_match"]:.3f}; F1 of subjects
  {scores["subject_f1"]:.3f}, relations {scores["relation_f1"]:.3f}, objects {scores["object_f1"]:.3f}.

Written by personalign {record["personalign"]}.
"""
