"""Several processes at one piece of work, as torchrun and accelerate start them: who writes, who does what."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from personalign.errors import PersonalignError

# How long a process waits for the others, which may label a million dialogues or wait for a server meanwhile. The
# backends' own limits, 10 and 30 minutes, would end the run. One that dies ends the others through the launcher.
PATIENCE = timedelta(days=7)
_SHARDING = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `count`. Every method but `share` must be called by all of them, in the same order."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """What this process does of `items`; `merged` puts the outcomes back in order."""
        return list(items[self.rank :: self.count])

    def merged(self, mine: Sequence[Value]) -> list[Value]:
        """The outcomes of all shares, in the order of what was shared; every process gets them."""
        if self.count == 1:
            return list(mine)
        import torch.distributed

        shares: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(shares, list(mine))
        total = sum(map(len, shares))
        return [shares[index % self.count][index // self.count] for index in range(total)]

    def from_main(self, make: Callable[[], Value]) -> Value:
        """What `make` gives on the first process, which alone calls it; the others wait for it."""
        if self.count == 1:
            return make()
        import torch.distributed

        held: list[Any] = [make() if self.main else None]
        torch.distributed.broadcast_object_list(held, src=0)
        value: Value = held[0]
        return value

    def agreed(self, value: Value) -> Value:
        """What the first process found, where all looked for the same."""
        return self.from_main(lambda: value)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()

    def any(self, flag: bool) -> bool:
        """Whether it is so on any process."""
        return any(self.merged([flag])) if self.count > 1 else flag


ALONE = Ranks()


def find_ranks() -> Ranks:
    """This process's place, from the environment that a launcher set; joins the others where there are any.

    On GPUs each process takes the one of its local rank. Raises PersonalignError where the launcher would shard models.
    """
    for variable, name in _SHARDING.items():
        if os.environ.get(variable, "").lower() in ("true", "1"):
            raise PersonalignError(
                f"{variable} is set: the launcher would shard the model with {name}, but every process of a run holds a "
                "whole one; launch for data parallelism alone, as with recipes/accelerate/one-node.yaml"
            )
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count <= 1:
        return ALONE
    import torch

    if not torch.distributed.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    return Ranks(torch.distributed.get_rank(), count)
