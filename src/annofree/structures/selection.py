"""Which rows an index means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from annofree.errors import InputError
from annofree.structures.arrays import IntArray, describe_value

__all__ = ["Selection", "select_rows"]

Selection = SupportsIndex | slice | Sequence[int] | Sequence[bool] | npt.NDArray[np.bool_] | npt.NDArray[np.integer[Any]]


def select_rows(keep: Selection, count: int) -> IntArray:
    """Return the rows among ``count`` that an index, a slice, a list of indices or a boolean array (count) means.

    Raises IndexError for an index beyond the end, InputError for anything else, one bool among it: it is what comes out when
    lists are compared where arrays were meant.

    >>> select_rows(-1, 3).tolist(), select_rows([True, False, True], 3).tolist(), select_rows(slice(2), 3).tolist()
    ([2], [0, 2], [0, 1])
    """
    rows = np.arange(count)
    if isinstance(keep, slice):
        return rows[keep]
    wanted: npt.NDArray[Any] = np.asarray(keep)
    if wanted.dtype == bool:
        if wanted.shape != (count,):
            what = f"got {describe_value(wanted)}" if wanted.ndim else f"got {keep}"
            raise InputError(f"expected {count} booleans, one a detection, {what}; compare arrays, as in labels == 'dog'")
        return np.flatnonzero(wanted)
    if not wanted.size and wanted.ndim == 1:
        wanted = rows[:0]
    if wanted.ndim > 1 or not np.issubdtype(wanted.dtype, np.integer):
        raise InputError(f"expected an index, a slice, a list of indices or booleans, got {describe_value(wanted)}")
    wanted = np.atleast_1d(wanted)
    beyond = wanted[(wanted < -count) | (wanted >= count)]
    if beyond.size:
        raise IndexError(f"expected an index from {-count} to {count - 1}, for there are {count} detections, got {beyond[0]}")
    chosen: IntArray = rows[wanted]
    return chosen
