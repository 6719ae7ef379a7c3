"""A fully connected conditional random field of two labels (Krähenbühl and Koltun, NeurIPS 2011): masks drawn to image edges.

H W pixels.  Two kernels join any two pixels: near ones, and near ones of like color.  The filters are those of a permutohedral
lattice, which are built once an image and serve all of its masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.ops.lattice import Lattice

__all__ = ["CrfSettings", "DenseCrf"]

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CrfSettings:
    """The kernels and steps; the defaults are those of CutLER's MaskCut."""

    # px, deviation of the kernel of place alone
    near: float = 3.0
    # its weight
    near_weight: float = 7.0
    # px, deviation of place in the kernel of place and color
    far: float = 50.0
    # gray levels of 0 .. 255, deviation of color in that kernel
    color: float = 5.0
    # its weight
    color_weight: float = 10.0
    # mean-field steps
    steps: int = 10

    def __post_init__(self) -> None:
        if min(self.near, self.far, self.color) <= 0 or min(self.near_weight, self.color_weight) < 0 or self.steps < 0:
            raise InputError(f"expected deviations > 0, weights and steps of 0 or more, got {self}")


class DenseCrf:
    """The field of one image (H, W, 3) uint8.

    >>> image = np.zeros((8, 8, 3), np.uint8)
    >>> image[:, 4:] = 255
    >>> rough = np.zeros((8, 8), bool)
    >>> rough[:, 3:] = True
    >>> DenseCrf(image, CrfSettings(near=1, far=4)).refine(rough)[0].astype(int).tolist()
    [0, 0, 0, 0, 1, 1, 1, 1]
    """

    def __init__(self, image: npt.NDArray[np.uint8], settings: CrfSettings | None = None) -> None:
        self.settings = settings or CrfSettings()
        s, (height, width) = self.settings, image.shape[:2]
        y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32)
        place, color = np.stack([x, y], 1), image.reshape(-1, 3).astype(np.float32)
        kernels = [(place / s.near, s.near_weight), (np.concatenate([place / s.far, color / s.color], 1), s.color_weight)]
        self._kernels = [(_Kernel(features), weight) for features, weight in kernels if weight]

    def refine(self, mask: npt.NDArray[np.generic]) -> Mask:
        """The more likely label of each pixel after all steps, (H, W) bool, for a mask (H, W) bool or in 0 .. 1.

        The probability that the mask itself gives a pixel of its inside is the softmax of (1 - m, m), as in MaskCut's code:
        0.731, and 0.269 outside.
        """
        return self.infer(2 * mask.astype(np.float32) - 1) > 0

    def infer(self, unary: Floats) -> Floats:
        """Log-odds (H, W) of the first label after all steps, for those that each pixel has by itself (H, W)."""
        odds = unary.reshape(-1)
        for _ in range(self.settings.steps):
            opinion = np.tanh(odds / 2)  # the difference of both labels' probabilities
            odds = unary.reshape(-1) + sum(weight * kernel.filter(opinion) for kernel, weight in self._kernels)
        return np.asarray(odds, np.float32).reshape(unary.shape)


class _Kernel:
    """A Gaussian filter, normalized symmetrically: by the roots of what each pixel and its neighbor see in all."""

    def __init__(self, features: Floats) -> None:
        self._lattice = Lattice(features)
        self._norm = 1 / np.sqrt(self._lattice.filter(np.ones(len(features), np.float32)) + 1e-20)

    def filter(self, values: Floats) -> Floats:
        return np.asarray(self._norm * self._lattice.filter(self._norm * values), np.float32)
