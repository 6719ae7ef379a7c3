"""The JSON that a folder of a model has beside its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from annofree.errors import InputError

__all__ = ["read_model_config"]


def read_model_config(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model folder; raises InputError when it is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"expected JSON in {path}, but it cannot be read: {problem}; fetch the model again") from None
    if not isinstance(found, dict):
        raise InputError(f"expected a JSON object in {path}, got {type(found).__name__}")
    return found
