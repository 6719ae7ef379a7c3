"""``annofree train detector``: a detector from labels that a method or a person made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from annofree.apps.cli.progress import progress

if TYPE_CHECKING:
    from annofree.training.detector.recipe import DetectorRecipe

__all__ = ["detector", "run"]


def detector(
    config: Annotated[Path, typer.Option(help="The recipe, a TOML file; its fields are those of DetectorRecipe.")],
    labels: Annotated[
        Path | None, typer.Option(help="A COCO file, or what `annofree pseudo-label` wrote, in the place of the recipe's.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="The folder that its file names count from, likewise.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write to, likewise; a run stopped there goes on.")] = None,
    initial: Annotated[
        str | None, typer.Option(help="What to start from, likewise: a detector, or weights of a ResNet.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps in all, likewise; the schedule is drawn out or pressed together.", min=1)
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quiet: Annotated[bool, typer.Option(help="Print nothing but errors and the figures.")] = False,
) -> None:
    """Train a detector on labels, such as those that a method made by itself; then: annofree segment --method OUT.

    Ctrl-C keeps what was done.  On four GPUs: torchrun --no-python --nproc-per-node 4 annofree train detector ...
    --device cuda.

    Example: annofree train detector --config recipes/zip/self-training.toml
    """
    from annofree.training.detector.recipe import DetectorRecipe

    recipe = DetectorRecipe.read(config, labels=labels, images=images, out=out, initial=initial)
    run(recipe if steps is None else recipe.lasting(steps), device, quiet)


def run(recipe: DetectorRecipe, device: str, quiet: bool) -> None:
    """Train by a recipe, show how far it is, and print the last figures; of several processes the first one speaks."""
    from annofree.training.detector.train import fit_detector

    first = os.environ.get("RANK", "0") == "0"
    silent = quiet or not first
    with progress("steps", silent) as show:
        figures = fit_detector(recipe, device=device, on_progress=show, say=lambda text: None if silent else print(text))
    if first:
        print(f"{recipe.out}/card.json: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
