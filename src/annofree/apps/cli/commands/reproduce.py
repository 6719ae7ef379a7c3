"""``annofree reproduce``: measure a recipe again and compare it with what it expects."""

from __future__ import annotations

import typer

from annofree.apps.cli.figure_tables import print_reproduction
from annofree.apps.cli.options.reproduce import DataFolder, FiguresFolder, Limit, Only, RecipeDevice, RecipeFile
from annofree.apps.cli.process import start_command_clock
from annofree.apps.cli.progress import show_progress
from annofree.experiments import reproduce as experiment

__all__ = ["reproduce"]


def reproduce(
    recipe: RecipeFile,
    out: FiguresFolder = None,
    limit: Limit = None,
    only: Only = None,
    data: DataFolder = None,
    device: RecipeDevice = "auto",
) -> None:
    """Measure a recipe again and print its figures; exit code 1 when one is off by more than the tolerance.

    The recipe of a bundled model examines that model, which needs the emoji font; its command trains it again.  A recipe that
    makes something first, such as recipes/emoji/zutis.toml, makes it in --out, or in reproduced/ and the recipe's name.  The
    recipe of a paper, such as recipes/zutis/coco-20k.toml, says which data sets it needs, and where in --data they have to be.

    Example: annofree reproduce recipes/emoji/zip.toml
    """
    clock = start_command_clock()
    with show_progress("images", clock=clock, loading="loading") as show:
        found = experiment.reproduce(
            recipe,
            out=out,
            limit=limit,
            only=only or (),
            data=data,
            device=device,
            callbacks=show.callbacks,
            clock=clock,
        )
    print_reproduction(found)
    raise typer.Exit(1 if found.off else 0)
