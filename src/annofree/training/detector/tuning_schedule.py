"""How long a detector is trained further on a share of the labels (Zip, Table 6)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from annofree.errors import InputError

__all__ = ["SCHEDULES", "Tuning", "choose_tuning_schedule"]


class Tuning(NamedTuple):
    """Steps in all, steps at which the rates fall to a tenth, and steps of warm-up."""

    steps: int
    decay_at: tuple[int, ...]
    warmup: int


SCHEDULES: Mapping[float, Tuning] = MappingProxyType(
    {
        0.01: Tuning(3600, (2400, 3200), 1000),
        0.02: Tuning(3600, (2400, 3200), 1000),
        0.05: Tuning(4500, (3000, 4000), 1000),
        0.1: Tuning(9000, (6000, 8000), 0),
        0.2: Tuning(18_000, (12_000, 16_000), 0),
        0.3: Tuning(27_000, (18_000, 24_000), 0),
        0.4: Tuning(36_000, (24_000, 32_000), 0),
        0.5: Tuning(45_000, (30_000, 40_000), 0),
        0.6: Tuning(54_000, (36_000, 48_000), 0),
        0.8: Tuning(72_000, (48_000, 64_000), 0),
        1.0: Tuning(90_000, (60_000, 80_000), 0),
    }
)
"""By the share of COCO's labels: Zip's Table 6 up to 0.3, from there CutLER's, whose steps are the same up to there.

Zip's table has no warm-up from 0.1 on; CutLER's released settings, which it follows, leave it at 1,000 steps for all shares.
"""


def choose_tuning_schedule(fraction: float) -> Tuning:
    """The schedule of the least share that is no smaller; raises InputError for a share outside 0 .. 1.

    >>> choose_tuning_schedule(0.04).steps
    4500
    """
    if not 0 < fraction <= 1:
        raise InputError(f"expected a share of the images over 0, up to 1, got {fraction:g}")
    return SCHEDULES[min(share for share in SCHEDULES if share >= fraction)]
