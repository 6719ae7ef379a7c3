"""Scenes of the emoji world to make things from, drawn once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from annofree.datasets.emoji.files import write_scenes
from annofree.datasets.emoji.world import Scene, Split, World
from annofree.formats.coco import CocoFile

__all__ = ["Show", "draw_scenes"]

Show = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Opens a display of progress, given what is counted."""


def draw_scenes(out: Path, counts: Mapping[Split, int], side: int, seed: int, about: str, show: Show) -> CocoFile:
    """Draw so many scenes of each split into a folder, unless they are there, and return their truth."""
    if (out / "truth.json").exists():
        return CocoFile.read(out / "truth.json")
    world, total = World(), sum(counts.values())

    with show("images drawn") as shown:

        def scenes() -> Iterator[tuple[str, Scene]]:
            done = 0
            shown(0, total)
            for split, count in counts.items():
                for index, scene in enumerate(world.draw_scenes(count, seed, split, side)):
                    yield f"{split}-{index:05d}", scene
                    done += 1
                    shown(done, total)  # once it is written

        return write_scenes(scenes(), out, f"annofree emoji world, {about}, seed {seed}")
