"""One image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError

__all__ = ["Image"]


@dataclass(frozen=True, eq=False)
class Image:
    """One image: ``pixels`` (H, W, 3) uint8 RGB, upright, and an ``id`` by which files and errors name it.

    Raises InputError for any other array.

    >>> Image(np.zeros((2, 3, 3), np.uint8)).size
    (2, 3)
    """

    pixels: npt.NDArray[np.uint8]
    id: str = "image"

    def __post_init__(self) -> None:
        p = self.pixels
        if not (isinstance(p, np.ndarray) and p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 and p.size):
            got = f"{p.dtype} {p.shape}" if isinstance(p, np.ndarray) else type(p).__name__
            raise InputError(f"expected an image as a (H, W, 3) uint8 RGB array, got {got}")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]
