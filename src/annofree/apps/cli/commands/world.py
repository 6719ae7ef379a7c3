"""``annofree world``: draw worlds whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from annofree.apps.cli.help import PlainCommand, PlainGroup, one_of
from annofree.errors import unknown_name

if TYPE_CHECKING:
    from annofree.datasets.emoji.world import Scene

__all__ = ["world"]

world = typer.Typer(help="Draw a world whose truth is known.", no_args_is_help=True, cls=PlainGroup)


@world.callback()
def _worlds() -> None:
    """Draw a world whose truth is known."""


@world.command(cls=PlainCommand)
def emoji(
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    scenes: Annotated[int, typer.Option(help="How many scenes.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="The same seed gives the same scenes.", min=0)] = 0,
    split: Annotated[str, typer.Option(help="What the scenes show.", **one_of("plain", "cluttered", "touching"))] = "plain",
    side: Annotated[int, typer.Option(help="Height and width in pixels.", min=64, max=1024)] = 256,
    held_out: Annotated[float, typer.Option(help="Chance of a look kept out of training.", min=0, max=1)] = 0.3,
    font: Annotated[Path | None, typer.Option(help="NotoColorEmoji.ttf, where the system has none.")] = None,
) -> None:
    """Draw scenes of emoji: images/, truth.json (COCO instances with COCO category ids) and captions.json.

    Example: annofree world emoji --scenes 100 --split touching --out world
    """
    from annofree.apps.cli.progress import progress
    from annofree.datasets.emoji.files import write_scenes
    from annofree.datasets.emoji.world import SPLITS, World

    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    drawn = World(font, held_out).scenes(scenes, seed, split, side)
    with progress("scenes") as show:

        def named() -> Iterator[tuple[str, Scene]]:
            for number, scene in enumerate(drawn):
                yield f"{split}-{number:05d}", scene
                show(number + 1, scenes)  # once it is written

        show(0, scenes)
        about = f"annofree emoji world, {split}, {scenes} scenes, seed {seed}, held out {held_out}"
        truth = write_scenes(named(), out, about)
    print(f"{len(truth.images)} scenes, {len(truth.annotations)} objects: {out}/truth.json")
