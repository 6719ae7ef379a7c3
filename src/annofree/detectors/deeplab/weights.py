"""Saving and loading of NamedMask networks: a folder with ``namedmask.json`` and weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from annofree.detectors.checkpoint import fill_network, save_state
from annofree.detectors.deeplab.network import DeepLab, DeepLabConfig
from annofree.errors import InputError, MissingError
from annofree.io.atomic import write_json

__all__ = ["CONFIG", "load_namedmask", "save_namedmask"]

CONFIG = "namedmask.json"


def save_namedmask(network: DeepLab, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write a network into a folder, each file atomically; weights of two axes and more in ``dtype``."""
    save_state(network, folder, dtype)
    write_json(folder / CONFIG, asdict(network.config), indent=2)


def load_namedmask(folder: Path, device: str = "cpu") -> DeepLab:
    """Load a network for use, in float32 and evaluation mode.

    Raises MissingError if there is none, InputError for files that do not fit each other.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise MissingError(f"expected a folder with {CONFIG} at {folder}; there is none, run `annofree train namedmask` first")
    try:
        network = DeepLab(DeepLabConfig.of(json.loads(path.read_text(encoding="utf-8"))))
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as problem:
        raise InputError(f"expected the configuration of a NamedMask network in {path}: {problem}") from None
    fill_network(network, folder, CONFIG)
    return network.eval().requires_grad_(False).to(device)
