"""Stages of training in several processes, which exchange gradients through gloo."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch


def on_ranks(work: Callable[..., None], *arguments: Any, ranks: int = 2) -> None:
    """Call `work(*arguments)` in so many processes; it finds its rank where torchrun would put it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["personalign.training.trainer", "tests.training.made_ranks"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        context.Process(target=_as_rank, args=(work, arguments, rank, ranks, port)) for rank in range(ranks)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    codes = [process.exitcode for process in started]
    for process in started:
        process.kill()
    assert codes == [0] * ranks, codes


def _as_rank(work: Callable[..., None], arguments: tuple[Any, ...], rank: int, ranks: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    work(*arguments)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
