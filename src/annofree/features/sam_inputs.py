"""What goes into a SAM and comes out of it, in the geometry of its family: images, prompts and logits.

P prompts, n points per prompt, M masks per prompt, H W pixels of the image, S the side of the model's square.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from annofree.errors import InputError
from annofree.features.preprocessing import preprocess_image
from annofree.io.read_json import read_model_config
from annofree.ops.enlarge import Enlargement
from annofree.structures import Image

__all__ = ["Fit", "Frame", "Prompts"]

Fit = Literal["pad", "squash"]
Floats = npt.NDArray[np.float32]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in all released SAMs
_BILINEAR = 2  # PIL's number, as preprocessor files write it
_LOGITS_AT_ONCE, _MASKS_AT_ONCE = 2**26, 32  # that are enlarged together


@dataclass(frozen=True)
class Frame:
    """How an image lies in the model's square, and how logits find back."""

    # of the square, in px; the model's own (1024 in the released SAMs)
    side: int
    # ``pad``: the longest side becomes ``side``, then zeros at the bottom and the right after normalizing (SAM); ``squash``:
    # both sides become ``side`` (SAM 2)
    fit: Fit
    # whether bytes are resized bilinearly with antialiasing, as the released predictors do; otherwise floats are resized
    # bicubically
    exact: bool = True
    # of each color of pixels in 0 .. 1, taken away; ImageNet's, as in all released SAMs
    mean: tuple[float, ...] = _MEAN
    # by which each color is then divided; likewise
    std: tuple[float, ...] = _STD

    @classmethod
    def read(cls, folder: Path, side: int, fit: Fit, use: Mapping[str, Any]) -> Frame:
        """Follow the preprocessor file of a model folder, else the mean and std in a card's ``use``, else the release.

        Raises InputError for a preprocessor that differs from that of its family.
        """
        for name in ("processor_config.json", "preprocessor_config.json"):
            if (folder / name).is_file():
                found = read_model_config(folder / name)
                return cls._followed(folder / name, found.get("image_processor", found), side, fit)
        if "mean" in use:
            return cls(side, fit, exact=False, mean=tuple(use["mean"]), std=tuple(use["std"]))
        return cls(side, fit)

    @classmethod
    def _followed(cls, path: Path, said: Mapping[str, Any], side: int, fit: Fit) -> Frame:
        sides = {v for key in ("size", "pad_size") for v in _values(said.get(key))}
        if sides - {side}:
            raise InputError(f"expected images of {side} px, the model's square, but {path} says {sorted(sides)}")
        steps = ("do_resize", "do_rescale", "do_normalize")
        if said.get("resample", _BILINEAR) != _BILINEAR or not all(said.get(step, True) for step in steps):
            raise InputError(f"expected a preprocessor that resizes bilinearly, rescales and normalises, but {path} does not")
        return cls(side, fit, mean=tuple(said.get("image_mean", _MEAN)), std=tuple(said.get("image_std", _STD)))

    def fit_inner(self, size: tuple[int, int]) -> tuple[int, int]:
        """The part (h, w) of the square that an image of ``size`` (H, W) fills, from the top left corner.

        >>> Frame(1024, "pad").fit_inner((480, 641)), Frame(1024, "squash").fit_inner((480, 641))
        ((767, 1024), (1024, 1024))
        """
        if self.fit == "squash":
            return self.side, self.side
        scale = self.side / max(size)
        height, width = (max(1, int(n * scale + 0.5)) for n in size)
        return height, width

    def preprocess(self, image: Image, device: torch.device) -> Tensor:
        """The image as the model sees it, (1, 3, S, S) float32."""
        height, width = self.fit_inner(image.size)
        mean, std = (torch.tensor(v, device=device) for v in (self.mean, self.std))
        x = preprocess_image(self._resized(image, (height, width), device), (height, width), mean, std)
        return F.pad(x, (0, self.side - width, 0, self.side - height))

    def _resized(self, image: Image, size: tuple[int, int], device: torch.device) -> Image:
        if not self.exact or size == image.size:
            return image
        x = torch.tensor(image.pixels).permute(2, 0, 1)
        x = vision.resize(x, list(size), interpolation=vision.InterpolationMode.BILINEAR, antialias=True)
        return Image(x.permute(1, 2, 0).numpy(), image.id)

    def scale(self, size: tuple[int, int]) -> tuple[float, float]:
        """What x and y in px of an image of ``size`` (H, W) are multiplied by, to be px of the square."""
        height, width = self.fit_inner(size)
        return width / size[1], height / size[0]

    def resize_masks(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks (P, M, *size) bool of low-resolution logits (P, M, s, s): resized bilinearly, then thresholded at zero."""
        largest = max(size[0] * size[1], self.side**2 if self.fit == "pad" else 0)
        step = max(1, min(_MASKS_AT_ONCE, _LOGITS_AT_ONCE // largest))
        pieces = torch.split(logits.flatten(0, 1), step)
        masks = torch.cat([(self._enlarged(some.float(), size) > 0).contiguous() for some in pieces])
        return masks.view(*logits.shape[:2], *size)

    def score_stability(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Stability (P, M) of masks under the threshold of logits (P, M, s, s): the IoU of the masks at 1 and at -1.

        SAM's stability score with its offset of 1, counted on the low-resolution logits; an empty mask has none, 0.
        """
        height, width = (max(1, -(-n * logits.shape[-1] // self.side)) for n in self.fit_inner(size))
        inner = logits[..., :height, :width].flatten(2)
        return (inner > 1).sum(2) / (inner > -1).sum(2).clamp(min=1)

    def build_enlargement(self, low: int, size: tuple[int, int], device: torch.device) -> Enlargement:
        """What ``resize_masks`` does to logits of ``low`` x ``low`` before it cuts them, as two matrices."""
        steps = [(low, self.side, n) for n in self.fit_inner(size)] if self.fit == "pad" else [(low, low, low)] * 2
        return Enlargement.through(steps, size, device)

    def _enlarged(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (N, s, s) at the size of the image; masks lie side by side in memory, and a CPU takes several at once."""
        x = logits[None].contiguous(memory_format=torch.channels_last)
        if self.fit == "pad":
            height, width = self.fit_inner(size)
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)[..., :height, :width]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)[0]


@dataclass(frozen=True, eq=False)
class Prompts:
    """P prompts: ``boxes`` (P, 4), ``points`` (P, n, 2) with ``labels`` (P, n), 1 foreground and 0 background, or both."""

    boxes: Tensor | None
    points: Tensor | None
    labels: Tensor | None

    @classmethod
    def of(cls, boxes: Floats | None, points: Floats | None, labels: npt.NDArray[np.integer] | None) -> Prompts:
        """Check prompts in px of an image; points may be (P, 2), and are foreground without labels.

        Raises InputError for other shapes, numbers that are not finite, or labels other than 0 and 1.
        """
        if points is not None and points.ndim == 2:
            points, labels = points[:, None], labels[:, None] if labels is not None and labels.ndim == 1 else labels
        _refuse_unfit(boxes, points, labels)
        if points is not None and labels is None:
            labels = np.ones(points.shape[:2], np.int64)
        b, p = (None if a is None else torch.from_numpy(np.array(a, np.float32)) for a in (boxes, points))
        return cls(b, p, None if labels is None else torch.from_numpy(np.array(labels, np.int64)))

    def __len__(self) -> int:
        first = self.points if self.boxes is None else self.boxes
        return 0 if first is None else len(first)

    @property
    def kind(self) -> tuple[bool, int]:
        """Whether there are boxes, and the number of points per prompt: only prompts of one kind can be batched."""
        return self.boxes is not None, 0 if self.points is None else self.points.shape[1]

    def to_square(self, scale: tuple[float, float], device: torch.device) -> Prompts:
        """The same prompts in px of the model's square, on its device."""
        factor = torch.tensor(scale, device=device)
        boxes = None if self.boxes is None else self.boxes.to(device) * factor.repeat(2)
        points = None if self.points is None else self.points.to(device) * factor
        return Prompts(boxes, points, None if self.labels is None else self.labels.to(device))

    def split(self, count: int) -> list[Prompts]:
        """The same prompts in pieces of at most ``count``."""
        parts = [[None] * -(-len(self) // count) if t is None else torch.split(t, count) for t in self._fields()]
        return [Prompts(*piece) for piece in zip(*parts, strict=True)]

    @staticmethod
    def joined(prompts: Sequence[Prompts]) -> Prompts:
        """Prompts of one kind, one after another."""
        columns = zip(*(p._fields() for p in prompts), strict=True)
        return Prompts(*(None if c[0] is None else torch.cat([t for t in c if t is not None]) for c in columns))

    def to_inputs(self, *, batched: bool) -> dict[str, Tensor]:
        """Arguments of a transformers model: all prompts of one image, or ``batched``, one prompt an image."""
        boxes, points, labels = (None if t is None else t.unsqueeze(1 if batched else 0) for t in self._fields())
        named = {"input_boxes": boxes, "input_points": points, "input_labels": labels}
        return {name: value for name, value in named.items() if value is not None}

    def _fields(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return self.boxes, self.points, self.labels


def _values(size: Any) -> list[int]:
    return list(size.values()) if isinstance(size, dict) else [] if size is None else [size]


def _refuse_unfit(boxes: Floats | None, points: Floats | None, labels: npt.NDArray[np.integer] | None) -> None:
    shapes = {k: a.shape for k, a in (("boxes", boxes), ("points", points), ("labels", labels)) if a is not None}
    fits = (
        (boxes is None or (boxes.ndim == 2 and boxes.shape[1] == 4))
        and (points is None or (points.ndim == 3 and points.shape[1] > 0 and points.shape[2] == 2))
        and (labels is None or (points is not None and labels.shape == points.shape[:2]))
        and len({shape[0] for shape in shapes.values()}) < 2
    )
    if not fits:
        got = ", ".join(f"{k} {shape}" for k, shape in shapes.items())
        raise InputError(f"expected boxes (P, 4), points (P, 2) or (P, n, 2) and labels (P, n), all of the same P, got {got}")
    if not all(np.isfinite(a).all() for a in (boxes, points) if a is not None):
        raise InputError("expected boxes and points in pixels, got numbers that are not finite")
    if labels is not None and not np.isin(labels, (0, 1)).all():
        raise InputError("expected labels of points that are 1 (on the thing) or 0 (beside it), got others")
