"""An archive of retrieved images with masks in, a network that labels pixels with its names out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annofree.io.callbacks import Callbacks
from annofree.io.settings_file import read_toml
from annofree.pipelines.training.trained_model import TrainedModel

__all__ = ["train_namedmask"]


def train_namedmask(
    config: str | Path | None = None,
    *,
    device: str = "cpu",
    callbacks: Callbacks = Callbacks(),
    **fields: Any,
) -> TrainedModel:
    """Train NamedMask on images that names retrieved, without any annotation; the same call resumes after a kill.

    ``config`` is a recipe, a TOML file of the fields of ``NamedMaskRecipe``; ``fields`` of it by name override it, such as
    ``archive``, ``initial``, ``out`` and ``steps``, and make the recipe where there is no file.  Under ``torchrun`` each
    process takes its share of every batch.

    Raises InputError for a recipe, an archive or initial weights that do not serve, and where the folder holds a training with
    other settings; MissingError for weights that are not in the local cache and cannot be downloaded.

    >>> train_namedmask(archive="archive")
    Traceback (most recent call last):
    annofree.errors.InputError: expected out in the recipe, got none; see `annofree train namedmask --help`
    """
    if config is not None:
        read_toml(Path(config), "a recipe")  # what is none is refused before torch is imported
    from annofree.pipelines.training.training_device import choose_training_device
    from annofree.training.namedmask.recipe import NamedMaskRecipe
    from annofree.training.namedmask.train import fit_namedmask

    recipe = NamedMaskRecipe.read(None if config is None else Path(config), **fields)
    figures = fit_namedmask(
        recipe, device=choose_training_device(device), on_progress=callbacks.on_progress, say=callbacks.on_note
    )
    return TrainedModel(recipe.out, figures)
