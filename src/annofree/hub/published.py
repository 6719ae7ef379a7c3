"""Files that makers of a model publish as pickles of tensors: read without running code, and written as safetensors, once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.hub.cards import Card, hash_file

__all__ = ["convert_published"]

_CHECKPOINTS = {"TCL": ("model", "masker.")}
"""Of families that are published as whole checkpoints, where the weights are, and how those begin that were trained."""


def convert_published(card: Card, path: Path, target: Path) -> dict[str, str]:
    """Write the tensors of the published file of a model as safetensors, and return its hash by the name of the file.

    It is known by that hash where the card has one, and by how many numbers it holds.  Of a checkpoint that holds the state of
    a training, too, such as TCL's, the weights that its family needs are taken, and nothing else is made of it.  Raises
    InputError for another file, and for one that holds more than tensors where its family is no checkpoint.
    """
    from safetensors.torch import save_file

    from annofree.io.tensors import refuse_nan

    found, known = hash_file(path), card.published.get(path.name)
    if known is not None and found != known:
        hashes = f"expected SHA-256 {known[:12]}..., got {found[:12]}..."
        raise InputError(f"{path} is not the published file: {hashes}; get it again")
    state = _read_weights(card, path)
    refuse_nan(state, path)
    count = sum(value.numel() for value in state.values() if value.is_floating_point())
    if card.parameters and count != card.parameters and known is None:
        raise InputError(
            f"expected the {card.parameters:,} numbers of {card.name} in {path}, got {count:,}; it is the file of another "
            f"model, that of this one is at {card.address}"
        )
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, target)
    return {path.name: found}


def _read_weights(card: Card, path: Path) -> dict[str, Any]:
    """The tensors of a file that a network is made of."""
    from annofree.io.tensors import read_checkpoint, read_tensors

    if card.family.split(" ")[0] not in _CHECKPOINTS:
        return _unwrap(read_tensors(path), path)
    key, prefix = _CHECKPOINTS[card.family.split(" ")[0]]
    held = read_checkpoint(path)
    state = _unwrap(held.get(key, held) if isinstance(held, Mapping) else held, path)
    kept = {name: value for name, value in state.items() if name.startswith(prefix)}
    if not kept:
        raise InputError(f"expected weights called {prefix}... in {path}, got {', '.join(list(state)[:3])} ...")
    return kept


def _unwrap(held: Any, path: Path) -> dict[str, Any]:
    """The tensors of a file by name; what is around them is taken off, as long as there is nothing else."""
    from torch import Tensor

    while isinstance(held, Mapping) and len(held) == 1 and isinstance(inner := next(iter(held.values())), Mapping):
        held = inner
    if not isinstance(held, Mapping) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise InputError(f"expected tensors by name, and nothing else, in {path}; get the published file again")
    return dict(held)
