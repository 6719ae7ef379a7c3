"""Saving and loading of detectors: a folder with ``detector.json`` and weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from annofree.detectors.backbones import LoadedBackbone
from annofree.detectors.base import DetectorNetwork
from annofree.detectors.build import build_network
from annofree.detectors.config import DetectorConfig
from annofree.errors import InputError, MissingError
from annofree.io.atomic import make_folder, write_atomic, write_json
from annofree.io.tensors import read_tensors, refuse_nan

__all__ = [
    *("CONFIG", "WEIGHTS", "fill_network", "load_detector", "read_config", "read_state", "save_detector", "save_state"),
    "transfer",
]

CONFIG, WEIGHTS = "detector.json", "model.safetensors"
_INNER = ("state_dict", "model", "teacher", "network")


def save_detector(network: DetectorNetwork, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a detector into a folder, each file atomically.

    Weights of two axes and more are written in ``dtype``; the rest, biases and norms, which are few, as they are: running
    variances may lie beyond what half precision can hold.
    """
    save_state(network, folder, dtype)
    write_json(folder / CONFIG, asdict(network.config), indent=2)


def save_state(network: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Write the weights of a network alone, as ``save_detector`` does."""
    make_folder(folder)
    state = {name: _kept(value.detach().cpu(), dtype) for name, value in network.state_dict().items()}
    write_atomic(folder / WEIGHTS, lambda temporary: save_file(state, temporary))


def _kept(value: Tensor, dtype: torch.dtype) -> Tensor:
    # a copy, for safetensors takes no two names of one memory
    return value.to(dtype if value.is_floating_point() and value.ndim > 1 else value.dtype, copy=True).contiguous()


def load_detector(folder: Path, device: str = "cpu") -> DetectorNetwork:
    """Load a detector for use, in float32 and evaluation mode.

    Raises MissingError if there is none, InputError for inconsistent files.
    """
    network = build_network(read_config(folder))
    fill_network(network, folder, CONFIG)
    return network.eval().requires_grad_(False).to(device)


def fill_network(network: nn.Module, folder: Path, config: str) -> None:
    """Load the weights of a folder into the network that its file ``config`` describes; raises InputError where they differ."""
    state = read_state(folder / WEIGHTS)
    wanted = network.state_dict()
    for said, names in (
        ("lack", wanted.keys() - state.keys()),
        ("also hold", state.keys() - wanted.keys()),
        ("have another shape at", {n for n in wanted if n in state and wanted[n].shape != state[n].shape}),
    ):
        if names:
            few = ", ".join(sorted(names)[:3])
            raise InputError(f"expected the weights of {folder / config}, but {folder / WEIGHTS} {said} {few}; save it again")
    network.load_state_dict(state, strict=True)


def read_config(folder: Path) -> DetectorConfig:
    """Read the configuration of a detector folder; raises MissingError if there is none, InputError if it is invalid."""
    path = folder / CONFIG
    if not path.is_file():
        raise MissingError(f"expected a detector's folder with {CONFIG} at {folder}; there is none, train one first")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return DetectorConfig.of(values)
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise InputError(f"expected the configuration of a detector in {path}: {problem}") from None


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from a .pt or .pth file, without running code; nested state dicts are found.

    Of a self-supervised checkpoint, that is the teacher.  Raises MissingError if there is none, InputError if it cannot
    be read.
    """
    if not path.is_file():
        raise MissingError(f"expected weights at {path}; there are none, train or fetch them first")
    held = read_tensors(path)
    while isinstance(held, Mapping) and (inner := next((n for n in _INNER if isinstance(held.get(n), Mapping)), None)):
        held = held[inner]
    if not isinstance(held, Mapping) or not held or not all(isinstance(v, Tensor) for v in held.values()):
        raise InputError(f"expected a state dict of tensors in {path}, got something else")
    refuse_nan(held, path)
    return dict(held)


def transfer(network: DetectorNetwork, state: Mapping[str, Tensor]) -> LoadedBackbone:
    """Load the weights of another detector in place, if name and shape match; predictors of other classes stay as initialized.

    Raises InputError if the backbone does not match completely.
    """
    wanted = network.state_dict()
    taken = {name: state[name] for name in wanted if name in state and state[name].shape == wanted[name].shape}
    fresh = tuple(name for name in wanted if name not in taken)
    backbone = [name for name in fresh if name.startswith("backbone.")]
    if backbone or not taken:
        raise InputError(
            f"expected the weights of a detector with the same backbone, but {(backbone or ['all'])[0]} does not fit"
        )
    network.load_state_dict(taken, strict=False)
    return LoadedBackbone(tuple(taken), tuple(sorted(state.keys() - taken.keys())), fresh)
