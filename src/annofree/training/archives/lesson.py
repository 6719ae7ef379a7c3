"""What a training learns from: the names, images and masks of an archive that its recipe takes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from annofree.errors import InputError, build_unknown_error
from annofree.retrieval.archive import Archive, PseudoMask, read_masks
from annofree.training.archives.masks import choose_masks, name_strict_looks

__all__ = ["ArchiveRecipe", "compute_fingerprint", "read_archive"]


class ArchiveRecipe(Protocol):
    """A recipe that says which of an archive it takes; ``ZutisRecipe`` explains the fields."""

    @property
    def archive(self) -> Path:
        """The folder of the archive."""
        ...

    @property
    def exclude(self) -> tuple[str, ...]:
        """Names that are held out."""
        ...

    @property
    def min_quality(self) -> float:
        """Of masks, by the model that made them."""
        ...

    @property
    def min_part(self) -> float:
        """The share of a mask that its largest part has."""
        ...

    @property
    def max_border(self) -> float:
        """The share of an image's border that a mask covers."""
        ...


def read_archive(recipe: ArchiveRecipe) -> tuple[Archive, dict[str, PseudoMask]]:
    """Read the archive of a recipe without the names that are held out, and those of its masks that the recipe takes.

    Raises InputError when there is no archive or no mask, for an unknown name to hold out, and for a name without an image
    that shows something, and says which command to run, or which settings of the recipe left its masks out.
    """
    whole = Archive.read(recipe.archive)
    for name in recipe.exclude:
        if name not in whole.names:
            raise build_unknown_error("name to exclude", name, whole.names)
    every = read_masks(recipe.archive)
    if not every:
        raise InputError(f"expected masks of the images in {recipe.archive}, got none; run `annofree mask {recipe.archive}`")
    names = tuple(name for name in whole.names if name not in recipe.exclude)
    if not names:
        raise InputError(f"expected names to learn, but all {len(whole.names)} of {recipe.archive} are excluded")
    members = {name: whole.members[name] for name in names}
    archive = Archive(names, members, whole.places, whole.about)
    if empty := [name for name in names if not members[name]]:
        raise InputError(
            f"expected images of each name in {recipe.archive}, got none of {_listed(empty)}; run `annofree retrieve` over "
            "more images, or exclude these names in the recipe"
        )
    return archive, _choose(recipe, archive, every)


def _choose(recipe: ArchiveRecipe, archive: Archive, every: Mapping[str, PseudoMask]) -> dict[str, PseudoMask]:
    """The masks that a recipe takes of ``every`` one of an archive; raises InputError where none of a name shows something."""
    shown = {id_: mask for id_, mask in every.items() if mask.quality > 0}
    if bare := _list_bare(archive, shown):
        raise InputError(
            f"expected masks for each name in {recipe.archive}, got none that shows something of {_listed(bare)}; "
            f"run `annofree mask {recipe.archive}` to its end, or with another source of masks, or exclude these names"
        )
    looks = {"min_quality": recipe.min_quality, "min_part": recipe.min_part, "max_border": recipe.max_border}
    masks = choose_masks(every, **looks)
    if bare := _list_bare(archive, shown.keys() & masks.keys()):
        lost = {m.id: shown[m.id] for name in bare for m in archive.members[name] if m.id in shown}
        raise InputError(
            f"expected masks for each name in {recipe.archive}, but {name_strict_looks(lost, looks)} of the recipe leaves "
            f"out all of {_listed(bare)}; take a milder one, or exclude these names"
        )
    return masks


def _list_bare(archive: Archive, shown: Collection[str]) -> list[str]:
    """The names of an archive none of whose images is among those with a mask that shows something."""
    return [name for name in archive.names if not any(member.id in shown for member in archive.members[name])]


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def compute_fingerprint(archive: Archive, masks: Mapping[str, PseudoMask]) -> str:
    """Condense what scenes are made of, names, images and masks, into one key."""
    held = hashlib.sha256()
    for name in archive.names:
        held.update(f"{name}\n".encode())
        for member in archive.members[name]:
            mask = masks.get(member.id)
            held.update(f"{member.id} {mask.rle if mask else None}\n".encode("utf-8", "surrogateescape"))
    return held.hexdigest()
