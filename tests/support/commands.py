"""Commands called as a person calls them, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.testing import CliRunner, Result

from annofree.errors import InputError

__all__ = ["invoker", "refusal_of"]


def invoker(*commands: Callable[..., Any]) -> Callable[..., Result]:
    """Return what calls an app of some commands; the name of one alone is not written."""
    app = typer.Typer()
    for command in commands:
        app.command()(command)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal_of(result: Result) -> str:
    """Return what a command refused its call with; raises AssertionError where it did not."""
    assert isinstance(result.exception, InputError), result.exception
    return str(result.exception)
