"""Writing weights as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from annofree.formats.files import write_atomic

__all__ = ["write_half"]


def write_half(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write weights in fp16, all of them, whole or not at all."""
    halves = {name: value.detach().cpu().half().contiguous() for name, value in state.items()}
    write_atomic(path, lambda temporary: save_file(halves, temporary, metadata={"format": "pt"}))
