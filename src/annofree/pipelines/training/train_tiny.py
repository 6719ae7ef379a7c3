"""Tiny models such as the bundled ones."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from annofree.errors import build_unknown_error
from annofree.io.arguments import check_range
from annofree.io.callbacks import Callbacks
from annofree.pipelines.training.trained_model import TrainedModel

__all__ = ["MINUTES", "TINY_MODELS", "train_tiny"]

TINY_MODELS = ("clip", "clip-vit", "sam", "dino")
"""What can be trained; the module of each has its budget, and a function that trains it."""

MINUTES = 0.01, 525_600
"""The least and the most that a training may take: a year."""


def train_tiny(
    model: str,
    out: str | Path,
    *,
    minutes: float | None = None,
    samples: int | None = None,
    pool: int | None = None,
    paced: bool = False,
    workers: int = 0,
    seed: int = 0,
    font: str | Path | None = None,
    device: str = "cpu",
    callbacks: Callbacks = Callbacks(),
) -> TrainedModel:
    """Train a tiny model on rendered scenes of the emoji world, and evaluate it on scenes that it has not seen.

    ``model`` is clip, clip-vit, sam or dino.  By default it learns from as many ``samples`` as one core sees in 20 minutes
    (dino) to three hours (sam), fewer than the bundled ones saw on a GPU; the learning-rate schedule is rescaled to them.
    After so many ``minutes`` a call ends with what it has, and one with more of them resumes.  ``pool`` scenes are rendered
    ahead; ``workers`` processes do that and draw batches, from a pool that then stays as it is.  When ``paced``, the learning
    rate falls with the minutes, and a run learns from as many as come: for GPUs.  The same call resumes after a kill, to the
    same weights where it is not paced.

    Raises InputError for an unknown model, a number out of range, without minutes to be paced by, and where the folder holds a
    training with other settings; MissingError without the emoji font.

    >>> train_tiny("dino", "tiny-dino", samples=3200)  # doctest: +SKIP
    TrainedModel(folder=PosixPath('tiny-dino'), figures={'nearest patch of the same class': ...
    >>> train_tiny("clipp", "tiny-clip")
    Traceback (most recent call last):
    annofree.errors.InputError: unknown tiny model 'clipp'; did you mean 'clip' or 'clip-vit'? Known: clip, clip-vit, dino, sam
    """
    if model not in TINY_MODELS:
        raise build_unknown_error("tiny model", model, TINY_MODELS)
    check_range("minutes", minutes, *MINUTES)
    for number, value, least in (("samples", samples, 1), ("pool", pool, 8), ("workers", workers, 0), ("seed", seed, 0)):
        check_range(number, value, least)
    from annofree.pipelines.training.training_device import choose_training_device

    name = model.replace("-", "_")
    module = import_module(f"annofree.training.tiny.{name}")
    amount = {"samples": samples or module.BUDGET.samples, "minutes": minutes, "paced": paced, "workers": workers}
    budget = replace(module.BUDGET, **amount)
    fit = getattr(module, f"fit_tiny_{name}")
    figures = fit(
        Path(out), budget, seed=seed, font=None if font is None else Path(font), pool_size=pool or module.POOL,
        device=choose_training_device(device), on_progress=callbacks.on_progress, say=callbacks.on_note,
    )  # fmt: skip
    return TrainedModel(Path(out), figures)
