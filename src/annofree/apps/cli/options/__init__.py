"""The options of the commands, by subject: each stands once, and commands that share one say the same of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["pass_on"]


def pass_on(options: Mapping[str, Any], *own: str) -> dict[str, Any]:
    """The options of a command but for its ``own``: what it passes on under the same names, given its ``locals()``.

    >>> pass_on({"device": "cpu", "quiet": True}, "quiet")
    {'device': 'cpu'}
    """
    return {name: value for name, value in options.items() if name not in own}
