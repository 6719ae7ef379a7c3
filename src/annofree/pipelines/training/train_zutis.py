"""An archive of retrieved images with masks in, a segmenter of its names out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annofree.io.callbacks import Callbacks
from annofree.io.settings_file import read_toml
from annofree.pipelines.training.trained_model import TrainedModel

__all__ = ["train_zutis"]


def train_zutis(
    config: str | Path | None = None,
    *,
    device: str = "cpu",
    callbacks: Callbacks = Callbacks(),
    **fields: Any,
) -> TrainedModel:
    """Train ZUTIS on images that names retrieved, without any annotation; the same call resumes after a kill.

    ``config`` is a recipe, a TOML file of the fields of ``ZutisRecipe``; ``fields`` of it by name override it, such as
    ``archive``, ``clip``, ``out`` and ``steps``, and make the recipe where there is no file.  Under ``torchrun`` each process
    takes its share of every batch.

    Raises InputError for a recipe or an archive that does not serve, and where the folder holds a training with other
    settings; MissingError for weights that are not in the local cache and cannot be downloaded.

    >>> train_zutis("recipes/zutis/voc-ablation.toml", steps=100)  # doctest: +SKIP
    TrainedModel(folder=PosixPath('recipes/zutis/voc-ablation'), figures={'step': 100, 'loss': ...
    >>> train_zutis(archive="archive", clip="tiny-clip-vit")
    Traceback (most recent call last):
    annofree.errors.InputError: expected out in the recipe, got none; see `annofree train zutis --help`
    """
    if config is not None:
        read_toml(Path(config), "a recipe")  # what is none is refused before torch is imported
    from annofree.pipelines.training.training_device import choose_training_device
    from annofree.training.zutis.recipe import ZutisRecipe
    from annofree.training.zutis.train import fit_zutis

    recipe = ZutisRecipe.read(None if config is None else Path(config), **fields)
    figures = fit_zutis(recipe, device=choose_training_device(device), on_progress=callbacks.on_progress, say=callbacks.on_note)
    return TrainedModel(recipe.out, figures)
