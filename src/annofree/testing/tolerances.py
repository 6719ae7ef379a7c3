"""Numeric tolerances: one table for tests, conformance suites and benchmarks.

Bit equality holds between two runs of the same computation on the same shapes, threads and machine, and between
integers, strings, files and copies; there tests ask for it (``torch.equal``, ``==``).  Everything else — another batch
size, another order of sums, a slow twin, somebody else's implementation — is compared by this table, for a matrix
library picks its kernel, and with it the order of its sums, by shape, threads and processor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

__all__ = ["MASK_IOU", "PIXELS", "TOLERANCES", "Depth", "Tolerance", "assert_close", "assert_same_masks", "assert_same_pixels"]

Depth = Literal["operation", "network"]
"""``operation``: one formula, up to some thousand terms a sum.  ``network``: many layers, each rounding what the last gave."""


@dataclass(frozen=True)
class Tolerance:
    """Two values agree when they differ by at most ``absolute + relative * |expected|``."""

    # share of the expected value
    relative: float
    # for values near zero, where sums of terms of order one cancel
    absolute: float


TOLERANCES: dict[tuple[torch.dtype, Depth], Tolerance] = {
    # 16 digits, of which sums of some thousand terms lose up to four
    (torch.float64, "operation"): Tolerance(1e-9, 1e-11),
    # a dozen layers lose two more
    (torch.float64, "network"): Tolerance(1e-7, 1e-9),
    # 7 digits (2 ** -24 = 6e-8), of which sums of some thousand terms lose two
    (torch.float32, "operation"): Tolerance(1e-5, 1e-5),
    # a dozen layers lose one more: seen up to 4e-5 between AVX2 and AVX-512 kernels
    (torch.float32, "network"): Tolerance(2e-4, 1e-4),
    # 2 ** -11 = 5e-4 a rounding, and two or three roundings
    (torch.float16, "operation"): Tolerance(2e-3, 1e-3),
    # roundings of each layer add up
    (torch.float16, "network"): Tolerance(1e-2, 1e-2),
    # 2 ** -8 = 4e-3 a rounding
    (torch.bfloat16, "operation"): Tolerance(1.6e-2, 1e-2),
    # roundings of each layer add up
    (torch.bfloat16, "network"): Tolerance(5e-2, 5e-2),
}
"""By the type that was computed in, and by how much was computed."""

MASK_IOU = 0.98
"""Least IoU of two masks cut from the same values at one threshold: pixels at the threshold fall on either side."""

PIXELS = 0.001
"""Largest share of pixels that differ between two label maps painted from the same scores: where two names tie."""


def assert_close(
    actual: Any, expected: Any, *, dtype: torch.dtype | None = None, depth: Depth = "operation", message: str = ""
) -> None:
    """Raise AssertionError where two tensors, arrays or numbers of one shape differ by more than the table allows.

    ``dtype`` is the type that was computed in, where it is not that of ``actual`` (numbers: float64); the types of the
    two are not compared.  Integers and booleans have to be equal.

    >>> assert_close(torch.ones(3), torch.ones(3) + 1e-6)
    >>> assert_close(0.1, 0.2)
    Traceback (most recent call last):
    AssertionError: Scalars are not close!
    ...
    """
    one, other = _tensor(actual), _tensor(expected)
    computed = dtype or one.dtype
    within = TOLERANCES[computed, depth] if computed.is_floating_point else Tolerance(0, 0)
    explain: Callable[[str], str] | None = (lambda said: f"{message}: {said}") if message else None
    torch.testing.assert_close(
        one, other, rtol=within.relative, atol=within.absolute, check_dtype=False, check_device=False, msg=explain
    )


def assert_same_masks(actual: Any, expected: Any, *, iou: float = MASK_IOU) -> None:
    """Raise AssertionError where two boolean masks or stacks of masks, (..., H, W), overlap by less than ``iou`` each.

    Two empty masks are alike.

    >>> assert_same_masks(np.eye(3, dtype=bool), np.eye(3, dtype=bool))
    >>> assert_same_masks(np.eye(3, dtype=bool), np.ones((3, 3), bool))
    Traceback (most recent call last):
    AssertionError: expected masks that overlap by 0.98 or more, got an IoU of 0.3333
    """
    one, other = (np.asarray(m, bool) for m in (actual, expected))
    if one.shape != other.shape:
        raise AssertionError(f"expected masks of {other.shape}, got {one.shape}")
    shared, either = ((m).sum((-2, -1)) for m in (one & other, one | other))
    overlaps = np.where(either > 0, shared / np.maximum(either, 1), 1.0)
    worst = float(overlaps.min(initial=1.0))
    if worst < iou:
        raise AssertionError(f"expected masks that overlap by {iou} or more, got an IoU of {worst:.4f}")


def assert_same_pixels(actual: Any, expected: Any, *, share: float = PIXELS) -> None:
    """Raise AssertionError where two label maps, (H, W) of ids, differ in more than this share of their pixels.

    >>> assert_same_pixels(np.zeros((4, 4), int), np.zeros((4, 4), int))
    """
    one, other = np.asarray(actual), np.asarray(expected)
    if one.shape != other.shape:
        raise AssertionError(f"expected pixels of {other.shape}, got {one.shape}")
    part = float((one != other).mean()) if one.size else 0.0
    if part > share:
        raise AssertionError(f"expected the same pixels but for {share:.1%}, and {part:.1%} differ")


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach()
    return torch.as_tensor(np.array(value))  # a copy, for torch takes no negative strides
