"""The images that people corrected, as labels to learn from, with the folder that they are in."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from annofree.errors import InputError
from annofree.formats.annotations import AnnotatedImage
from annofree.formats.coco_export import ANNOTATIONS, write_coco
from annofree.formats.values import find_image
from annofree.io.atomic import make_folder
from annofree.runs.corrections.answers import find_workspace, read_workspace
from annofree.runs.corrections.labels import read_corrected
from annofree.runs.store.summary import find_images_root

__all__ = ["find_corrected_root", "write_training_labels"]


def find_corrected_root(folder: Path) -> Path:
    """The folder of the images of a run or a workspace; raises InputError where it is not known any more."""
    if (folder / "shards").is_dir():
        root = find_images_root(folder)
    else:
        told = str(read_workspace(folder).get("images") or "")
        root = Path(told) if told else find_workspace(folder)
    if root is None or not root.is_dir():
        raise InputError(f"expected the images of {folder}, but they are not where it had them; name them: --images")
    return root


def write_training_labels(
    folder: Path,
    out: Path,
    *,
    images: Path | None = None,
    names: Collection[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write the corrected images of a run or a workspace to ``out`` as a COCO file, and return that; one that is there stays.

    ``images`` is their folder, if not where they were; of ``names`` alone, where they are given.  What is left out is told.
    Raises InputError for a folder without corrections.
    """
    place = out / ANNOTATIONS
    if place.is_file():
        return place  # what is resumed learns from the same
    corrected = read_corrected(folder)
    if not corrected.touched:
        raise InputError(
            f"expected images that people corrected in {folder}, and there are none; correct some with annofree serve on "
            "the run, or on the images with this folder as --out"
        )
    root = find_corrected_root(folder) if images is None else images
    found = [one for one in corrected.select_touched() if find_image(root, one.file_name) is not None]
    if lost := len(corrected.touched) - len(found):
        say(f"{lost} of {len(corrected.touched)} corrected images are not below {root}, and take no part")
    if not found:
        raise InputError(f"expected the corrected images below {root}, found none; name their folder: --images")
    wanted = list(corrected.images.categories)
    if names is not None:
        others = {thing.name for one in found for thing in one.things} - set(names)
        if others:
            say(f"corrections of other names take no part: {', '.join(sorted(others)[:8])}")
        found = [_select(one, names) for one in found]
        wanted = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
    make_folder(out)
    info = {**corrected.images.info, "images": str(root.resolve()), "description": "labels that people corrected"}
    write_coco(replace(corrected.images, categories=wanted, each=lambda: found, info=info), out)
    return place


def _select(image: AnnotatedImage, names: Collection[str]) -> AnnotatedImage:
    return replace(image, things=tuple(thing for thing in image.things if thing.name in names))
