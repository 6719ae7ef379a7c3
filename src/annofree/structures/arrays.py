"""The arrays that the nouns hold, and the checks that they share.

They are made for every detection of every image, so they look at shapes, types and the least and the largest value, no more.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError

__all__ = ["BoolArray", "FloatArray", "IntArray", "check_names", "check_size", "describe_value", "to_names"]

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


def check_size(size: object) -> None:
    """Raise InputError for anything but (H, W), two whole numbers above 0.

    >>> check_size((480, 640))
    """
    if not (isinstance(size, tuple) and len(size) == 2 and all(isinstance(n, int | np.integer) and n > 0 for n in size)):
        raise InputError(f"expected a size as (height, width) in pixels, both above 0, got {size!r}")


def check_names(names: object) -> None:
    """Raise InputError for anything but a tuple of texts.

    >>> check_names(("dog", "cat"))
    """
    if not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
        raise InputError(f"expected names as a tuple of str, such as ('dog', 'cat'), got {names!r:.80}")


def to_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names as a tuple; raises InputError for one text, whose letters would be the names.

    >>> to_names(["dog", "cat"])
    ('dog', 'cat')
    """
    if isinstance(names, str):
        raise InputError(f"expected a list of names, got the text {names!r:.80}; write [{names!r:.80}]")
    return tuple(names)


def describe_value(value: object) -> str:
    """Describe an array or a tensor as an error does, by type and shape; anything else by its class.

    >>> describe_value(np.zeros((2, 3), np.uint8)), describe_value([1, 2])
    ('uint8 (2, 3)', 'list')
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"{dtype} {tuple(shape)}".removeprefix("torch.")
