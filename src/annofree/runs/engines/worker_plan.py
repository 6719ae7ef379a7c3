"""How many workers a cluster takes, and what each has of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from annofree.errors import InputError

__all__ = ["WorkerPlan", "plan_workers"]

_CPUS = 4  # a worker has, by default: models are in memory once a worker
_FREE = 0.9  # of a processor: a worker that takes whole ones may leave none for others, and nothing would ever move


@dataclass(frozen=True)
class WorkerPlan:
    """How many workers there are, what Ray counts each as, and how many threads each computes with."""

    workers: int
    cpus: float
    gpus: float
    threads: int


def plan_workers(resources: Mapping[str, float], device: str, asked: int | None) -> WorkerPlan:
    """Share out what a cluster has: by default a worker a GPU, or one for four processors.

    ``OMP_NUM_THREADS`` says how many threads a worker computes with, else they share the processors.  Raises InputError for a
    GPU where there is none.

    >>> plan_workers({"CPU": 8.0}, "cpu", None).workers
    2
    >>> plan_workers({"CPU": 8.0, "GPU": 1.0}, "cuda", 2).gpus
    0.5
    """
    cpus, gpus = max(1, int(resources.get("CPU", 1))), int(resources.get("GPU", 0))
    on_gpu = device.startswith("cuda")
    if on_gpu and not gpus:
        raise InputError(f"expected a GPU for --device {device}, but the cluster has none; take --device cpu")
    workers = asked or (gpus if on_gpu else max(1, cpus // _CPUS))
    threads = os.environ.get("OMP_NUM_THREADS", "")
    each = int(threads) if threads.isdecimal() and int(threads) else max(1, cpus // workers)
    share = 0.0 if not on_gpu else 1.0 if workers <= gpus else int(1000 * gpus / workers) / 1000
    return WorkerPlan(workers, round(_FREE * min(1.0, cpus / workers), 3), share, each)
