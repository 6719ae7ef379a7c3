"""Help as plain text: options under headings, nothing cut at any width, nothing taken for markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from typer.core import TyperCommand, TyperGroup

from annofree.errors import InputError

__all__ = ["PlainCommand", "PlainGroup", "limit_to"]

_NAMES = 24  # characters of the column of names; longer ones have a line of their own
_WHOLE = 10_000  # characters of a command's first sentence, which is never cut


def limit_to(*words: str) -> dict[str, Any]:
    """Options of ``typer.Option`` for one of a few words: help shows them, shells complete them, the command checks them.

    >>> limit_to("answer", "all")["metavar"], limit_to("answer", "all")["autocompletion"]("an")
    ('answer|all', ['answer'])
    """
    return {"metavar": "|".join(words), "autocompletion": _completing(words)}


def _completing(words: Sequence[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


class PlainCommand(TyperCommand):
    """A command whose options stand under the heading that each names, in their order, and whose numbers are of this world."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; raises InputError for numbers that nothing can be counted or seeded with."""
        rest: list[str] = super().parse_args(ctx, args)
        for param in self.get_params(ctx):
            option = next((name for name in param.opts if name.startswith("--")), param.name)
            _check_number(str(option), ctx.params.get(str(param.name)))
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write_options(self, ctx, formatter)


class PlainGroup(TyperGroup):
    """A group of commands that says the whole first sentence of each."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options, and commands after them."""
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = [(name, command.get_short_help_str(_WHOLE)) for name, command in commands.items() if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows, col_max=_NAMES)


def _check_number(option: str, value: Any) -> None:
    """Refuse NaN, infinity, and whole numbers that no count and no seed can have."""
    if isinstance(value, float) and not isfinite(value):
        raise InputError(f"expected a number for {option}, got {value}")
    most = 2**63 - 1 if option.endswith("seed") else 2**31 - 1
    if isinstance(value, int) and abs(value) > most:
        raise InputError(f"expected at most {most:,} for {option}, got {value}")


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    panels: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            usual = "Arguments" if param.param_type_name == "argument" else "Options"
            panels.setdefault(getattr(param, "rich_help_panel", None) or usual, []).append(record)
    for title in sorted(panels, key=lambda title: title == "Options"):  # what has no heading of its own comes last
        with formatter.section(title):
            formatter.write_dl(panels[title], col_max=_NAMES)
