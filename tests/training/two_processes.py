"""A training by two processes on this machine, which meet by gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable

__all__ = ["by_two_processes"]


def by_two_processes(train: Callable[[], object]) -> None:
    """Let two forks of this process train together, as torchrun would, and see that both end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}

    def work(rank: int) -> None:
        os.environ.update({**meeting, "RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"})
        train()

    both = [multiprocessing.get_context("fork").Process(target=work, args=(rank,)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
