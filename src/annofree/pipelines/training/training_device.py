"""The device of a training, by name."""

from __future__ import annotations

__all__ = ["choose_training_device"]


def choose_training_device(name: str) -> str:
    """Return a device that torch knows, a GPU for ``auto`` where there is one; raises InputError for others.

    ``cuda`` stays as it is: under ``torchrun`` each process takes a GPU of its own.

    >>> choose_training_device("cpu")
    'cpu'
    """
    from annofree.methods.components import resolve_device

    found = resolve_device(name)
    return "cuda" if name == "cuda" else found
