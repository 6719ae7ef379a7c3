from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tests.support.drawing import drawing
from torch import Tensor

from annofree.datasets.emoji.world import CATEGORIES, Scene, SceneObject
from annofree.hub.cards import find_bundled
from annofree.structures import FeatureMap, Image, Vocabulary
from annofree.testing.tolerances import assert_close
from annofree.training.tiny.evaluate import compute_average_precision, evaluate_clip, evaluate_sam, measure_dense_iou

RECIPES = Path(__file__).parents[2] / "recipes" / "emoji"


def test_average_precision_without_a_positive_is_not_a_number() -> None:
    assert np.isnan(compute_average_precision(np.array([0.2, 0.1]), np.array([False, False])))


class OneHot:
    """A CLIP whose cells are the words of given classes, 0 the background, at the image's own size."""

    def __init__(self, answers: list[npt.NDArray[np.int64]]) -> None:
        self.answers = list(answers)

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        assert vocabulary.names == ("background", *CATEGORIES.values())
        return torch.eye(len(vocabulary))

    def encode_dense(self, images: Sequence[Image]) -> list[FeatureMap]:
        answer = torch.from_numpy(self.answers.pop(0))
        return [FeatureMap(torch.eye(1 + len(CATEGORIES))[answer].permute(2, 0, 1), images[0].size)]


def scene_of(layout: npt.NDArray[np.uint8], ids: list[int]) -> Scene:
    objects = tuple(SceneObject(id_, "", False) for id_ in ids)
    return Scene(np.zeros((*layout.shape, 3), np.uint8), layout, layout, objects, "", "mixed", "plain")


IDS = list(CATEGORIES)
SCENES = [
    scene_of(np.random.default_rng(seed).integers(0, 1 + len(cast), (9, 9), dtype=np.uint8), cast)
    for seed, cast in enumerate([[IDS[5], IDS[2]], [IDS[2], IDS[2], IDS[64]], []])  # two of one class, and an empty scene
]


class TestDenseIou:
    def classes(self, scene: Scene) -> npt.NDArray[np.int64]:
        return np.array([0, *(1 + IDS.index(o.category_id) for o in scene.objects)])

    def test_the_truth_scores_one(self) -> None:
        clip: Any = OneHot([self.classes(s)[s.layout] for s in SCENES])
        assert measure_dense_iou(clip, SCENES) == 1

    def test_it_is_the_mean_over_classes_of_all_scenes_together(self) -> None:
        rng = np.random.default_rng(9)
        answers = [rng.choice(self.classes(s), s.layout.shape) for s in SCENES]
        clip: Any = OneHot(answers)
        ious = []
        for k in (0, 3, 6, 65):
            both = one = 0
            for scene, answer in zip(SCENES, answers, strict=True):
                truth = self.classes(scene)[scene.layout] == k
                both += int((truth & (answer == k)).sum())
                one += int((truth | (answer == k)).sum())
            ious.append(both / one)
        assert_close(measure_dense_iou(clip, SCENES), float(np.mean(ious)))

    def test_names_that_are_not_there_are_not_asked_for(self) -> None:
        """Where a cell says a class that the scene does not show, all names there score alike and the first is taken."""
        clip: Any = OneHot([np.full((9, 9), 30)])
        background = float((SCENES[0].layout == 0).mean())
        assert_close(measure_dense_iou(clip, SCENES[:1]), background / 3)


@drawing
def test_the_bundled_clip_names_and_the_bundled_sam_draws() -> None:
    named = evaluate_clip(find_bundled("tiny-clip"), count=24)
    drawn = evaluate_sam(find_bundled("tiny-sam"), count=6)
    assert all(0 <= value <= 1 for value in (named | drawn).values())
    assert named["zero-shot top-1"] > 0.6
    assert drawn["box IoU above 32 px"] > 0.5
