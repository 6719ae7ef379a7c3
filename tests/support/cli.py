"""What a command said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Cli", "Said"]


class Said(NamedTuple):
    code: Any
    out: str
    err: str


Cli = Callable[..., Said]
