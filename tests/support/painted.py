"""Label maps against the scores that they were painted from, computed another way."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from annofree.testing.tolerances import TOLERANCES, assert_close

__all__ = ["assert_apart", "assert_best"]


def assert_best(labels: Any, scores: Tensor) -> None:
    """Raise AssertionError unless each pixel of ``labels`` (H, W) has the row of the highest of ``scores`` (K, H, W).

    Where two tie up to rounding, either row will do.

    >>> assert_best([[1, 0]], torch.tensor([[[0.1, 0.2]], [[0.3, 0.2]]]))
    >>> assert_best([[0, 0]], torch.tensor([[[0.1, 0.2]], [[0.3, 0.2]]]))
    Traceback (most recent call last):
    AssertionError: Tensor-likes are not close!
    ...
    """
    assert_close(scores.gather(0, torch.as_tensor(np.asarray(labels, np.int64))[None])[0], scores.amax(0))


def assert_apart(scores: Tensor) -> None:
    """Raise AssertionError where the two highest of ``scores`` (K, ...) are so near that rounding could exchange them.

    >>> assert_apart(torch.tensor([[0.1, 0.2], [0.3, 0.4]]))
    """
    first, second = scores.topk(2, 0).values
    within = TOLERANCES[scores.dtype, "operation"]
    assert bool((first - second > within.absolute + within.relative * first.abs()).all())
