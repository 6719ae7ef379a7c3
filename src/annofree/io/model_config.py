"""The JSON that a folder of a model has beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.read_json import read_json_object

__all__ = ["read_model_config"]


def read_model_config(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model folder; raises InputError when it is not one."""
    try:
        return read_json_object(path)
    except (OSError, ValueError) as problem:
        raise InputError(f"expected JSON in {path}, but it cannot be read: {problem}; fetch the model again") from None
