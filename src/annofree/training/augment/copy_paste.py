"""Copy-paste scenes (ZUTIS): objects of several retrieved images in one, with the truth that this gives for nothing.

The first image of a scene keeps its own background and object; of the others the object alone is laid over it, at its own
size and with hard edges, and hides what is beneath.  Truth is what remains visible.  A scene is first drawn, as numbers that
do not depend on what the images hold, and then rendered; both are the same for the same random generator.

Conventions: images (H, W, 3) uint8; N instances; class ids are indices of the archive's names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError, build_unknown_error
from annofree.io.settings_file import check_names, check_values
from annofree.ops.rle import compute_rle_area
from annofree.retrieval.archive import Archive, PseudoMask
from annofree.structures import BoolArray, IntArray
from annofree.training.augment.color import Axis, ColorChange, draw_light
from annofree.training.augment.object_crops import Axes, CropCache, ObjectCrop

__all__ = ["VARIANTS", "CopyPaste", "CopyPasteSettings", "ImageDraw", "PastedScene", "SceneDraw", "read_copy_paste"]

Pixels = npt.NDArray[np.uint8]
Owners = npt.NDArray[np.uint8]
"""Whose pixel it is: 0 background, the number of an image from 1, or _PADDING."""

_PADDING = 255  # in a map of owners
_MOST_IMAGES = _PADDING - 1


@dataclass(frozen=True)
class CopyPasteSettings:
    """How scenes are made, by the numbers of ZUTIS's paper and released code; shares are probabilities.

    Raises InputError for a value outside its range.
    """

    # side of a scene in px
    crop: int = 384
    # least and most images in one
    images: Sequence[int] = (1, 10)
    # share of scenes whose images are all of one class
    same_archive: float = 0.5
    # what an image's sides are multiplied by, from and to
    scale: Sequence[float] = (0.1, 1.0)
    # whether the first image is enlarged to cover the scene where its scale would leave padding beside it (ours)
    whole_canvas: bool = False
    # share of each corner that an image smaller than the scene is put into: bottom right, top right, bottom left, top left;
    # the paper's are even, for the released ones see VARIANTS
    corners: Sequence[float] = (0.25, 0.25, 0.25, 0.25)
    # share of mirrored images
    flip: float = 0.5
    # reach of brightness, contrast, saturation and hue
    jitter: Sequence[float] = (0.8, 0.8, 0.8, 0.2)
    # share of images whose colors are jittered
    jitter_share: float = 0.8
    # share of images without color
    grey: float = 0.2
    # share of blurred images
    blur: float = 0.5
    # their blur in px, from and to
    sigma: Sequence[float] = (0.1, 2.0)
    # the label of padding
    ignored: int = 255
    # whether instances that nothing shows of stay among the targets (released code)
    keep_empty: bool = False
    # whether the last row and column of each pasted object are cut off (released code)
    lose_last_line: bool = False
    # whether an image is called by the last class that retrieved it, whichever it was drawn for (released code)
    last_class_wins: bool = False

    def __post_init__(self) -> None:
        shares = (self.same_archive, self.flip, self.jitter_share, self.grey, self.blur, *self.corners)
        if not all(0 <= share <= 1 for share in shares) or len(self.corners) != 4 or abs(sum(self.corners) - 1) > 1e-6:
            raise InputError(f"expected shares from 0 to 1, those of the four corners with the sum 1, got {shares}")
        for name, least in (("images", 1), ("scale", 1e-6), ("sigma", 0.0)):
            span = getattr(self, name)
            if len(span) != 2 or not least <= span[0] <= span[1]:
                raise InputError(f"expected {name} as two rising numbers from {least:g}, got {span}")
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise InputError(f"expected four jitters from 0, that of hue up to 0.5, got {self.jitter}")
        if self.crop < 1 or self.images[1] > _MOST_IMAGES:
            raise InputError(f"expected a crop from 1 px and up to {_MOST_IMAGES} images, got {self.crop} and {self.images}")


VARIANTS: Mapping[str, CopyPasteSettings] = {
    "default": CopyPasteSettings(),
    "official": CopyPasteSettings(
        corners=(0.25, 0.1875, 0.140625, 0.421875), keep_empty=True, lose_last_line=True, last_class_wins=True
    ),
}
"""default: what the paper says; official: with the slips of the released code."""


def read_copy_paste(table: Mapping[str, Any]) -> CopyPasteSettings:
    """The settings of a recipe's table ``scenes``: fields, and the ``variant`` that they are changes of.

    Raises InputError for settings that there are not.

    >>> read_copy_paste({"variant": "official", "crop": 192}).keep_empty, read_copy_paste({}).keep_empty
    (True, False)
    """
    held = dict(table)
    variant = str(held.pop("variant", "default"))
    if variant not in VARIANTS:
        raise build_unknown_error("variant of [scenes]", variant, VARIANTS)
    check_names("setting of [scenes]", held, [*(f.name for f in fields(CopyPasteSettings)), "variant"])
    check_values(CopyPasteSettings, held, "[scenes]")
    return replace(VARIANTS[variant], **held)


class ImageDraw(NamedTuple):
    """What is drawn for one image of a scene.

    ``class_id`` it is called by; ``far``: whether too small an image goes to the bottom and to the right; ``window``: where
    the crop lies, down and across, 0 .. 1; ``place``: where the object is pasted, likewise.
    """

    id: str
    class_id: int
    scale: float
    far: tuple[bool, bool]
    window: tuple[float, float]
    flip: bool
    light: ColorChange
    place: tuple[float, float]


SceneDraw = tuple[ImageDraw, ...]
"""The images of a scene, the canvas first."""


@dataclass(frozen=True, eq=False)
class PastedScene:
    """A scene of side S with its truth.

    ``image`` (S, S, 3) uint8; ``instances`` (N, S, S) bool, the visible pixels of each, disjoint; ``class_ids`` (N,) int64;
    ``semantic`` (S, S) int64: 0 background, 1 + class id, and the settings' ``ignored`` for padding.
    """

    image: Pixels
    instances: BoolArray
    class_ids: IntArray
    semantic: IntArray


class CopyPaste:
    """Makes scenes from an archive and the masks of its images.

    Images without a mask, or with an empty one, take no part; ``left_out`` says how many.  Decoded images are kept up to
    ``memory`` bytes, those used last.  Threads may share one; processes that are forked get one each.

    Raises InputError for a class that is left without an image, for more classes than fit below the label ``ignored``, and,
    when a scene meets it, for a mask of another size than its image.
    """

    def __init__(
        self,
        archive: Archive,
        masks: Mapping[str, PseudoMask],
        settings: CopyPasteSettings = VARIANTS["default"],
        memory: int = 1 << 30,
    ) -> None:
        if len(archive.names) >= settings.ignored:
            raise InputError(
                f"expected fewer classes than the label of padding, {settings.ignored}, got {len(archive.names)}; "
                "set ignored to a higher number, such as 1000"
            )
        self.names, self.settings = archive.names, settings
        self._archive, self._album = archive, CropCache(archive, masks, memory)
        self._by_class = [_usable(archive, masks, name) for name in archive.names]
        self._all = [(k, id_) for k, ids in enumerate(self._by_class) for id_ in ids]
        self.left_out = len(archive.ids) - len({id_ for _, id_ in self._all})

    def make_scene(self, rng: np.random.Generator) -> PastedScene:
        """Make the next scene."""
        return self.render(self.draw(rng))

    def draw(self, rng: np.random.Generator) -> SceneDraw:
        """Draw a scene: how many images, which, and what becomes of each."""
        count = int(rng.integers(self.settings.images[0], self.settings.images[1] + 1))
        if rng.random() < self.settings.same_archive:
            class_id = int(rng.integers(len(self._by_class)))
            ids = self._by_class[class_id]
            chosen = [(class_id, ids[i]) for i in rng.integers(len(ids), size=count)]
        else:
            chosen = [self._all[i] for i in rng.integers(len(self._all), size=count)]
        return tuple(self._draw_image(rng, class_id, id_) for class_id, id_ in chosen)

    def _draw_image(self, rng: np.random.Generator, class_id: int, id_: str) -> ImageDraw:
        s = self.settings
        scale = float(rng.uniform(s.scale[0], s.scale[1]))
        corner = int(np.searchsorted(np.cumsum(s.corners)[:-1], rng.random(), side="right"))
        down, across, up_down, left_right, mirrored = rng.random(5).tolist()
        light = draw_light(rng, s.jitter, s.jitter_share, s.grey, s.blur, s.sigma)
        if s.last_class_wins:
            class_id = self.names.index(self._archive.list_classes(id_)[-1])
        far = corner in (0, 2), corner in (0, 1)
        return ImageDraw(id_, class_id, scale, far, (down, across), mirrored < s.flip, light, (up_down, left_right))

    def render(self, draw: SceneDraw) -> PastedScene:
        """Make the scene that was drawn; raises ImageError for an image that cannot be read."""
        image, owner = self._canvas(draw[0])
        for number, picture in enumerate(draw[1:], 2):
            self._paste(image, owner, number, picture)
        return _with_truth(image, owner, [picture.class_id for picture in draw], self.settings)

    def _canvas(self, draw: ImageDraw) -> tuple[Pixels, Owners]:
        """The first image: its window (S, S, 3), and a map of owners (S, S), 1 where its object is."""
        if self.settings.whole_canvas:
            draw = draw._replace(scale=max(draw.scale, self.settings.crop / min(self._album.open(draw.id).size)))
        subject, axes = self._opened(draw)
        window = tuple(slice(axis.start, axis.start + axis.length) for axis in axes)
        size = self.settings.crop, self.settings.crop
        image, owner = np.empty((*size, 3), np.uint8), np.full(size, _PADDING, np.uint8)
        content, image[:] = subject.cut_content(axes, draw.light)
        image[window], owner[window] = content, 0
        mask, (top, left) = subject.cut_object(axes)
        owner[window][top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        return (np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(owner[:, ::-1])) if draw.flip else (image, owner)

    def _paste(self, image: Pixels, owner: Owners, number: int, draw: ImageDraw) -> None:
        """Lay the object of an image over what is there, if its window has any of it."""
        subject, axes = self._opened(draw)
        mask, (top, left) = subject.cut_object(axes)
        if not mask.size:
            return
        pixels = subject.cut_part(axes, (top, left, top + mask.shape[0], left + mask.shape[1]), draw.light)
        if draw.flip:
            mask, pixels = mask[:, ::-1], pixels[:, ::-1]
        if self.settings.lose_last_line:
            mask, pixels = mask[:-1, :-1], pixels[:-1, :-1]
        y, x = (int(u * (self.settings.crop - n + 1)) for u, n in zip(draw.place, mask.shape, strict=True))
        window = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
        np.copyto(image[window], pixels, where=mask[..., None])
        owner[window][mask] = number

    def _opened(self, draw: ImageDraw) -> tuple[ObjectCrop, Axes]:
        subject = self._album.open(draw.id)
        ends = zip(subject.size, draw.far, draw.window, strict=True)
        rows, columns = (Axis.placed(n, draw.scale, self.settings.crop, far, where) for n, far, where in ends)
        return subject, (rows, columns)


def _usable(archive: Archive, masks: Mapping[str, PseudoMask], name: str) -> list[str]:
    """The images of a class that show something."""
    members = archive.members.get(name, ())
    ids = [m.id for m in members if m.id in masks and compute_rle_area(masks[m.id].rle)]
    if not ids:
        why = "its archive is empty" if not members else f"none of its {len(members)} images has a mask that is not empty"
        raise InputError(
            f"expected images of {name!r} to make scenes of, but {why}; index more images, retrieve with a larger k, "
            "mask the archive with another saliency source, or leave the class out"
        )
    return ids


def _with_truth(image: Pixels, owner: Owners, classes: list[int], settings: CopyPasteSettings) -> PastedScene:
    """Read the truth off a map of owners."""
    class_ids = np.array(classes, np.int64)
    labels = np.zeros(_PADDING + 1, np.int64)
    labels[1 : len(classes) + 1], labels[_PADDING] = 1 + class_ids, settings.ignored
    shown = np.bincount(owner.ravel(), minlength=_PADDING)[1 : len(classes) + 1] > 0
    kept = np.flatnonzero(shown | settings.keep_empty)
    numbers = (kept + 1).astype(owner.dtype)
    return PastedScene(image, owner == numbers[:, None, None], class_ids[kept], labels[owner])
