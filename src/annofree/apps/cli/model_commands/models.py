"""``annofree models``: what the weights are, and how they come to this machine and to others."""

from __future__ import annotations

import sys

import typer

from annofree.apps.cli.help import PlainCommand, PlainGroup
from annofree.apps.cli.model_commands import model_files
from annofree.apps.cli.model_text import format_details, print_models
from annofree.apps.cli.options.common import Json
from annofree.apps.cli.options.models import Markdown, ModelName
from annofree.apps.cli.results import print_result

__all__ = ["models"]

models = typer.Typer(help="List, fetch, verify and bundle model weights.", no_args_is_help=True, cls=PlainGroup)


@models.command("list", cls=PlainCommand)
def list_models(as_json: Json = False, markdown: Markdown = False) -> None:
    """List all known models and presets: kind, supervision tier, license, size, and whether they are on this machine.

    Example: annofree models list
    """
    from annofree.hub import catalogue

    print_models(catalogue.list_models(), as_json, markdown)
    for name, why in catalogue.list_broken_cards().items():
        print(f"note: {name} is left out: {why}", file=sys.stderr)


@models.command(cls=PlainCommand)
def show(name: ModelName, as_json: Json = False) -> None:
    """Show all that is known of a model, or what a preset holds.

    Example: annofree models show tiny
    """
    from annofree.methods.show_model import show_model

    details = show_model(name)
    print_result(details.as_dict(), format_details(details), as_json)


models.command(cls=PlainCommand)(model_files.pull)
models.command(cls=PlainCommand)(model_files.verify)
models.command(cls=PlainCommand)(model_files.bundle)
models.command(cls=PlainCommand)(model_files.add)
