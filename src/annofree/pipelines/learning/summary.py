"""What learn.json of a learning holds, read again, and what a folder without one must not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from annofree.errors import InputError

__all__ = ["read_summary", "require_free"]

_FIGURES = {"instances", "expected", "stability", "agreement", "floor", "seconds"}  # of a round in learn.json
_WRITTEN = ("round-1", "labels", "page", "detector", "detector.onnx")  # after learn.json


def read_summary(out: Path) -> dict[str, Any]:
    """What learn.json of a folder holds; nothing where there is none.  Raises InputError for one that is damaged."""
    place = out / "learn.json"
    if not place.is_file():
        return {}
    try:
        held = json.loads(place.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise _damage(place, str(problem)) from None
    kinds = {"asked": dict, "rounds": list, "held out": list}
    if not isinstance(held, dict) or not all(isinstance(held.get(key), kind) for key, kind in kinds.items()):
        raise _damage(place, f"it lacks {', '.join(kinds)}")
    if not all(isinstance(row, dict) and set(row) >= _FIGURES for row in held["rounds"]):
        raise _damage(place, f"its rounds lack {', '.join(sorted(_FIGURES))}")
    return held


def _damage(place: Path, problem: str) -> InputError:
    return InputError(f"expected {place} as `annofree learn` writes it, but it is damaged: {problem}; choose another --out")


def require_free(out: Path) -> None:
    """Refuse a folder without a learning that has something where a learning writes; nothing of it may be lost."""
    if taken := [name for name in _WRITTEN if (out / name).exists()]:
        raise InputError(
            f"expected a new folder or one of a learning, but {out} has {', '.join(taken)} and no learn.json; "
            "choose another --out"
        )
