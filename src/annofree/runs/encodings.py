"""Encodings as files: what a method knows of an image before it hears a name, in safetensors with a JSON header.

An encoding is a frozen dataclass of tensors, arrays, numbers, texts, tuples and such dataclasses.  Floats are stored as fp16 if
they fit, integers in the smallest type, booleans as bits; all are restored to their original type.  Nothing is
pickled, and a file can only be read as the dataclasses that the method says ``encode`` returns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from annofree.errors import InputError
from annofree.io.atomic import write_atomic

__all__ = ["EncodingFile", "Packed", "list_kinds", "pack", "write_encodings"]

_FORMAT = "annofree encodings 1"
_HALF = torch.finfo(torch.float16).max
_FLOATS = (torch.float32, torch.float64)
_WHOLE = (torch.uint8, torch.int16, torch.int32)

Kinds = Mapping[str, type]


@dataclass(frozen=True, eq=False)
class Packed:
    """A serialized encoding: its structure as JSON values, and its ``tensors``."""

    structure: Any
    tensors: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """Its size in bytes."""
        return sum(t.numel() * t.element_size() for t in self.tensors) + len(json.dumps(self.structure))


def pack(encoding: Any) -> Packed:
    """Serialize an encoding; raises InputError for values that are neither dataclasses nor plain types."""
    tensors: list[Tensor] = []
    structure = _structure(encoding, tensors)
    return Packed(structure, tuple(tensors))


def _structure(value: Any, tensors: list[Tensor]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, tuple):
        return {"tuple": [_structure(v, tensors) for v in value]}
    if isinstance(value, Tensor):
        return {"tensor": _kept(value, tensors), "device": value.device.type}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {"array": _kept(torch.from_numpy(np.array(value, order="C")), tensors)}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "of": type(value).__name__,
            "fields": {f.name: _structure(getattr(value, f.name), tensors) for f in fields(value)},
        }
    raise InputError(
        f"encodings are kept of tensors, arrays, numbers, texts, tuples and dataclasses of these, got {type(value).__name__}; "
        "run without --keep-encodings"
    )


def _kept(value: Tensor, tensors: list[Tensor]) -> list[Any]:
    """Add a tensor in compact form; return its key and its original type and shape."""
    whole = value.detach().cpu().contiguous()
    tensors.append(_small(whole))
    return [len(tensors) - 1, str(whole.dtype).removeprefix("torch."), list(whole.shape)]


def _small(value: Tensor) -> Tensor:
    if value.dtype == torch.bool:
        return torch.from_numpy(np.packbits(value.numpy().reshape(-1)))
    if value.dtype in _FLOATS and (not value.numel() or bool(value.abs().max() <= _HALF)):  # false for NaN, too
        return value.half()
    if value.dtype == torch.int64 and value.numel():
        low, high = int(value.min()), int(value.max())
        fits = (t for t in _WHOLE if torch.iinfo(t).min <= low and high <= torch.iinfo(t).max)
        return value.to(next(fits, torch.int64), copy=True)
    return value.clone()  # safetensors refuses tensors that share memory


def list_kinds(method: Any) -> dict[str, type]:
    """The dataclasses that a method's encodings are made of, by name, as ``encode`` says that it returns them.

    Raises InputError where it does not say.
    """
    kinds: dict[str, type] = {}
    parts = [method]
    for part in parts:  # parts have parts
        _collect(get_type_hints(type(part).encode).get("return"), kinds)
        parts += getattr(part, "parts", ())
    if not kinds:
        raise InputError(f"encodings of {type(method).__name__} cannot be kept: its encode does not say what it returns")
    return kinds


def _collect(hint: Any, kinds: dict[str, type]) -> None:
    if isinstance(hint, type) and is_dataclass(hint) and kinds.get(hint.__name__) is not hint:
        kinds[hint.__name__] = hint
        for inner in get_type_hints(hint).values():
            _collect(inner, kinds)
    for part in get_args(hint):
        _collect(part, kinds)


def write_encodings(path: Path, encodings: Mapping[str, Packed]) -> None:
    """Write encodings by the id of their image, whole or not at all."""
    named = {f"{n}.{k}": t for n, packed in enumerate(encodings.values()) for k, t in enumerate(packed.tensors)}
    pairs = [[id_, packed.structure] for id_, packed in encodings.items()]
    about = json.dumps({"format": _FORMAT, "encodings": pairs})  # one text, for safetensors keeps no order of several
    write_atomic(path, lambda temporary: save_file(named, temporary, {"annofree": about}))


class EncodingFile:
    """The encodings of a file, read one at a time; those of the dataclasses ``kinds`` (by name) and of no others.

    Raises InputError where there is no such file or it is another kind of file.
    """

    def __init__(self, path: Path, kinds: Kinds, device: str = "cpu") -> None:
        self.path, self._kinds, self._device = path, kinds, device
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("annofree", "{}"))
            if about.get("format") != _FORMAT:
                raise InputError(f"expected kept encodings in {path}, got a file of {about.get('format', 'something else')}")
            pairs: Iterable[tuple[str, Any]] = about["encodings"]
        except (OSError, SafetensorError, ValueError, KeyError) as problem:
            if isinstance(problem, InputError):
                raise
            raise InputError(f"expected kept encodings in {path}, but they cannot be read: {problem}") from None
        self._places = {id_: (n, structure) for n, (id_, structure) in enumerate(pairs)}

    def read(self, id_: str) -> Any:
        """The encoding of one image; tensors from an accelerator are moved to the device."""
        if id_ not in self._places:
            raise InputError(f"expected the encoding of {id_} in {self.path}, and it is not there")
        number, structure = self._places[id_]
        with safe_open(self.path, "pt") as file:
            return self._built(structure, lambda k: file.get_tensor(f"{number}.{k}"))

    def _built(self, structure: Any, tensor: Callable[[int], Tensor]) -> Any:
        if not isinstance(structure, dict):
            return structure
        if "tuple" in structure:
            return tuple(self._built(v, tensor) for v in structure["tuple"])
        if "tensor" in structure:
            whole = _large(tensor(structure["tensor"][0]), *structure["tensor"][1:])
            return whole if structure["device"] == "cpu" else whole.to(self._device)
        if "array" in structure:
            array: npt.NDArray[Any] = _large(tensor(structure["array"][0]), *structure["array"][1:]).numpy()
            return array
        if structure.get("of") not in self._kinds:
            known = ", ".join(self._kinds)
            raise InputError(f"expected encodings made of {known} in {self.path}, got {structure.get('of')}; another method's?")
        parts = {name: self._built(v, tensor) for name, v in structure["fields"].items()}
        try:
            return self._kinds[structure["of"]](**parts)
        except TypeError as problem:
            raise InputError(f"the encodings in {self.path} are of another version: {problem}; make the run again") from None


def _large(small: Tensor, dtype: str, shape: list[int]) -> Tensor:
    if dtype == "bool":
        bits = np.unpackbits(small.numpy(), count=int(np.prod(shape)))
        return torch.from_numpy(bits.astype(bool)).view(shape)
    return small.to(getattr(torch, dtype)).view(shape)
