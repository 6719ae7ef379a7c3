"""Scenes of emoji whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from annofree.errors import build_unknown_error
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks

if TYPE_CHECKING:
    from annofree.datasets.emoji.world import Scene
    from annofree.formats.coco import CocoFile

__all__ = ["draw_emoji_world"]


def draw_emoji_world(
    out: str | Path,
    *,
    scenes: int = 100,
    seed: int = 0,
    split: str = "plain",
    side: int = 256,
    held_out: float = 0.3,
    font: str | Path | None = None,
    callbacks: Callbacks = Callbacks(),
) -> CocoFile:
    """Draw scenes of emoji into ``out``: images/, truth.json and captions.json; return the ground truth.

    ``split`` is plain, cluttered or touching; ``side`` the height and width in px; ``held_out`` the chance that a look is kept
    out of training; ``font`` NotoColorEmoji.ttf, where the system has none.  Raises InputError for an unknown split and for a
    folder that cannot be made, MissingError without the font.

    >>> draw_emoji_world("world", split="toching")
    Traceback (most recent call last):
    annofree.errors.InputError: unknown split 'toching'; did you mean 'touching'? Known: ...
    """
    for name, value, least, most in (("scenes", scenes, 1, None), ("side", side, 64, 1024), ("held_out", held_out, 0, 1)):
        check_range(name, value, least, most)
    from annofree.datasets.emoji.world import SPLITS, World

    if split not in SPLITS:
        raise build_unknown_error("split", split, SPLITS)
    drawn = World(None if font is None else Path(font), held_out).draw_scenes(scenes, seed, split, side)
    from annofree.datasets.emoji.files import write_scenes

    def named() -> Iterator[tuple[str, Scene]]:
        callbacks.on_progress(0, scenes)
        for number, scene in enumerate(drawn):
            yield f"{split}-{number:05d}", scene
            callbacks.on_progress(number + 1, scenes)  # once it is written

    about = f"annofree emoji world, {split}, {scenes} scenes, seed {seed}, held out {held_out}"
    return write_scenes(named(), Path(out), about)
