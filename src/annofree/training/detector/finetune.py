"""Label-efficient tuning: how long a detector is trained further on a share of a person's labels (Zip, Table 6)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from annofree.detectors.checkpoint import read_config
from annofree.errors import InputError
from annofree.training.detector.recipe import DetectorRecipe

__all__ = ["SCHEDULES", "Tuning", "tuning"]

_BATCH = 16  # that the learning rates are for
_SIDE = 800  # px, that the sizes of scenes are for
_SIDES = (640, 672, 704, 736, 768, 800)
_LARGE = 0.5  # the share of the labels from which on rates are halved


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


def tuning(
    checkpoint: Path,
    labels: Path,
    out: Path,
    fraction: float = 1.0,
    *,
    batch: int = _BATCH,
    steps: int | None = None,
    lr: float | None = None,
    **more: Any,
) -> DetectorRecipe:
    """The recipe that trains a detector further on a share of labels, as CutLER does it and Zip after it.

    Steps, decay and warm-up are those of the least share in ``SCHEDULES`` that is no smaller, drawn out or pressed together to
    ``steps``.  The last layers learn faster; scenes are scaled to the detector's side, without copy-paste.  DropLoss is off:
    what a person left unmarked is none of the objects.  The gradient's norm is bounded by 1, which is ours: the rates break
    a small detector within the few steps that a short warm-up leaves.  ``lr`` is in proportion to the batch unless it is given;
    ``more`` are other fields of the recipe.

    Raises MissingError without a detector, InputError for a share outside 0 .. 1.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"expected a share of the pictures over 0, up to 1, got {fraction:g}")
    plan = SCHEDULES[min(share for share in SCHEDULES if share >= fraction)]
    small = fraction < _LARGE
    rate = (0.04 if small else 0.02) * batch / _BATCH if lr is None else lr
    recipe = DetectorRecipe(
        labels, out, initial=str(checkpoint), fraction=fraction, batch=batch, lr=rate, head_rate=4.0 if small else 2.0,
        steps=plan.steps, decay_at=plan.decay_at, gamma=0.1, warmup=plan.warmup, weight_decay=1e-4, max_norm=1.0,
        network={"drop_loss": 0.0}, scenes=_scenes(read_config(checkpoint).side), **more,
    )  # fmt: skip
    return recipe if steps is None else recipe.lasting(steps)


def _scenes(side: int) -> dict[str, Any]:
    """Sizes of scenes for a detector that reads pictures at ``side`` px."""
    sides = tuple(round(s * side / _SIDE) for s in _SIDES)
    return {"sides": sides, "longest": round(1333 * side / _SIDE), "copy_paste": 0.0}
