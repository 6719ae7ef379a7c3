"""A DINO in, FOUND's saliency head on its keys out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from annofree.errors import build_unknown_error
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks
from annofree.pipelines.training.train_tiny import MINUTES
from annofree.pipelines.training.trained_model import TrainedModel

__all__ = ["train_found"]

_REFINE = ("pamr", "none")


def train_found(
    dino: str | Path,
    out: str | Path,
    *,
    refine: str = "pamr",
    control: bool = True,
    minutes: float | None = None,
    samples: int | None = None,
    seed: int = 0,
    font: str | Path | None = None,
    device: str = "cpu",
    callbacks: Callbacks = Callbacks(),
) -> TrainedModel:
    """Train FOUND's head on the keys of the DINO in a folder, on unlabeled scenes of the emoji world, and evaluate it.

    ``refine`` says how targets are drawn to edges: pamr or none.  ``control`` does the same on random weights and adds those
    figures.  ``samples``, ``minutes`` and resuming are as for ``train_tiny``.

    Raises InputError for an unknown refinement, a number out of range, and where the folder holds a training with other
    settings; MissingError without the emoji font.

    >>> train_found("tiny-dino", "tiny-found", refine="bilateral")
    Traceback (most recent call last):
    annofree.errors.InputError: unknown refinement 'bilateral'. Known: none, pamr
    """
    if refine not in _REFINE:
        raise build_unknown_error("refinement", refine, _REFINE)
    check_range("minutes", minutes, *MINUTES)
    check_range("samples", samples, 1)
    check_range("seed", seed, 0)
    from annofree.pipelines.training.training_device import choose_training_device
    from annofree.training.tiny.found_head import BUDGET, fit_found

    figures = fit_found(
        Path(out), replace(BUDGET, samples=samples or BUDGET.samples, minutes=minutes), dino=Path(dino),
        refine=refine, control=control, seed=seed, font=None if font is None else Path(font),  # type: ignore[arg-type]  # checked
        device=choose_training_device(device), on_progress=callbacks.on_progress, say=callbacks.on_note,
    )  # fmt: skip
    return TrainedModel(Path(out), figures)
