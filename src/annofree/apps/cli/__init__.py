"""The command line: one file a command; nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys

import typer

from annofree.apps.cli.commands.convert import convert
from annofree.apps.cli.commands.doctor import doctor
from annofree.apps.cli.commands.evaluate import evaluate
from annofree.apps.cli.commands.export import export
from annofree.apps.cli.commands.export_model import export_model
from annofree.apps.cli.commands.finetune import finetune
from annofree.apps.cli.commands.index import index
from annofree.apps.cli.commands.mask import mask
from annofree.apps.cli.commands.merge import merge
from annofree.apps.cli.commands.models import models
from annofree.apps.cli.commands.pseudo_label import pseudo_label
from annofree.apps.cli.commands.relabel import relabel
from annofree.apps.cli.commands.report import report
from annofree.apps.cli.commands.reproduce import reproduce
from annofree.apps.cli.commands.retrieve import retrieve
from annofree.apps.cli.commands.review import review
from annofree.apps.cli.commands.segment import segment
from annofree.apps.cli.commands.train import train
from annofree.apps.cli.commands.world import world
from annofree.apps.cli.process import leave, program_start, started
from annofree.errors import AnnofreeError

__all__ = ["app", "main"]

_STOPPED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    name="annofree",
    help="Name the things; get boxes, masks and label maps, with no annotation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(segment)
app.command()(relabel)
app.command()(merge)
app.command()(evaluate)
app.command()(reproduce)
app.command()(index)
app.command()(retrieve)
app.command()(mask)
app.command()(pseudo_label)
app.command()(finetune)
app.command()(export_model)
app.command()(report)
app.command()(review)
app.command()(export)
app.command()(convert)
app.command()(doctor)
app.add_typer(models, name="models")
app.add_typer(train, name="train")
app.add_typer(world, name="world")


def main() -> None:
    """Run a command; what annofree refuses becomes one line and exit code 2, anything else keeps its traceback."""
    try:
        with started(program_start()):
            app(prog_name="annofree")
    except AnnofreeError as refusal:
        print(f"annofree: {refusal}", file=sys.stderr)
        leave(2)
    except SystemExit as end:
        if end.code == _STOPPED:
            print("annofree: stopped; what was done is kept", file=sys.stderr)
        leave(end.code)
