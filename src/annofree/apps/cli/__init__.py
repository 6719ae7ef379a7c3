"""The command line: one file a command; nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from typing import Annotated

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
from annofree.apps.cli.commands.name import name
from annofree.apps.cli.commands.pseudo_label import pseudo_label
from annofree.apps.cli.commands.relabel import relabel
from annofree.apps.cli.commands.reproduce import reproduce
from annofree.apps.cli.commands.retrieve import retrieve
from annofree.apps.cli.commands.segment import segment
from annofree.apps.cli.commands.serve import serve
from annofree.apps.cli.commands.world import world
from annofree.apps.cli.help import PlainCommand, PlainGroup
from annofree.apps.cli.look_commands.compare import compare
from annofree.apps.cli.look_commands.explain import explain
from annofree.apps.cli.look_commands.report import report
from annofree.apps.cli.look_commands.review import review
from annofree.apps.cli.model_commands import models
from annofree.apps.cli.process import exit_now, find_program_start, start_clocks
from annofree.apps.cli.train_commands import train
from annofree.apps.cli.train_commands.learn import learn
from annofree.errors import AnnofreeError
from annofree.io.files.paths import explain_os_error
from annofree.io.text import clean_text

__all__ = ["app", "main"]

_STOPPED = 130  # what typer makes of Ctrl-C

app = typer.Typer(
    name="annofree",
    no_args_is_help=True,
    cls=PlainGroup,
    rich_markup_mode=None,  # square brackets, such as those of extras, are text
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"annofree {version('annofree')}")
        raise typer.Exit


@app.callback()
def annofree(
    shows_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_tell_version)
    ] = False,
) -> None:
    """Name the things; get boxes, masks and label maps, with no annotation."""


app.command(cls=PlainCommand)(segment)
app.command(cls=PlainCommand)(serve)
app.command(cls=PlainCommand)(learn)
app.command(cls=PlainCommand)(relabel)
app.command(cls=PlainCommand)(name)
app.command(cls=PlainCommand)(merge)
app.command(cls=PlainCommand)(evaluate)
app.command(cls=PlainCommand)(reproduce)
app.command(cls=PlainCommand)(index)
app.command(cls=PlainCommand)(retrieve)
app.command(cls=PlainCommand)(mask)
app.command(cls=PlainCommand)(pseudo_label)
app.command(cls=PlainCommand)(finetune)
app.command(cls=PlainCommand)(export_model)
app.command(cls=PlainCommand)(report)
app.command(cls=PlainCommand)(review)
app.command(cls=PlainCommand)(explain)
app.command(cls=PlainCommand)(compare)
app.command(cls=PlainCommand)(export)
app.command(cls=PlainCommand)(convert)
app.command(cls=PlainCommand)(doctor)
app.add_typer(models, name="models")
app.add_typer(train, name="train")
app.add_typer(world, name="world")


def main() -> None:
    """Run a command; what annofree refuses becomes one line and exit code 2, anything else keeps its traceback."""
    try:
        with start_clocks(find_program_start()):
            app(prog_name="annofree")
    except AnnofreeError as refusal:
        print(f"annofree: {clean_text(refusal)}", file=sys.stderr)
        exit_now(2)
    except BrokenPipeError:
        raise  # whoever read what is printed went away
    except OSError as problem:
        print(f"annofree: {explain_os_error(problem)}", file=sys.stderr)
        exit_now(2)
    except RuntimeError as problem:
        if not str(problem).startswith("Symlink loop"):  # what resolving a path raises before Python 3.13
            raise
        print(f"annofree: expected a path, but a link leads to itself: {problem}; remove the link", file=sys.stderr)
        exit_now(2)
    except SystemExit as end:
        if end.code == _STOPPED:
            print("annofree: interrupted; finished work is saved, run the same command to resume", file=sys.stderr)
        exit_now(end.code)
