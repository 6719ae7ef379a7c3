"""A training by two processes on this machine, which meet by gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping, Sequence

import torch

from annofree.testing.tolerances import assert_close

__all__ = ["assert_same_curves", "by_two_processes"]

Curve = Sequence[Mapping[str, float]]


def by_two_processes(train: Callable[[], object]) -> None:
    """Let two forks of this process train together, as torchrun would, and see that both end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}

    def work(rank: int) -> None:
        os.environ.update({**meeting, "RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"})
        train()

    both = [multiprocessing.get_context("fork").Process(target=work, args=(rank,), daemon=True) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(600)  # a bound for what hangs
    assert [process.exitcode for process in both] == [0, 0]


def assert_same_curves(ours: Curve, theirs: Curve) -> None:
    """Raise AssertionError unless losses are the same up to rounding, and steps and learning rates exactly."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if name == "step" or name.startswith("lr"):
                assert value == other[name]
            else:
                message = f"{name} at step {one['step']}"
                assert_close(value, other[name], dtype=torch.float32, depth="network", message=message)
