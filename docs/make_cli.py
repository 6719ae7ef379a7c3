"""Write docs/cli.md: the help of every command, as a terminal of 100 columns shows it.

uv run python docs/make_cli.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer.main

from annofree.apps.cli import app

PAGE = Path(__file__).with_name("cli.md")
_WIDTH = 100
_HEAD = """# The command line

Every command and its options; `annofree COMMAND --help` says the same. Written by `uv run python docs/make_cli.py`; a test
fails when this page is stale.
"""


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, each with the words that call it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for path, command in commands(typer.main.get_command(app), ("annofree",)):
        context: click.Context | None = None
        for word in path:
            context = click.Context(command, parent=context, info_name=word, terminal_width=_WIDTH, max_content_width=_WIDTH)
        assert context is not None  # noqa: S101
        level = "#" * (len(path) + 1)
        parts.append(f"{level} {' '.join(path)}\n\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
