"""What a masker was asked, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["plain_prompts"]


def plain_prompts(prompts: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the boxes and the points of a call, as lists, None for those it has not."""
    boxes, points = (prompts.get(name) for name in ("boxes", "points"))
    return None if boxes is None else boxes.tolist(), None if points is None else points.tolist()
