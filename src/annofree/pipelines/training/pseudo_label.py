"""A run in, labels that a detector can learn from out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from annofree.errors import InputError
from annofree.io.callbacks import Callbacks

__all__ = ["pseudo_label"]

Scores = float | Mapping[str, float] | Sequence[str]
"""A number for all classes, numbers by class, or texts such as "0.3" and "dog=0.5"."""


def pseudo_label(
    run: str | Path,
    out: str | Path,
    *,
    min_score: Scores | None = None,
    keep: Scores | None = None,
    merge: str | Path | None = None,
    merge_iou: float = 0.5,
    images: str | Path | None = None,
    sheet: int = 24,
    callbacks: Callbacks = Callbacks(),
    **rules: Any,
) -> dict[str, Any]:
    """Turn the instances of a run into labels to train on, ``labels.json`` (COCO) and a contact sheet to look at first.

    ``min_score`` is the least score and ``keep`` the best share of a class's instances: a number, numbers by class, or texts
    such as "dog=0.5".  ``rules`` are other fields of ``LabelRules``: ``agnostic``, ``min_area``, ``within``, ``across``,
    ``inside``, ``most``, ``per_class``, ``rare``, ``drop_empty``.  Of the labels of an earlier round, ``merge``, those stay
    whose mask IoU with every new one is under ``merge_iou``.  ``images``: where the images are, if not where the run had them;
    ``sheet``: labeled images on the sheet.  Returns the info of the labels: rules, counts and where they come from.

    Raises InputError for a folder that is no run with instances, for unknown classes and rules, and where nothing is left.

    >>> pseudo_label("nowhere", "labels", min_score=0.3)
    Traceback (most recent call last):
    annofree.errors.InputError: expected the folder of a run at nowhere, got nothing there; pass the --out of `annofree segment`
    """
    if not Path(run).is_dir():
        raise InputError(f"expected the folder of a run at {run}, got nothing there; pass the --out of `annofree segment`")
    from annofree.training.pseudo_labels.rules import ByClass, LabelRules
    from annofree.training.pseudo_labels.select import select_labels

    scores = {"min_score": ByClass.of(min_score, 0.0), "keep": ByClass.of(keep, 1.0)}
    return select_labels(
        Path(run),
        Path(out),
        LabelRules.of({**rules, **scores, "earlier": merge_iou}),
        images=None if images is None else Path(images),
        earlier=None if merge is None else Path(merge),
        sheet=sheet,
        on_progress=callbacks.on_progress,
    )
