"""Label-efficient tuning: how long a detector is trained further on a share of a person's labels (Zip, Table 6)."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from annofree.detectors.checkpoint import read_config
from annofree.io.settings_file import check_names
from annofree.training.detector.recipe import DetectorRecipe
from annofree.training.detector.tuning_schedule import choose_tuning_schedule

__all__ = ["build_tuning_recipe"]

_BATCH = 16  # that the learning rates are for
_SIDE = 800  # px, that the sizes of scenes are for
_SIDES = (640, 672, 704, 736, 768, 800)
_LARGE = 0.5  # the share of the labels from which on rates are halved


def build_tuning_recipe(
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

    Steps, decay and warm-up are those of ``choose_tuning_schedule``, rescaled to ``steps``.  The last layers learn faster;
    scenes are scaled to the detector's side, without copy-paste.  DropLoss is off: what is left unmarked is no object.  The
    gradient's norm is bounded by 1, which is ours: the rates break a small detector within the few steps that a short
    warm-up leaves.  ``lr`` is in proportion to the batch unless it is given; ``more`` are other fields of the recipe.

    Raises MissingError without a detector, InputError for a share outside 0 .. 1.
    """
    plan = choose_tuning_schedule(fraction)
    check_names("field of the recipe", more, [f.name for f in fields(DetectorRecipe)])
    small = fraction < _LARGE
    rate = (0.04 if small else 0.02) * batch / _BATCH if lr is None else lr
    recipe = DetectorRecipe(
        labels, out, initial=str(checkpoint), fraction=fraction, batch=batch, lr=rate, head_rate=4.0 if small else 2.0,
        steps=plan.steps, decay_at=plan.decay_at, gamma=0.1, warmup=plan.warmup, weight_decay=1e-4, max_norm=1.0,
        network={"drop_loss": 0.0}, scenes=_scenes(read_config(checkpoint).side), **more,
    )  # fmt: skip
    return recipe if steps is None else recipe.rescaled(steps)


def _scenes(side: int) -> dict[str, Any]:
    """Sizes of scenes for a detector that reads images at ``side`` px."""
    sides = tuple(round(s * side / _SIDE) for s in _SIDES)
    return {"sides": sides, "longest": round(1333 * side / _SIDE), "copy_paste": 0.0}
