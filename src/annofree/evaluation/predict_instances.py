"""Running a method over the images of a truth file, to score it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from annofree.errors import InputError
from annofree.evaluation.metrics.answer import AnswerScores, evaluate_answer
from annofree.evaluation.metrics.instance import InstanceScores, evaluate_instances
from annofree.evaluation.metrics.predictions import Row, View
from annofree.evaluation.metrics.separation import Separation, evaluate_separation
from annofree.evaluation.metrics.shapes import IouType
from annofree.formats.coco import CocoFile
from annofree.io.images import read_image
from annofree.protocols import Segmenter
from annofree.structures import Image, Vocabulary

__all__ = ["Score", "Scores", "predict_images", "read_truth_images", "score_predictions"]

Score = InstanceScores | Separation | AnswerScores
Scores = Mapping[str, Score]
_VIEWS: tuple[View, ...] = ("class-aware", "class-agnostic")


def read_truth_images(truth: CocoFile, folder: Path) -> list[tuple[int, Image]]:
    """Read all images of a truth file from a folder, with their ids; raises InputError when one is missing."""
    missing = [row["file_name"] for row in truth.images if not (folder / row["file_name"]).is_file()]
    if missing:
        raise InputError(
            f"expected the {len(truth.images)} images of the truth file in {folder}, but {len(missing)} are not there, "
            f"{missing[0]} among them; pass the folder that its file names are relative to"
        )
    return [(row["id"], read_image(folder / row["file_name"])) for row in truth.images]


def predict_images(
    method: Segmenter,
    images: Sequence[tuple[int, Image]],
    truth: CocoFile,
    on_progress: Callable[[int, int], None],
) -> CocoFile:
    """Ask a method for all classes of a truth file on each of its images; ids are the truth's."""
    vocabulary = Vocabulary.of([row["name"] for row in truth.categories])
    ids = [row["id"] for row in truth.categories]
    found = CocoFile(images=truth.images, categories=truth.categories)
    for done, (image_id, image) in enumerate(images):
        on_progress(done, len(images))
        found.add_annotations(method.instances(image, vocabulary).to_coco(image_id, ids))
    on_progress(len(images), len(images))
    return found


def score_predictions(
    truth: CocoFile,
    found: CocoFile | Sequence[Row],
    image_ids: Sequence[int] | None = None,
    *,
    iou_type: IouType = "segm",
    max_detections: int = 100,
) -> dict[str, Score]:
    """Score class-aware and class-agnostic, the separation of touching pairs, and all as an answer; by masks, or by boxes.

    Where masks are scored, the AP and AR of boxes are there too.
    """
    kinds: dict[str, IouType] = {"masks": "segm", "boxes": "bbox"} if iou_type == "segm" else {"boxes": "bbox"}
    scores: dict[str, Score] = {}
    for view in _VIEWS:
        for kind, of in kinds.items():
            scores[f"{view} {kind}"] = evaluate_instances(
                truth, found, view=view, iou_type=of, image_ids=image_ids, max_detections=max_detections
            )
        scores[f"{view} separation"] = evaluate_separation(truth, found, view=view, iou_type=iou_type, image_ids=image_ids)
    scores["answer"] = evaluate_answer(truth, found, iou_type=iou_type, image_ids=image_ids)
    return scores
