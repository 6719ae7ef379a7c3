"""``annofree world``: draw worlds whose ground truth is known."""

from __future__ import annotations

import typer

from annofree.apps.cli.help import PlainCommand, PlainGroup
from annofree.apps.cli.options.world import Font, HeldOut, Scenes, Seed, Side, Split, WorldFolder
from annofree.apps.cli.progress import show_progress
from annofree.datasets.emoji.draw import draw_emoji_world

__all__ = ["world"]

world = typer.Typer(help="Draw a world whose ground truth is known.", no_args_is_help=True, cls=PlainGroup)


@world.callback()
def _worlds() -> None:
    """Draw a world whose ground truth is known."""


@world.command(cls=PlainCommand)
def emoji(
    out: WorldFolder,
    scenes: Scenes = 100,
    seed: Seed = 0,
    split: Split = "plain",
    side: Side = 256,
    held_out: HeldOut = 0.3,
    font: Font = None,
) -> None:
    """Draw scenes of emoji: images/, truth.json (COCO instances with COCO category ids) and captions.json.

    Example: annofree world emoji --scenes 100 --split touching --out world
    """
    with show_progress("scenes") as show:
        truth = draw_emoji_world(
            out,
            scenes=scenes,
            seed=seed,
            split=split,
            side=side,
            held_out=held_out,
            font=font,
            callbacks=show.callbacks,
        )
    print(f"{len(truth.images)} scenes, {len(truth.annotations)} objects: {out}/truth.json")
