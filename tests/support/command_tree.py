"""Every command by the words that call it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer.main

from annofree.apps.cli import app

__all__ = ["ALL", "LEAVES", "commands"]


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands and groups, by the words that call them."""
    command = command or typer.main.get_command(app)
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


ALL = dict(commands())


LEAVES = [path for path, command in ALL.items() if not hasattr(command, "commands")]
