"""What a worker process is asked to do, and what it answers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

LEARNING_RATE = 1e-4
MAX_GRAD_NORM = 1.0
BETA = 0.1

Task = Literal["ours", "peer", "peer-batch", "agreement", "peak"]


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement. `micro_batch` is the peer's per-device batch size, in rows or pairs."""

    task: Task
    workload: Path
    threads: int
    size: str = "10M"
    stage: str = "stage1"
    history: str = "full"
    bf16: bool = False
    dialogues: int = 1
    micro_batch: int = 1
    device: str = "cpu"

    @property
    def batch_examples(self) -> int:
        """Turns of one update: on a GPU the paper's, which fill it; on a CPU fewer, for updates enough."""
        return 128 if self.device == "cuda" else 16


@dataclass(frozen=True, slots=True)
class Measurement:
    """One side of one row. Seconds include the optimizer and, for DPO, the reference pass."""

    examples: int
    seconds: float
    reference_seconds: float
    tokens: int
    operations: float
    memory_bytes: int
    loss: float

    def averaged_with(self, other: "Measurement") -> "Measurement":
        """The same work measured twice: a machine that gets slower or quicker in between favours neither side."""
        return replace(
            self,
            seconds=(self.seconds + other.seconds) / 2,
            reference_seconds=(self.reference_seconds + other.reference_seconds) / 2,
            memory_bytes=max(self.memory_bytes, other.memory_bytes),
        )

    @property
    def rate(self) -> float:
        return self.examples / self.seconds
