"""Weights as files: safetensors, written and read, and state dicts of torch, read without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from annofree.errors import InputError
from annofree.io.atomic import write_atomic

__all__ = ["read_tensors", "refuse_nan", "write_half"]


def read_tensors(path: Path) -> Any:
    """Read what a .safetensors file holds, or a .pt or .pth file with tensors and plain values alone.

    Raises InputError when it cannot be read.
    """
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as problem:
        raise InputError(f"expected safetensors in {path}: {problem}") from None
    except Exception as problem:  # a pickle that is broken or holds more than tensors fails in many ways
        raise InputError(f"expected tensors alone in {path}: {str(problem).splitlines()[0]}") from None


def refuse_nan(state: Mapping[str, Any], path: Path) -> None:
    """Raise InputError where a weight is NaN, for a model with one answers nothing, in silence."""
    for name, value in state.items():
        if isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any()):
            raise InputError(f"expected numbers in the weights of {path}, but {name} has NaN; fetch or train the model again")


def write_half(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write weights in fp16, all of them, whole or not at all."""
    halves = {name: value.detach().cpu().half().contiguous() for name, value in state.items()}
    write_atomic(path, lambda temporary: save_file(halves, temporary, metadata={"format": "pt"}))
