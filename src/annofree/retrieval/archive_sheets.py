"""The best images of each name on a sheet, because people look before they trust."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import PIL.Image

from annofree.errors import ImageError, InputError
from annofree.io.atomic import make_folder, write_jpeg
from annofree.io.images import silence_pillow
from annofree.render.contact_sheet import Thumbnail, draw_contact_sheet
from annofree.retrieval.archive import Archive, Member
from annofree.structures import Image

__all__ = ["name_sheet", "write_sheets"]

_OURS = re.compile(r"\d{3,}-.*\.jpg")


def name_sheet(number: int, name: str) -> str:
    """Return the name of the file of a name's sheet.

    >>> name_sheet(4, "traffic light / lamp")
    '004-traffic-light-lamp.jpg'
    """
    words = re.sub(r"[^\w]+", "-", name).strip("-")[:60]
    return f"{number:03}-{words}.jpg"


def write_sheets(
    archive: Archive, folder: Path, best: int = 24, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, str]:
    """Write the sheet of each name as JPEG in place of those that were there, and say which images cannot be read, by id.

    A sheet shows the ``best`` first images of a name, with the score of each and how many other names have it too; with
    ``best`` 0 there are no sheets.  Raises InputError for fewer.
    """
    if best < 0:
        raise InputError(f"expected a number of images a sheet, got {best}")
    for left in folder.glob("*.jpg") if folder.is_dir() else ():
        if _OURS.fullmatch(left.name):
            left.unlink()
    failed: dict[str, str] = {}
    if best:
        make_folder(folder)
        with silence_pillow():
            for number, name in enumerate(archive.names):
                on_progress(number, len(archive.names))
                sheet = _drawn(archive, name, best, failed)
                write_jpeg(folder / name_sheet(number, name), sheet, quality=88)
        on_progress(len(archive.names), len(archive.names))
    return failed


def _drawn(archive: Archive, name: str, best: int, failed: dict[str, str]) -> PIL.Image.Image:
    members = archive.members[name]
    shared = sum(len(archive.list_classes(m.id)) > 1 for m in members)
    title = f"{name}: the best {min(best, len(members))} of {len(members)}"
    if members:
        title += f", cosine {members[0].score:.3f} to {members[-1].score:.3f}, {shared} under other names too"
    images = [Thumbnail(_read(archive, m.id, failed), _caption(archive, m)) for m in members[:best]]
    return draw_contact_sheet(title, images)


def _caption(archive: Archive, member: Member) -> str:
    others = len(archive.list_classes(member.id)) - 1
    return f"{member.score:.3f}" + (f", {others} more name{'s' if others > 1 else ''}" if others else "")


def _read(archive: Archive, id: str, failed: dict[str, str]) -> Image | None:  # noqa: A002 -- the word the noun uses
    try:
        return archive.open(id)
    except ImageError as problem:
        failed[id] = str(problem)
        return None
