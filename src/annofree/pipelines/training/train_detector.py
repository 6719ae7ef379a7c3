"""Labels in, a detector out: a folder that is a method like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annofree.io.callbacks import Callbacks
from annofree.io.settings_file import read_toml
from annofree.pipelines.training.trained_model import TrainedModel

__all__ = ["train_detector"]


def train_detector(
    config: str | Path | None = None,
    *,
    steps: int | None = None,
    device: str = "cpu",
    callbacks: Callbacks = Callbacks(),
    **fields: Any,
) -> TrainedModel:
    """Train a detector on labels, such as those that a method made by itself; the same call resumes after a kill.

    ``config`` is a recipe, a TOML file of the fields of ``DetectorRecipe``; other ``fields`` of it by name override it, such as
    ``labels``, ``images``, ``out`` and ``initial``, and make the recipe where there is no file.  ``steps`` overrides the
    recipe's and rescales its learning-rate schedule.  Under ``torchrun`` each process takes its share of every batch.

    Raises InputError for a recipe, labels or weights that do not serve, and where the folder holds a training with other
    settings; MissingError for weights that are not in the local cache and cannot be downloaded.

    >>> import tempfile
    >>> small = dict(backbone="clip-resnet", layers=[1, 1, 1, 1], width=8, channels=8, fc=8, mask_convs=1, side=64, longest=64)
    >>> scenes = dict(sides=[64], longest=64)
    >>> labels = dict(labels="examples/validation/truth.json", images="examples/validation/images")
    >>> with tempfile.TemporaryDirectory() as out:
    ...     trained = train_detector(**labels, out=out, steps=1, batch=1, network=small, scenes=scenes)
    ...     trained.card.exists(), trained.figures["step"]
    (True, 1)
    """
    if config is not None:
        read_toml(Path(config), "a recipe")  # what is none is refused before torch is imported
    from annofree.pipelines.training.training_device import choose_training_device
    from annofree.training.detector.recipe import DetectorRecipe
    from annofree.training.detector.train import fit_detector

    recipe = DetectorRecipe.read(None if config is None else Path(config), **fields)
    recipe = recipe if steps is None else recipe.rescaled(steps)
    figures = fit_detector(
        recipe, device=choose_training_device(device), on_progress=callbacks.on_progress, say=callbacks.on_note
    )
    return TrainedModel(recipe.out, figures)
