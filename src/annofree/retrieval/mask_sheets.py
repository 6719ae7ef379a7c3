"""The pseudo-masks of each name on a sheet, because people look before they train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from annofree.errors import ImageError
from annofree.hub.store import make_slug
from annofree.io.atomic import make_folder, write_jpeg
from annofree.ops.rle import decode_rle
from annofree.render.contact_sheet import Thumbnail, draw_contact_sheet
from annofree.render.overlay import draw_overlay
from annofree.retrieval.archive import Archive, PseudoMask, read_masks
from annofree.structures import Detections, Image

__all__ = ["write_mask_sheets"]


def write_mask_sheets(archive: Archive, folder: Path, count: int, on_progress: Callable[[int, int], None]) -> None:
    """Draw the first ``count`` masks of each name that has any over their images, sheets/masks-NAME.jpg."""
    masks, total = read_masks(folder), len(archive.members)
    make_folder(folder / "sheets")
    for k, name in enumerate(archive.names):
        on_progress(k, total)
        chosen = [masks[m.id] for m in archive.members[name] if m.id in masks][:count]
        sheet = draw_contact_sheet(f"{name}: masks and their quality", [_thumbnail(archive, m, k) for m in chosen])
        write_jpeg(folder / "sheets" / f"masks-{make_slug(name)}.jpg", sheet, quality=90)
    on_progress(total, total)


def _thumbnail(archive: Archive, found: PseudoMask, class_id: int) -> Thumbnail:
    """Draw an image with its mask, in the color of its class."""
    try:
        image = archive.open(found.id)
    except ImageError:
        return Thumbnail(None, found.id)  # it was there when it was masked
    decoded = decode_rle(found.rle)
    if decoded.shape != image.size:
        return Thumbnail(image, f"{found.quality:.2f}, of another size")
    drawn = draw_overlay(image, Detections.from_masks(decoded[None], [class_id], [found.quality], archive.names))
    return Thumbnail(Image(np.asarray(drawn.convert("RGB"))), f"{found.quality:.2f}")
