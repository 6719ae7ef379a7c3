"""One process of a training, or one of several that ``torchrun`` started: who it is, and what it shares with the others.

A batch is the same whether one process or several learn from it: each takes its share of the images, and gradients are
averaged.  So a loss has to be a mean over the images of a share, or be divided by a mean over processes
(``DistributedContext.average``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from annofree.errors import InputError

__all__ = ["DistributedContext", "join_processes"]


@dataclass(frozen=True)
class DistributedContext:
    """Process number ``index`` of ``count``, on ``device``; alone by default.

    >>> DistributedContext(1, 2).local_slice(8), DistributedContext().local_slice(8)
    (range(4, 8), range(0, 8))
    """

    index: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.index == 0

    def local_slice(self, batch: int) -> range:
        """Which images of a batch are this process's; raises InputError where they do not share evenly."""
        if batch % self.count:
            raise InputError(f"expected a batch that {self.count} processes can share evenly, got {batch}")
        each = batch // self.count
        return range(self.index * each, (self.index + 1) * each)

    def average(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes, without a gradient; all of them have to ask."""
        value = value.detach()
        if self.count > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.count
        return value

    def check_any(self, flag: bool) -> bool:
        """Whether any process says so; all of them have to ask."""
        if self.count == 1:
            return flag
        return bool(self.average(torch.tensor(float(flag), device=self.device)) > 0)

    def wrap_ddp(self, model: nn.Module) -> nn.Module:
        """Let a model, on ``device``, average its gradients over all processes; its weights become those of the first one."""
        if self.count == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.startswith("cuda") else None)


@contextmanager
def join_processes(device: str = "cpu") -> Iterator[DistributedContext]:
    """Join the processes that ``torchrun`` started, each with a device of its own; without ``torchrun`` be alone.

    Processes meet through NCCL on GPUs and through gloo otherwise.  Raises InputError where there are fewer GPUs.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield DistributedContext(device=device)
        return
    if device == "cuda":
        device = _own_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield DistributedContext(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()


def _own_gpu(local: int) -> str:
    if local >= torch.cuda.device_count():
        raise InputError(f"expected a GPU for each process, got {torch.cuda.device_count()}; lower --nproc-per-node")
    torch.cuda.set_device(local)
    return f"cuda:{local}"
