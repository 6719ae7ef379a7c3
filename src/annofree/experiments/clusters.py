"""Names for a run that has none, by clusters that the truth names: the rows of papers without text."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from annofree.evaluation.crop_features import CropEncoder, encode_clip_crops, encode_dino_crops, encode_predictions
from annofree.evaluation.metrics.clusters import name_clusters
from annofree.formats.coco import CocoFile
from annofree.methods.components import Models
from annofree.runs.images import open_below

__all__ = ["Cluster", "name_by_clusters"]

Cluster = Literal["", "dino", "clip"]
"""Whose features of box crops are clustered; none names nothing."""


def name_by_clusters(truth: CocoFile, found: CocoFile, images: Path, models: Models, cluster: Cluster) -> CocoFile:
    """What was found on the truth's ``images``, under the class of the cluster that each prediction is in.

    As many clusters as classes are matched with the truth, so that scores of names are not comparable with others.
    """
    of_clip = cluster == "clip"
    encode: CropEncoder = partial(encode_clip_crops, models.clip) if of_clip else partial(encode_dino_crops, models.dino)
    features = encode_predictions(truth, found.annotations, open_below(images), encode)
    named, _ = name_clusters(truth, found.annotations, features)
    return CocoFile(found.images, found.categories, named, found.info)
