"""``annofree train zutis``: a segmenter from an archive of retrieved pictures and their masks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from annofree.apps.cli.progress import progress

__all__ = ["zutis"]


def zutis(
    config: Annotated[Path, typer.Option(help="The recipe, a TOML file; its fields are those of ZutisRecipe.")],
    archive: Annotated[Path | None, typer.Option(help="The archive, in the place of the recipe's.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write to, likewise; a run stopped there goes on.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps in all, likewise.", min=1)] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors and the figures.")] = False,
) -> None:
    """Train ZUTIS on pictures that names retrieved, without any label.

    Ctrl-C keeps what was done.  On four GPUs: torchrun --no-python --nproc-per-node 4 annofree train zutis ... --device cuda.

    Example: annofree train zutis --config recipes/zutis/voc-ablation.toml
    """
    from annofree.training.zutis.recipe import ZutisRecipe
    from annofree.training.zutis.train import fit_zutis

    recipe = ZutisRecipe.read(config, archive=archive, out=out, steps=steps)
    silent = quiet or os.environ.get("RANK", "0") != "0"  # the first of several processes speaks for all
    with progress("steps", silent) as show:
        figures = fit_zutis(recipe, device=device, on_progress=show, say=lambda text: None if silent else print(text))
    if os.environ.get("RANK", "0") == "0":
        print(f"{recipe.out}/card.json: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
