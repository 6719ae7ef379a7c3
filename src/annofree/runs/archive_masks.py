"""One mask an image of an archive, by any objectness: read ahead, kept as they are made, a bad image named and passed over.

H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from torch import Tensor

from annofree.errors import AnnofreeError, MissingError
from annofree.features.saliency import TokenCutMap
from annofree.features.selfmask import SelfMask
from annofree.io.image_sources import read_images
from annofree.io.images import silence_pillow
from annofree.ops.grids import fit_size, resize_maps
from annofree.ops.pamr import refine_maps
from annofree.ops.rle import encode_rle
from annofree.protocols import Objectness
from annofree.retrieval.archive import Archive, MaskWriter, PseudoMask
from annofree.structures import Image

__all__ = ["Refine", "mask_archive", "measure_contrast", "refine_mask"]

Refine = Literal["none", "pamr"]
"""How masks are drawn to the edges of their image."""

_PAMR_SIDE = 512  # px of the short side, at most, where masks are refined


def mask_archive(
    archive: Archive,
    writer: MaskWriter,
    source: Objectness,
    *,
    refine: Refine = "none",
    batch: int = 4,
    on_failure: Callable[[str, str], None] = lambda name, why: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, str]:
    """Mask each image that ``writer`` has no mask of, in the archive's order; return why some have none, by id.

    A mask is where the source's map is above 0.5, for TokenCut above its mean, as it cuts.  Its quality is SelfMask's
    objectness of the query that drew it, for other sources the ``measure_contrast`` of the map; 0 where nothing is found.
    """
    failed: dict[str, str] = {}
    total, known = len(archive), len(writer.done.intersection(archive.ids))

    def fail(name: str, problem: Exception) -> None:
        why = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        failed[name] = why if name in why else f"{name}: {why}"
        on_failure(name, failed[name])

    left = [(name, archive.places[name]) for name in archive.ids if name not in writer.done]
    on_progress(known, total)
    with silence_pillow():
        for images in _batches(left, batch, fail):
            for image, found in _found(source, images):
                if isinstance(found, Exception):
                    fail(image.id, found)
                else:
                    writer.add(_pseudo_mask(image, *found, source, refine))
                    known += 1
            on_progress(known + len(failed), total)
    return failed


def measure_contrast(soft: Tensor, mask: Tensor) -> float:
    """Mean of a soft map (H, W) inside a mask minus the mean outside; 0 if the mask is empty or full.

    >>> import torch
    >>> measure_contrast(torch.tensor([[0.9, 0.7, 0.2, 0.0]]), torch.tensor([[True, True, False, False]]))
    0.7
    """
    if not bool(mask.any()) or bool(mask.all()):
        return 0.0
    return round(max(0.0, float(soft[mask].mean() - soft[~mask].mean())), 6)


def refine_mask(image: Image, mask: Tensor) -> Tensor:
    """Draw a mask (H, W) bool to the edges of its image by PAMR, at 512 px of the short side at most.

    A mask that changes too much (IoU at most 0.5) is kept unrefined, as in FOUND.
    """
    size = fit_size(image.size, min(_PAMR_SIDE, *image.size), 1)
    soft = resize_maps(refine_maps(image.pixels, resize_maps(mask[None].float(), size)), image.size)[0]
    drawn = soft > 0.5
    return drawn if (drawn & mask).sum() > 0.5 * (drawn | mask).sum() else mask


def _batches(left: Iterable[tuple[str, str]], size: int, fail: Callable[[str, Exception], None]) -> Iterator[list[Image]]:
    """Read images, given by id and place, ahead in threads, ``size`` at a time."""
    waiting: list[Image] = []
    for name, _, image in read_images(left, threads=2, ahead=4 * size):
        if isinstance(image, Exception):
            fail(name, image)
            continue
        waiting.append(image)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


_Seen = tuple[Tensor, float | None]


def _found(source: Objectness, images: Sequence[Image]) -> list[tuple[Image, _Seen | Exception]]:
    """A soft map and an objectness, if the source tells one, of each image; one by one where all at once fails."""
    try:
        if isinstance(source, SelfMask):
            return [(i, (s.soft, s.objectness)) for i, s in zip(images, source.predict_masks(images), strict=True)]
        return [(i, (soft, None)) for i, soft in zip(images, source.predict_maps(images), strict=True)]
    except MissingError:
        raise  # the same for every image
    except (AnnofreeError, RuntimeError, MemoryError) as problem:
        if len(images) == 1:
            return [(images[0], problem)]
        return [one for image in images for one in _found(source, [image])]


def _pseudo_mask(image: Image, soft: Tensor, objectness: float | None, source: Objectness, refine: Refine) -> PseudoMask:
    soft = soft.cpu()
    mask = soft > (soft.mean() if isinstance(source, TokenCutMap) else 0.5)
    quality = measure_contrast(soft, mask) if objectness is None else round(objectness, 6)
    drawn = refine_mask(image, mask) if refine == "pamr" and bool(mask.any()) else mask
    return PseudoMask(image.id, encode_rle(drawn.numpy()), quality if bool(drawn.any()) else 0.0)
