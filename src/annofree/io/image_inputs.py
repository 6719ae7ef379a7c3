"""Images as callers have them: arrays, tensors and Pillow images, brought to one form."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.errors import InputError
from annofree.io.images import convert_pillow
from annofree.structures import Image

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImageInput", "is_place", "to_image"]

if TYPE_CHECKING:
    ImageInput = str | Path | Image | PIL.Image.Image | npt.NDArray[Any] | Tensor
    """A path, or an image in memory as ``to_image`` takes it."""
else:
    ImageInput = Any


def is_place(given: object) -> TypeGuard[str | Path]:
    """Tell whether an input names something on the disk.

    >>> is_place("photos"), is_place(Path("photos")), is_place(np.zeros((2, 2, 3), np.uint8))
    (True, True, False)
    """
    return isinstance(given, str | Path)


def to_image(given: Any, id: str = "image") -> Image:  # noqa: A002 -- the word the noun uses
    """Return an image in memory as an ``Image`` named ``id``; one that is an ``Image`` keeps its own name.

    Taken are Pillow images (as files are: upright, transparency laid over white), numpy arrays (H, W, 3), (H, W) or (3, H, W),
    and torch tensors (3, H, W), (H, W) or (H, W, 3), RGB or gray: uint8 in 0 .. 255, or floating in 0 .. 1.  Where both ends of
    a shape are 3 or 1, an array has its channels last and a tensor first.  Raises InputError for anything else.

    >>> to_image(np.full((3, 4, 5), 0.5)).pixels[0, 0].tolist(), to_image(np.zeros((4, 5), np.uint8)).size
    ([128, 128, 128], (4, 5))
    """
    if isinstance(given, Image):
        return given
    if isinstance(given, PIL.Image.Image):
        return Image(convert_pillow(given), id)
    torch = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(given, torch.Tensor)
    if not is_tensor and not isinstance(given, np.ndarray):
        raise InputError(
            f"expected an image: a path, a PIL image, a numpy array, a torch tensor or an annofree.Image, got {_kind(given)}"
        )
    values = given.detach().to("cpu").float().numpy() if is_tensor and given.is_floating_point() else np.asarray(given)
    return Image(_to_uint8(_to_channels_last(values, first=is_tensor)), id)


def _to_channels_last(values: npt.NDArray[Any], first: bool) -> npt.NDArray[Any]:
    """Bring (H, W), (H, W, C) and (C, H, W) to (H, W, 3); ``first`` says where channels are where both ends could be."""
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim == 3:
        at_end, at_front = values.shape[2] in (1, 3), values.shape[0] in (1, 3)
        if at_front and (first or not at_end):
            values = np.moveaxis(values, 0, 2)
        if values.shape[2] in (1, 3):
            return np.broadcast_to(values, (*values.shape[:2], 3))
    hint = "; pass a list of images, not a batch" if values.ndim == 4 else "; convert it to RGB first"
    raise InputError(f"expected an image (H, W, 3), (3, H, W) or (H, W), got an array of shape {values.shape}{hint}")


def _to_uint8(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        raise InputError(f"expected an image of uint8 in 0 .. 255 or floats in 0 .. 1, got {values.dtype}; convert it first")
    if not values.size or not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise InputError("expected floats in 0 .. 1, got others; divide values in 0 .. 255 by 255, or pass them as uint8")
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)


def _kind(given: object) -> str:
    return f"{type(given).__module__}.{type(given).__name__}".removeprefix("builtins.")
