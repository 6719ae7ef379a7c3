"""A detector and a few labels in, a detector that was trained further on them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.callbacks import Callbacks
from annofree.pipelines.training.trained_model import TrainedModel
from annofree.training.detector.tuning_schedule import choose_tuning_schedule

__all__ = ["finetune"]


def finetune(
    checkpoint: str | Path,
    labels: str | Path | None,
    out: str | Path,
    *,
    corrections: str | Path | None = None,
    fraction: float = 1.0,
    batch: int = 16,
    steps: int | None = None,
    lr: float | None = None,
    device: str = "cpu",
    callbacks: Callbacks = Callbacks(),
    **fields: Any,
) -> TrainedModel:
    """Train a detector further on human annotations; where these have other names, the layers that name start anew.

    ``checkpoint`` is the folder of a detector, ``labels`` a COCO file with masks or what ``pseudo_label`` wrote; or None with
    ``corrections``, a run or a workspace whose images people corrected on the page, which alone are learned from.  ``fraction``
    is the share of the images to learn from; steps, decay and warm-up are those of Zip's label-efficient tuning for it,
    rescaled to ``steps``, and ``lr`` is by default in proportion to the ``batch``.  ``fields`` are others of
    ``DetectorRecipe`` by name, such as ``images``, ``agnostic``, ``seed`` or ``workers``.  The same call resumes after a kill.

    Raises InputError for a share outside 0 .. 1 and what ``train_detector`` does; MissingError without a detector.

    >>> import tempfile
    >>> from annofree.hub.cards import find_bundled
    >>> labels = "examples/validation/truth.json"
    >>> with tempfile.TemporaryDirectory() as out:
    ...     tuned = finetune(find_bundled("tiny-detector"), labels, out, images="examples/validation/images", steps=1, batch=1)
    ...     tuned.figures["step"]
    1
    """
    choose_tuning_schedule(fraction)  # a wrong share is refused before torch is imported
    if (labels is None) == (corrections is None):
        raise InputError("expected --labels or --corrections to learn from, got " + ("neither" if labels is None else "both"))
    from annofree.pipelines.training.training_device import choose_training_device
    from annofree.training.detector.finetune import build_tuning_recipe
    from annofree.training.detector.train import fit_detector

    if corrections is not None:
        from annofree.runs.corrections.training_labels import write_training_labels

        images = fields.get("images")
        labels = write_training_labels(
            Path(corrections), Path(out) / "corrections", images=images and Path(images), say=callbacks.on_note
        )
    assert labels is not None  # noqa: S101
    recipe = build_tuning_recipe(Path(checkpoint), Path(labels), Path(out), fraction, batch=batch, steps=steps, lr=lr, **fields)
    figures = fit_detector(
        recipe, device=choose_training_device(device), on_progress=callbacks.on_progress, say=callbacks.on_note
    )
    return TrainedModel(recipe.out, figures)
