"""The paper world as files."""

from __future__ import annotations

from pathlib import Path

import PIL.Image

from annofree.testing.paper_world import draw_paper_scenes

__all__ = ["write_scenes"]


def write_scenes(folder: Path) -> Path:
    """Make a folder of the eight images of the paper world, 0.png to 7.png, and return it."""
    folder.mkdir()
    for number, scene in enumerate(draw_paper_scenes()):
        PIL.Image.fromarray(scene.image.pixels).save(folder / f"{number}.png")
    return folder
