"""Weights as files: safetensors, written and read, and state dicts and checkpoints of torch, read without running code.

A checkpoint is a zip of a pickle and of a record of bytes a storage.  Beside tensors it may hold the settings of a training, so
its pickle names classes and functions; here it gets storages and tensors, and an empty dictionary for whatever else it names.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from annofree.errors import InputError
from annofree.io.atomic import write_atomic

__all__ = ["read_checkpoint", "read_tensors", "refuse_nan", "write_half"]

_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


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


def read_checkpoint(path: Path) -> Any:
    """Read what a checkpoint holds: tensors, plain values and containers of these; objects of other classes come as empty.

    Raises InputError for a file that is no checkpoint or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(name) as file:
                return _TensorsAlone(file, archive, name.removesuffix("data.pkl")).load()
    except Exception as problem:  # a pickle that is broken, or no pickle, fails in many ways
        said = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise InputError(f"expected a checkpoint of torch in {path}, but it cannot be read: {said}; get it again") from None


def refuse_nan(state: Mapping[str, Any], path: Path) -> None:
    """Raise InputError where a weight is NaN, for a model with one answers nothing, in silence."""
    for name, value in state.items():
        if isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any()):
            raise InputError(f"expected numbers in the weights of {path}, but {name} has NaN; fetch or train the model again")


def write_half(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write weights in fp16, all of them, whole or not at all."""
    halves = {name: value.detach().cpu().half().contiguous() for name, value in state.items()}
    write_atomic(path, lambda temporary: save_file(halves, temporary, metadata={"format": "pt"}))


class _Inert(dict[Any, Any]):
    """Stands for an object of a class that is not known here: takes whatever a pickle does with it, and stays empty."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Forget the state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget the item."""

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return _Inert()

    def append(self, value: Any) -> None:
        """Forget the value."""

    def extend(self, values: Any) -> None:
        """Forget the values."""


class _TensorsAlone(pickle.Unpickler):
    """Reads the pickle of a checkpoint, which lies in ``archive`` below ``root``."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A storage's type, one of the three makers of state dicts, or what stands for anything else."""
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        return known.get((module, name), _Inert)

    def persistent_load(self, pid: Any) -> Tensor:
        """The values of a storage, one after another."""
        _, dtype, key, _, count = pid
        if key not in self._storages:
            held = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = torch.frombuffer(held, dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data
