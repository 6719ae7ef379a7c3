"""Environment of a run: everything that affects the last digits of its numbers.

Matrix libraries choose kernels, and the order of sums, by processor, threads and shapes.  Two runs of the same
command in equal environments are byte-identical; otherwise they agree up to rounding.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe_environment", "list_versions"]

_PACKAGES = ("annofree", "torch", "torchvision", "open_clip_torch", "timm", "transformers", "numpy", "pillow")
_VARIABLES = ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
_CPUINFO = Path("/proc/cpuinfo")


def describe_environment() -> dict[str, Any]:
    """The processor, its instructions and the threads that torch uses, versions, and the variables that choose kernels.

    The GPU is named where one is at work.
    """
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_initialized() else {}  # type: ignore[no-untyped-call]
    return {
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        **gpu,
        "threads": torch.get_num_threads(),
        "versions": list_versions(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def list_versions() -> dict[str, str]:
    """The versions of Python and of the numeric libraries."""
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}


def _processor() -> str:
    """The processor's name, or its architecture if the name is unknown."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
