"""Fine-tune an encoder into an NLI judge, and measure judges."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from personalign._files import whole_folder, write_json, write_text
from personalign._version import __version__
from personalign.errors import PersonalignError
from personalign.evaluation.babble import HELD_OUT, babble_rows
from personalign.evaluation.calibration import calibration_error, fit_temperature
from personalign.evaluation.classification import classification_scores
from personalign.evaluation.encoder_training import batches_of_like_length, warm_up_and_decay
from personalign.evaluation.judge import LABELS, NEUTRAL, Judge, Progress
from personalign.evaluation.judge_data import JudgeData, Part, judge_data
from personalign.evaluation.nli_judge import ID_TO_LABEL, NliJudge, encode_pairs, pad_pairs
from personalign.evaluation.nli_rows import NliRow
from personalign.models.encoder import offline_encoder_folder
from personalign.models.hub import hub_arguments
from personalign.models.precision import Dtype, autocast, choose_device, choose_precision

# Fitted to a handful of rows, a temperature makes every verdict certain.
FEWEST_TO_CALIBRATE = 100
# Of each kind, against persona lines of the validation rows.
BABBLE_CHECKED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeTraining:
    """What one training of a judge is made of; see `judge_data` for the rows that it takes.

    `encoder`: folder or hub id; None means the offline MiniLM.
    `seed` decides the order of the rows, what is held out and sampled, and the new classification head.
    """

    data: Path
    out: Path
    encoder: str | None = None
    more: tuple[Path, ...] = ()
    entailed_pairs: Path | None = None
    max_entailed: int = 6000
    max_neutral: int = 3000
    facts: tuple[Path, ...] = ()
    max_facts: int = 16_000
    babble: int = 3500
    exclude: tuple[Path, ...] = ()
    part: Part = "all"
    dev_share: float = 0.08
    epochs: int = 3
    learning_rate: float = 2e-4
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    clip_norm: float = 1.0
    batch_size: int = 32
    max_length: int = 128
    dtype: Dtype = "auto"
    device: str = "cpu"
    seed: int = 0


def train_judge(config: JudgeTraining, *, progress: Progress | None = None) -> dict[str, Any]:
    """Train, keep the epoch that is best on the held-out part of the training rows, calibrate on it, measure, save.

    AdamW with linear warm-up and decay over all updates. Without a held-out part the last epoch is kept; of fewer than
    100 held-out rows no temperature is fitted, and it stays 1.
    The validation rows are looked at once, at the end. Returns what `judge.json` holds. The folder `config.out` appears
    when all is done, and not at all if the run is interrupted. Raises PersonalignError if it is there already, and for a
    device or a dtype that this machine does not have.
    """
    if config.out.exists():
        raise PersonalignError(f"{config.out} exists; name another folder, or delete it first")
    if config.epochs < 1:
        raise PersonalignError(f"epochs is {config.epochs}; write 1 or more")
    data = judge_data(
        config.data,
        more=config.more,
        entailed_pairs=config.entailed_pairs,
        max_entailed=config.max_entailed,
        max_neutral=config.max_neutral,
        facts=config.facts,
        max_facts=config.max_facts,
        babble=config.babble,
        exclude=config.exclude,
        part=config.part,
        dev_share=config.dev_share,
        seed=config.seed,
    )
    judge = _new_judge(config)
    per_epoch = _fit(judge, data, config=config, progress=progress)
    if len(data.dev) >= FEWEST_TO_CALIBRATE:
        logits = judge.logits([(row.premise, row.hypothesis) for row in data.dev])
        judge = replace(judge, temperature=fit_temperature(logits, [row.label for row in data.dev]))
    settings = replace(config, dtype=judge.precision.dtype)
    record = {
        "name": config.out.name,
        "labels": list(LABELS),
        "pair": "premise = persona line, hypothesis = reply",
        "valid": evaluate_judge(judge, data.valid),
        "held_out_babble": _babble_check(judge, data, seed=config.seed),
        "dev_accuracy_per_epoch": per_epoch,
        "temperature": judge.temperature,
        "rows": dict(data.counts),
        "settings": {name: _plain(value) for name, value in asdict(settings).items()},
        "personalign": __version__,
    }
    with whole_folder(config.out) as folder:
        judge.model.save_pretrained(folder)
        judge.tokenizer.save_pretrained(folder)
        write_json(folder / "judge.json", record)
        write_text(folder / "README.md", model_card(record))
    return record


def evaluate_judge(judge: Judge, rows: Sequence[NliRow]) -> dict[str, Any]:
    """Accuracy, macro-F1, calibration error and confusion matrix of a judge on labelled rows, as plain values."""
    verdicts = judge.judge([(row.premise, row.hypothesis) for row in rows])
    labels = np.array([row.label for row in rows])
    scores = classification_scores(labels, verdicts.classes(), class_count=len(LABELS)).as_dict(LABELS)
    return {"calibration_error": calibration_error(verdicts.probabilities, labels), **scores}


def _babble_check(judge: Judge, data: JudgeData, *, seed: int) -> dict[str, float]:
    """Share of babble that is called entailed or contradicted, by kind; kinds that were not trained on."""
    lines = [row.premise for row in data.valid]
    found = {}
    for kind in HELD_OUT:
        rows = babble_rows(data.babbler, lines, kinds=[kind], count=BABBLE_CHECKED, seed=seed)
        classes = judge.judge([(row.premise, row.hypothesis) for row in rows]).classes()
        found[kind] = float((classes != NEUTRAL).mean())
    return found


def _new_judge(config: JudgeTraining) -> NliJudge:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    set_seed(config.seed)
    device = choose_device(config.device)
    source = config.encoder if config.encoder is not None else str(offline_encoder_folder())
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **hub_arguments(source))
        model = AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=len(LABELS),
            id2label=ID_TO_LABEL,
            label2id={label: index for index, label in ID_TO_LABEL.items()},
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            **hub_arguments(source),
        )
    except (OSError, ValueError) as error:
        raise PersonalignError(f"'{source}' cannot be loaded as an encoder: {error}") from error
    return NliJudge(
        name=config.out.name,
        model=model.to(device),
        tokenizer=tokenizer,
        columns=(0, 1, 2),
        precision=choose_precision(config.dtype, device=device, parameters=model.num_parameters()),
        max_length=config.max_length,
    )


def _fit(
    judge: NliJudge, data: JudgeData, *, config: JudgeTraining, progress: Progress | None
) -> list[float]:
    """Accuracy on the held-out part, one figure per epoch; the model ends as it was at the best."""
    shuffle = random.Random(config.seed)
    updates = config.epochs * -(-len(data.train) // config.batch_size)
    # Of so small an encoder the update takes as long as the backward pass, unless it is fused.
    optimizer = torch.optim.AdamW(
        judge.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = warm_up_and_decay(optimizer, updates=updates, warmup_share=config.warmup_share)
    encoded = encode_pairs(
        judge.tokenizer, [(row.premise, row.hypothesis) for row in data.train], max_length=config.max_length
    )
    lengths = [len(ids) for ids in encoded["input_ids"]]
    per_epoch: list[float] = []
    best: dict[str, torch.Tensor] = {}
    done = 0
    for _ in range(config.epochs):
        judge.model.train()
        for batch in batches_of_like_length(lengths, size=config.batch_size, shuffle=shuffle):
            rows = {name: [values[index] for index in batch] for name, values in encoded.items()}
            inputs = pad_pairs(judge.tokenizer, rows).to(judge.model.device)
            labels = torch.tensor([data.train[index].label for index in batch], device=judge.model.device)
            with autocast(judge.precision):
                logits = judge.model(**inputs).logits
            loss = torch.nn.functional.cross_entropy(
                logits.float(), labels, label_smoothing=config.label_smoothing
            )
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(judge.model.parameters(), config.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1
            if progress is not None:
                progress(done, updates)
        judge.model.eval()
        if data.dev:
            accuracy = float(evaluate_judge(judge, data.dev)["accuracy"])
            if accuracy > max(per_epoch, default=-1.0):
                best = {name: weight.clone() for name, weight in judge.model.state_dict().items()}
            per_epoch.append(accuracy)
    if best:
        judge.model.load_state_dict(best)
    return per_epoch


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def model_card(record: dict[str, Any]) -> str:
    """The README.md of a judge, from what `judge.json` holds."""
    settings = record["settings"]
    encoder = settings["encoder"] or "all-MiniLM-L6-v2 (offline copy)"
    sources = [settings["data"], *settings["more"], settings["entailed_pairs"], *settings["facts"]]
    babble = ", ".join(f"{kind} {share:.3f}" for kind, share in record["held_out_babble"].items())
    return f"""---
library_name: transformers
pipeline_tag: text-classification
tags: [nli, dialogue, persona]
---
# {record["name"]}: an NLI judge for persona dialogue

Says whether a reply (hypothesis) entails, leaves open or contradicts a persona line (premise).
Classes in order: {", ".join(record["labels"])}. At most {settings["max_length"]} tokens a pair.
Divide the logits by {record["temperature"]:.3f} before the softmax.

- Encoder: {encoder}, fine-tuned for at most {settings["epochs"]} epochs, learning rate {settings["learning_rate"]},
  batch {settings["batch_size"]}, {settings["dtype"]}, seed {settings["seed"]}. Epoch and temperature were chosen on
  {settings["dev_share"]:.0%} of the training premises.
- Data: {", ".join(f"`{name}`" for name in sources if name)} (part: {settings["part"]}), and made-up babble as neutral.
  Rows whose premise or hypothesis occurs in these files were left out: {", ".join(settings["exclude"]) or "none"};
  so were those whose premise or hypothesis occurs in the other splits of `{settings["data"]}`.
- On its {record["rows"]["valid"]} validation rows: accuracy {record["valid"]["accuracy"]:.3f},
  macro-F1 {record["valid"]["macro_f1"]:.3f}, calibration error {record["valid"]["calibration_error"]:.3f}.
- Babble of kinds that it was not trained on, called entailed or contradicted: {babble}.

Rows:

```json
{json.dumps(record["rows"], indent=2)}
```

Written by personalign {record["personalign"]}.
The judge makes mistakes: report its accuracy with every score.
"""
