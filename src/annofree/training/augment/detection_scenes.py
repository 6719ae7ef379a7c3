"""Random scenes for a detector: labeled images scaled, cut, mirrored, in other light, with things of others pasted in.

Copy-paste follows the simple form of Ghiasi et al., CVPR 2021, as CutLER describes it: of another image some instances,
scaled as one, are pasted at a random place, with hard edges, and hide what is beneath.  Where CutLER's release stretches the
other image to the shape of this one, it keeps its own shape here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from annofree.datasets.labeled import Labeled
from annofree.detectors.preprocessing import compute_working_size
from annofree.detectors.types import DetectionTargets
from annofree.errors import InputError
from annofree.ops.boxes import compute_tight_boxes
from annofree.structures import IntArray
from annofree.training.augment.color import Axis, draw_light
from annofree.training.augment.layers import Cutouts, Layer, Pixels, WindowView, crop_view, lay_over

__all__ = ["DetectionScenes", "Scene", "SceneSettings"]


@dataclass(frozen=True)
class SceneSettings:
    """How scenes are made; shares are probabilities.

    Raises InputError for a value outside its range.
    """

    # the short side in px is one of these (CutLER)
    sides: tuple[int, ...] = (240, 320, 480, 640, 672, 704, 736, 768, 800, 1024)
    # most px of the long side (detectron2)
    longest: int = 1333
    # share of scenes that show a window only, brought to that size (ours; CutLER has none)
    crop: float = 0.0
    # least part of the image's side that a window's has; the most is all of it (ours)
    crop_least: float = 0.5
    # share of mirrored images (detectron2)
    flip: float = 0.5
    # share of scenes with instances of another image pasted in (CutLER)
    copy_paste: float = 1.0
    # part of the scene that the other image is scaled to fit into, from and to (CutLER)
    paste_scale: tuple[float, float] = (0.3, 1.0)
    # most instances that are pasted, of a draw from 1 to all but one; None for no limit (CutLER)
    most_pasted: int | None = None
    # what would hide this part or more of any other is not pasted; 1 allows all (CutLER)
    most_hidden: float = 0.5
    # what then shows less than this part of itself is no target (ours)
    least_visible: float = 0.0
    # what then shows fewer px is no target (ours)
    min_area: int = 1
    # reach of brightness, contrast, saturation and hue (ours)
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    # share of scenes whose colors are jittered (ours)
    jitter_share: float = 0.0
    # whether images without instances are used (detectron2 leaves them out)
    empty: bool = False

    def __post_init__(self) -> None:
        shares = ("crop", "flip", "copy_paste", "most_hidden", "least_visible", "jitter_share")
        wrong = [f"{name} {getattr(self, name):g}" for name in shares if not 0 <= getattr(self, name) <= 1]
        counts = {"longest": self.longest, "min_area": self.min_area, "most_pasted": self.most_pasted}
        wrong += [f"{name} {value}" for name, value in counts.items() if value is not None and value < 1]
        if not self.sides or min(self.sides) < 1:
            wrong.append(f"sides {self.sides}")
        if not 0 < self.crop_least <= 1:
            wrong.append(f"crop_least {self.crop_least:g}")
        if len(self.paste_scale) != 2 or not 0 < self.paste_scale[0] <= self.paste_scale[1] <= 1:
            wrong.append(f"paste_scale {self.paste_scale}")
        if len(self.jitter) != 4 or min(self.jitter) < 0 or self.jitter[3] > 0.5:
            wrong.append(f"jitter {self.jitter}")
        if wrong:
            raise InputError(f"expected shares from 0 to 1, sides and counts from 1 and rising spans, got {', '.join(wrong)}")


class Scene(NamedTuple):
    """An image, ``pixels`` (3, H, W) uint8, and what there is to find in it: its own things, then those pasted in.

    ``scores`` (N) float32 are those of their labels.
    """

    pixels: Tensor
    target: DetectionTargets
    scores: Tensor


class DetectionScenes:
    """Makes scenes of labeled images, each seen as often as its ``repeats`` say.

    Decoded images are kept up to ``memory`` bytes, those used last.  Threads may share one.  Raises InputError where no
    image can be used, and, when a scene meets it, what ``Labeled.open`` does.
    """

    def __init__(self, labeled: Labeled, settings: SceneSettings | None = None, memory: int = 1 << 28) -> None:
        self.settings = settings or SceneSettings()
        self._album = _ImageCache(labeled, memory)
        filled = np.flatnonzero(labeled.counts > 0)
        if not len(filled):
            raise InputError(f"expected labelled things to make scenes of, but none of {len(labeled)} images has any")
        if labeled.repeats.min() <= 0:
            raise InputError(f"expected images to repeat more than 0 times, got {labeled.repeats.min():g}")
        self._filled = _Urn.of(filled, labeled)
        self._all = _Urn.of(np.arange(len(labeled)), labeled) if self.settings.empty else self._filled

    def make_scene(self, rng: np.random.Generator) -> Scene:
        """Make the next scene; the same for the same random generator."""
        own = self._album.open(self._all.draw(rng))
        layer = crop_view(own, self._view(rng, own))
        if rng.random() < self.settings.copy_paste:
            layer = self._pasted(rng, layer)
        layer = layer.drop_hidden(self.settings.least_visible, self.settings.min_area)
        return _scene(layer, self._lit(rng, layer.pixels))

    def _view(self, rng: np.random.Generator, own: Cutouts) -> WindowView:
        """Draw a window of an image, its size in the scene, and whether it is mirrored."""
        s = self.settings
        side, cut, flip = int(rng.choice(s.sides)), rng.random() < s.crop, rng.random() < s.flip
        shares, places = rng.uniform(s.crop_least, 1, 2) if cut else np.ones(2), rng.random(2)
        height, width = (max(1, round(n * share)) for n, share in zip(own.pixels.shape[:2], shares.tolist(), strict=True))
        lengths = compute_working_size((height, width), side, s.longest)
        given = zip(own.pixels.shape[:2], (height, width), lengths, places.tolist(), strict=True)
        rows, columns = (_axis(*one) for one in given)
        return WindowView(rows, columns, flip)

    def _pasted(self, rng: np.random.Generator, layer: Layer) -> Layer:
        """Paste some things of another image, which may be the same one."""
        s, other = self.settings, self._album.open(self._filled.draw(rng))
        count, limit = len(other.class_ids), s.most_pasted or len(other.class_ids)
        number = 1 if count == 1 else int(rng.integers(1, count))
        chosen = np.sort(rng.choice(count, min(number, limit), replace=False))
        scale, flip, places = rng.uniform(*s.paste_scale), rng.random() < s.flip, rng.random(2).tolist()
        size, room = other.pixels.shape[:2], layer.pixels.shape[:2]
        factor = scale * min(room[0] / size[0], room[1] / size[1])
        scaled = max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
        above = crop_view(other.select(chosen), WindowView.whole((size[0], size[1]), scaled, flip)).drop_hidden(0.0, s.min_area)
        y, x = (int(u * (n - m + 1)) for u, n, m in zip(places, room, scaled, strict=True))
        return lay_over(layer, above, (y, x), s.most_hidden)

    def _lit(self, rng: np.random.Generator, pixels: Pixels) -> Pixels:
        s = self.settings
        light = draw_light(rng, s.jitter, s.jitter_share, 0.0, 0.0, (0.0, 0.0))
        if not light.steps:
            return pixels
        red, green, blue = np.rint(pixels.mean((0, 1))).astype(int).tolist()
        return np.asarray(light.apply(PIL.Image.fromarray(pixels), (red, green, blue))[0])


def _axis(count: int, window: int, length: int, place: float) -> Axis:
    """Scale ``window`` of ``count`` lines to ``length``; it lies at ``place``, 0 .. 1."""
    scaled = max(length, round(count * length / window))
    return Axis(count, scaled, int(place * (scaled - length + 1)), 0, length)


def _scene(layer: Layer, pixels: Pixels) -> Scene:
    boxes, masks = torch.from_numpy(compute_tight_boxes(layer.masks)), torch.from_numpy(np.ascontiguousarray(layer.masks))
    target = DetectionTargets(boxes, torch.from_numpy(layer.class_ids.copy()), masks)
    scores = torch.from_numpy(layer.scores.copy())
    return Scene(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), target, scores)


@dataclass(frozen=True, eq=False)
class _Urn:
    """Indices of images, drawn in proportion to how often they repeat; ``ends`` are the sums of that so far."""

    indices: IntArray
    ends: npt.NDArray[np.float64]

    @classmethod
    def of(cls, indices: IntArray, labeled: Labeled) -> _Urn:
        return cls(indices, np.cumsum(labeled.repeats[indices], dtype=np.float64))

    def draw(self, rng: np.random.Generator) -> int:
        place = np.searchsorted(self.ends, rng.random() * self.ends[-1], side="right")
        return int(self.indices[min(int(place), len(self.indices) - 1)])


class _ImageCache:
    """Opens images, and keeps those used last within ``memory`` bytes."""

    def __init__(self, labeled: Labeled, memory: int) -> None:
        self._labelled, self._memory = labeled, memory
        self._kept: OrderedDict[int, Cutouts] = OrderedDict()
        self._used, self._lock = 0, Lock()

    def open(self, index: int) -> Cutouts:
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
        image = Cutouts.of(self._labelled.open(index))
        with self._lock:
            self._used += 0 if index in self._kept else image.memory
            self._kept[index] = image
            while self._used > self._memory:
                self._used -= self._kept.popitem(last=False)[1].memory
        return image
