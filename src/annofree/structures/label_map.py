"""One name a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.structures.arrays import check_names, describe_value
from annofree.structures.lazy_imports import load_notebook_function, save_label_map

if TYPE_CHECKING:
    import PIL.Image

    from annofree.structures.image import Image

__all__ = ["VOID", "LabelMap"]

VOID = -1
"""The label of a pixel that belongs to no name and is not scored; files write it as 255, or 65535 where ids need 16 bits."""

_NAMED, _LONGEST = 5, 30  # names that the one line lists, and letters of each


@dataclass(frozen=True, eq=False, repr=False)
class LabelMap:
    """One name a pixel: ``labels`` (H, W) int32 into ``names``, ``VOID`` where there is none.

    ``background`` is the entry of ``names`` that stands for none of the things asked for, None where every pixel gets a name.
    Two are equal where all labels, the names in their order and the background are; the same regions under names in another
    order are not.  So they are no keys.
    Raises InputError for labels that are no such array or point outside ``names``, and for a background outside of them.

    >>> LabelMap(np.array([[0, 1], [1, 1]], np.int32), ("background", "dog"), background=0).compute_shares()
    {'background': 0.25, 'dog': 0.75}
    """

    labels: npt.NDArray[np.int32]
    names: tuple[str, ...]
    background: int | None = None

    def __post_init__(self) -> None:
        a = self.labels
        if not (isinstance(a, np.ndarray) and a.dtype == np.int32 and a.ndim == 2 and a.size):
            raise InputError(f"expected labels as an (H, W) int32 array, got {describe_value(a)}")
        check_names(self.names)
        if a.min() < VOID or a.max() >= len(self.names):
            raise InputError(f"expected labels from {VOID} to {len(self.names) - 1}, got {a.min()} to {a.max()}")
        if self.background is not None and not 0 <= self.background < len(self.names):
            raise InputError(f"expected background as an index below {len(self.names)} or None, got {self.background}")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    def compute_shares(self) -> dict[str, float]:
        """The part of all pixels that each name has, for names that have any."""
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.names))
        return {name: float(n / self.labels.size) for name, n in zip(self.names, counts, strict=True) if n}

    def draw(self, image: Image | npt.NDArray[np.uint8] | None = None, limit: int = 30) -> PIL.Image.Image:
        """Lay the map over its image, over gray where none is given, with a legend of its ``limit`` largest names.

        Raises InputError when the image is of another size.
        """
        picture: PIL.Image.Image = load_notebook_function("render_label_map")(self, image, limit)
        return picture

    def save(self, path: str | Path) -> None:
        """Write the map as a PNG of indices, and beside it the ``classes.json`` that says what they mean.

        Further maps of the same names may be saved into the folder.  Raises InputError for another ending than .png, and where
        the folder's ``classes.json`` has other names, for it would tell other maps wrong.
        """
        save_label_map(Path(path), self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelMap):
            return NotImplemented
        named = (self.names, self.background) == (other.names, other.background)
        return named and np.array_equal(self.labels, other.labels)

    def __repr__(self) -> str:
        """One line: width x height, and the part of the pixels that each name has, the largest first."""
        shares = sorted(self.compute_shares().items(), key=lambda pair: -pair[1])
        told = [f"{share:.1%} {' '.join(name.split())[:_LONGEST]}" for name, share in shares[:_NAMED]]
        if len(shares) > _NAMED:
            told.append(f"{sum(share for _, share in shares[_NAMED:]):.1%} of {len(shares) - _NAMED} more names")
        void = float((self.labels == VOID).mean())
        told += [f"{void:.1%} void"] if void else []
        return f"LabelMap({self.size[1]}x{self.size[0]}: {', '.join(told)})"

    def _repr_png_(self) -> bytes:
        png: bytes = load_notebook_function("render_label_map_png")(self)
        return png
