"""``annofree train``: train models, tiny ones such as are bundled among them."""

from __future__ import annotations

import typer

from annofree.apps.cli.help import PlainCommand, PlainGroup
from annofree.apps.cli.train_commands.detector import detector
from annofree.apps.cli.train_commands.found import found
from annofree.apps.cli.train_commands.namedmask import namedmask
from annofree.apps.cli.train_commands.selfmask import selfmask
from annofree.apps.cli.train_commands.tiny import TINY_COMMANDS
from annofree.apps.cli.train_commands.zutis import zutis

__all__ = ["train"]

train = typer.Typer(help="Train models, tiny ones such as are bundled among them.", no_args_is_help=True, cls=PlainGroup)
train.command(cls=PlainCommand)(detector)
train.command(cls=PlainCommand)(zutis)
train.command(cls=PlainCommand)(namedmask)
train.command(cls=PlainCommand)(selfmask)
train.command(cls=PlainCommand)(found)
for name, command in TINY_COMMANDS.items():
    train.command(name, cls=PlainCommand)(command)
