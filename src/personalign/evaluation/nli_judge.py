"""A judge that is a three-class NLI cross-encoder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from personalign.errors import PersonalignError
from personalign.evaluation.judge import LABELS, Pair, Progress, Verdicts, class_of
from personalign.models.hub import hub_arguments
from personalign.models.precision import Dtype, Precision, autocast, choose_device, choose_precision


@dataclass(frozen=True, slots=True)
class NliJudge:
    """Judges pairs with a sequence classifier. Build it with `load_judge`.

    `columns[k]` is the model's output index of the class `LABELS[k]`, read from the model's configuration. Logits are
    divided by `temperature` before the softmax, so that probabilities mean what they say.
    """

    name: str
    model: Any
    tokenizer: Any
    columns: tuple[int, int, int]
    precision: Precision
    temperature: float = 1.0
    batch_size: int = 64
    max_length: int = 128
    progress: Progress | None = None

    @property
    def key(self) -> str:
        """What decides a verdict, for a cache: weights, architecture, tokenizer and settings, not where they lie."""
        digest = hashlib.blake2b(digest_size=16)
        for name, weight in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        digest.update(_how_it_cuts(self.tokenizer).encode())
        config = {name: value for name, value in self.model.config.to_dict().items() if name[0] != "_"}
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        settings = (
            self.columns,
            self.temperature,
            self.max_length,
            self.precision.dtype,
            str(self.model.device.type),
        )
        return f"{digest.hexdigest()} {settings}"

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        """Equal pairs are judged once; batches are sorted by length, which changes no verdict."""
        logits = self.logits(pairs) / self.temperature
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Verdicts(weights / weights.sum(axis=1, keepdims=True))

    def logits(self, pairs: Sequence[Pair]) -> npt.NDArray[np.float32]:
        """[N, 3] in the order of `LABELS`, before the temperature."""
        distinct = list(dict.fromkeys(pairs))
        encoded = encode_pairs(self.tokenizer, distinct, max_length=self.max_length)
        # By tokens, not by characters: hardly a batch is padded then.
        order = sorted(range(len(distinct)), key=lambda index: len(encoded["input_ids"][index]))
        found = np.zeros((len(distinct), 3), dtype=np.float32)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            rows = {name: [values[index] for index in batch] for name, values in encoded.items()}
            found[batch] = self._logits_of(pad_pairs(self.tokenizer, rows)).numpy()
            if self.progress is not None:
                self.progress(start + len(batch), len(distinct))
        place = {pair: index for index, pair in enumerate(distinct)}
        return found[np.array([place[pair] for pair in pairs], dtype=np.int64)]

    @torch.inference_mode()
    def _logits_of(self, inputs: Any) -> torch.Tensor:
        with autocast(self.precision):
            logits: torch.Tensor = self.model(**inputs.to(self.model.device)).logits
        return logits.float()[:, list(self.columns)].cpu()


def _how_it_cuts(tokenizer: Any) -> str:
    """All of a fast tokenizer: its vocabulary alone says nothing of lower-casing or merges."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Padding and truncation are set anew with every call.
        whole = json.loads(backend.to_str())
        return json.dumps({**whole, "padding": None, "truncation": None}, sort_keys=True)
    return json.dumps([repr(tokenizer.init_kwargs), tokenizer.get_vocab()], sort_keys=True)


def load_judge(
    folder: Path | str,
    *,
    batch_size: int = 64,
    max_length: int = 128,
    dtype: Dtype = "float32",
    device: str = "cpu",
    progress: Progress | None = None,
) -> NliJudge:
    """Load a judge from a folder or hub id, its weights in fp32; `dtype` is what it computes in.

    Raises PersonalignError if it cannot be loaded, if its three classes are not named in its configuration, and for
    a device or a dtype that this machine does not have.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    place = choose_device(device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **hub_arguments(folder))
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, **hub_arguments(folder)
        )
    except (OSError, ValueError) as error:
        raise PersonalignError(f"'{folder}' cannot be loaded as a judge: {error}") from error
    return NliJudge(
        name=Path(folder).name if Path(folder).is_dir() else str(folder),
        model=model.to(place).eval(),
        tokenizer=tokenizer,
        columns=label_columns(model.config.id2label),
        precision=choose_precision(dtype, device=place, parameters=model.num_parameters()),
        temperature=_temperature_of(folder),
        batch_size=batch_size,
        max_length=max_length,
        progress=progress,
    )


def _temperature_of(folder: Path | str) -> float:
    """What `personalign judge train` found; 1 for a judge of another make."""
    record = Path(folder) / "judge.json"
    if not record.is_file():
        return 1.0
    try:
        temperature = float(json.loads(record.read_text(encoding="utf-8")).get("temperature", 1.0))
    except (ValueError, TypeError, AttributeError) as error:
        raise PersonalignError(f"{record}: {error}; copy the file again, or train the judge anew") from None
    if not temperature > 0:
        raise PersonalignError(f"{record}: temperature is {temperature}; write a number above 0")
    return temperature


def label_columns(id2label: dict[int, str]) -> tuple[int, int, int]:
    """Where a model keeps entailment, neutral and contradiction.

    Raises PersonalignError unless its three labels name these three classes in some order: which output
    is which differs from model to model and is never assumed.
    """
    advice = (
        f"the model's id2label is {dict(id2label)}; a judge needs three classes named entailment, "
        f"neutral and contradiction: set id2label in its config.json"
    )
    try:
        column_of = {class_of(name): int(index) for index, name in id2label.items()}
    except PersonalignError as error:
        raise PersonalignError(f"{error}; {advice}") from None
    if len(id2label) != 3 or len(column_of) != 3:
        raise PersonalignError(advice)
    return column_of[0], column_of[1], column_of[2]


def encode_pairs(tokenizer: Any, pairs: Sequence[Pair], *, max_length: int) -> dict[str, list[list[int]]]:
    """What the model is given of each pair, unpadded; of too long a pair, the longer text loses its end."""
    if not pairs:
        return {"input_ids": []}
    encoded: dict[str, list[list[int]]] = tokenizer(
        [premise for premise, _ in pairs],
        [hypothesis for _, hypothesis in pairs],
        truncation=True,
        max_length=max_length,
    )
    return dict(encoded)


def pad_pairs(tokenizer: Any, rows: Mapping[str, list[list[int]]]) -> Any:
    """One padded batch of what `encode_pairs` gave."""
    from transformers.data.data_collator import pad_without_fast_tokenizer_warning

    return pad_without_fast_tokenizer_warning(tokenizer, dict(rows), return_tensors="pt")


ID_TO_LABEL = dict(enumerate(LABELS))
