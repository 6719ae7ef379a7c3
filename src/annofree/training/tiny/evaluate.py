"""Exams of the bundled models on scenes that nobody has seen, through the classes that methods use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from annofree.datasets.emoji.world import CATEGORIES, Scene, World
from annofree.features.clip import Clip
from annofree.features.sam import Sam
from annofree.hub.cards import find_bundled
from annofree.ops.boxes import compute_tight_boxes
from annofree.structures import Image, Vocabulary
from annofree.training.tiny.evaluate_saliency import evaluate_dino, evaluate_found

__all__ = ["EXAMS", "compute_average_precision", "evaluate_clip", "evaluate_dense_clip", "evaluate_sam", "measure_dense_iou"]

_SEED = 9_000_000
_BACKGROUND = "background"


def compute_average_precision(scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> float:
    """Area under precision over recall of one ranking, by the step rule; NaN without a positive.

    >>> compute_average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])).__round__(3)
    0.833
    """
    hits = truth[np.argsort(-scores, kind="stable")]
    if not hits.any():
        return float("nan")
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def evaluate_clip(folder: Path, font: Path | None = None, count: int = 300) -> dict[str, float]:
    """Examine a tiny CLIP on ``count`` unseen scenes of 256 px a part; all 65 names are asked for.

    Returns zero-shot top-1 of single objects, the same for looks kept out of training, and the mean average precision of
    presence in scenes of several objects, over classes and over scenes.  Raises MissingError without the emoji font.
    """
    clip, seen, new = Clip(folder), World(font), World(font, held_out=1.0)
    words = clip.encode_text(Vocabulary.of(list(CATEGORIES.values())))
    fresh = [s for s in new.draw_scenes(6 * count, _SEED + 1, "single") if s.objects and s.objects[0].held_out][:count]
    known = [s for s in seen.draw_scenes(count, _SEED, "single") if s.objects]
    many = [s for s in seen.draw_scenes(count, _SEED + 2, "mixed") if s.objects]
    presence = np.stack([_presence(clip, words, s) for s in many])
    there = np.array([[i in {o.category_id for o in s.objects} for i in CATEGORIES] for s in many])
    by_class = [compute_average_precision(presence[:, k], there[:, k]) for k in range(len(words))]
    by_scene = [compute_average_precision(p, t) for p, t in zip(presence, there, strict=True)]
    return {
        "zero-shot top-1": _top1(clip, words, known),
        "zero-shot top-1, new look": _top1(clip, words, fresh),
        "multi-label mAP over classes": float(np.nanmean(by_class)),
        "multi-label mAP over scenes": float(np.nanmean(by_scene)),
    }


def _top1(clip: Clip, words: torch.Tensor, scenes: list[Scene]) -> float:
    features = torch.cat([clip.encode_image([Image(s.image)]) for s in scenes])
    truth = torch.tensor([list(CATEGORIES).index(s.objects[0].category_id) for s in scenes])
    return float(((features @ words.T).argmax(1) == truth).float().mean())


def _presence(clip: Clip, words: torch.Tensor, scene: Scene) -> npt.NDArray[np.float32]:
    image = [Image(scene.image)]
    likely: npt.NDArray[np.float32] = clip.score_presence(
        clip.encode_image(image)[0], clip.encode_dense(image)[0], words
    ).numpy()
    return likely


def evaluate_dense_clip(folder: Path, font: Path | None = None, count: int = 300) -> dict[str, float]:
    """Examine a tiny CLIP as ``evaluate_clip`` does, and what its dense features say of the scenes of several objects.

    Adds ``measure_dense_iou`` with the names present in each scene, by the path of the card.
    """
    many = list(World(font).draw_scenes(count, _SEED + 2, "mixed"))
    return evaluate_clip(folder, font, count) | {"dense mIoU, present classes": measure_dense_iou(Clip(folder), many)}


def measure_dense_iou(clip: Clip, scenes: Sequence[Scene]) -> float:
    """Mean IoU over background and classes of dense features, where each pixel takes the likest of the names present.

    The word "background" is scored as a class beside them.  Scores are upsampled bilinearly from the cells; pixels of all
    scenes are counted together; a class that no scene shows does not count.
    """
    ids = np.array([0, *CATEGORIES])
    words = clip.encode_text(Vocabulary.of([_BACKGROUND, *CATEGORIES.values()]))
    counts = np.zeros((len(ids), len(ids)), np.int64)
    for scene in scenes:
        shown = np.array([0, *(o.category_id for o in scene.objects)])
        asked = np.flatnonzero(np.isin(ids, shown))
        [cells] = clip.encode_dense([Image(scene.image)])
        scores = torch.einsum("kd,dhw->khw", words[asked], cells.values)[None]
        best = F.interpolate(scores, size=scene.layout.shape, mode="bilinear", align_corners=False)[0].argmax(0)
        truth = np.searchsorted(ids, shown)[scene.layout]
        pairs = truth * len(ids) + asked[best.cpu().numpy()]
        counts += np.bincount(pairs.ravel(), minlength=counts.size).reshape(counts.shape)
    hits, shown = np.diagonal(counts), counts.sum(1) > 0
    return float((hits / np.maximum(1, counts.sum(0) + counts.sum(1) - hits))[shown].mean())


def evaluate_sam(folder: Path, font: Path | None = None, count: int = 150) -> dict[str, float]:
    """Examine a tiny SAM on objects of ``count`` unseen scenes of 256 px: mean IoU for exact boxes and for inner points.

    Returns box IoU of all objects, of those above 32 x 32 and 60 x 60 px, and the best of three masks for a random inner point.
    Raises MissingError without the emoji font.
    """
    sam, world, rng = Sam(folder), World(font, held_out=0.3), np.random.default_rng(_SEED)
    rows = []
    for scene in (s for split in ("plain", "cluttered") for s in world.draw_scenes(count // 2, _SEED, split) if s.objects):
        masks = np.stack([scene.mask(i) for i in range(len(scene.objects))])
        [embedding] = sam.embed([Image(scene.image)])
        boxed = sam.predict_masks(embedding, boxes=compute_tight_boxes(masks)).masks.numpy()
        pointed = sam.predict_masks(embedding, points=_inner_points(rng, masks), multimask=True).masks.numpy()
        rows.append(np.stack([masks.sum((1, 2)), _iou(boxed, masks).max(1), _iou(pointed, masks).max(1)], 1))
    area, box, point = np.concatenate(rows).T
    return {
        "box IoU": float(box.mean()),
        "box IoU above 32 px": float(box[area > 32**2].mean()),
        "box IoU above 60 px": float(box[area > 60**2].mean()),
        "point IoU, best of 3": float(point.mean()),
    }


def _inner_points(rng: np.random.Generator, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """One random pixel x y (N, 2) inside each mask."""
    flat = [rng.choice(np.flatnonzero(m)) for m in masks]
    y, x = np.unravel_index(flat, masks.shape[1:])
    return np.stack([x + 0.5, y + 0.5], 1).astype(np.float32)


def _iou(found: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """IoU (N, M) of masks (N, M, H, W) with one truth (N, H, W) each."""
    both = (found & truth[:, None]).sum((2, 3))
    iou: npt.NDArray[np.float64] = both / (found | truth[:, None]).sum((2, 3))
    return iou


EXAMS: dict[str, Callable[[Path, Path | None], dict[str, float]]] = {
    "tiny-clip": evaluate_clip,
    "tiny-clip-vit": evaluate_dense_clip,
    "tiny-sam": evaluate_sam,
    "tiny-dino": evaluate_dino,
    "tiny-found": lambda folder, font: evaluate_found(folder, font, dino=find_bundled("tiny-dino")),
}
