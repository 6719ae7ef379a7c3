"""The images that a run was given, opened again by the names that it has for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from annofree.errors import InputError

if TYPE_CHECKING:
    from annofree.render.page_images import Opener
    from annofree.structures import Image

__all__ = ["find_image_opener", "open_below"]


def find_image_opener(run: Path, images: str | Path | None = None) -> Opener | None:
    """Return what opens images of a run below the folder ``images``, or below the one that the run was given.

    None where neither is known any more.  Raises InputError where ``images`` is no folder.
    """
    from annofree.runs.store.summary import find_images_root

    folder = find_images_root(run) if images is None else Path(images)
    return None if folder is None else open_below(folder)


def open_below(folder: Path) -> Opener:
    """Return what opens images below a folder by their names; raises InputError when it is no folder."""
    from annofree.formats.values import find_image
    from annofree.io.files.paths import confine_name
    from annofree.io.image_sources import read_place
    from annofree.io.images import silence_pillow

    if not folder.is_dir():
        raise InputError(f"expected the folder of images that the run was given, got {folder}; check --images")

    def opened(name: str) -> Image:
        with silence_pillow():
            place = confine_name(folder, name)
            found = find_image(folder, name)
            return read_place(str(place if found is None else confine_name(folder, found.relative_to(folder))), name)

    return opened
