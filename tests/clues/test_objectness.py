from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from annofree.clues.objectness import InstanceObjectness, sum_instance_masks
from annofree.errors import InputError
from annofree.methods.zip import Zip
from annofree.protocols import Objectness
from annofree.structures import BoolArray, Detections, Image, Vocabulary
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.tolerances import assert_close


def some(count: int, scores: list[float]) -> Detections:
    masks: BoolArray = np.random.default_rng(0).random((count, 7, 9)) < 0.4
    return Detections.from_masks(masks, [0] * count, scores, ["thing"])


def test_the_map_is_the_weighed_sum_over_its_maximum() -> None:
    found = some(5, [0.9, 0.5, 0.3, 0.29, 0.1])
    expected = np.zeros((7, 9))
    for mask, score in zip(found.masks, found.scores, strict=True):
        if score >= np.float32(0.3):
            expected += mask * score
    assert_close(sum_instance_masks(found), expected / expected.max())
    assert sum_instance_masks(found).max() == 1


def test_nothing_sure_is_no_objectness() -> None:
    for found in (some(2, [0.2, 0.1]), Detections.none((7, 9), ["thing"])):
        assert torch.equal(sum_instance_masks(found), torch.zeros(7, 9))


class Counting:
    provenance: dict[str, Any] = {"method": "counting"}  # noqa: RUF012

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def remarks(self, classes: Any) -> list[str]:
        return []

    def encode(self, images: Sequence[Image]) -> list[Any]:
        self.encoded.append(len(images))
        return list(images)

    def instances(self, image: Any, classes: Any) -> Detections:
        full = np.ones((1, *image.size), bool)
        return Detections.from_masks(full, [0], [0.4 * len(Vocabulary.of(classes))], Vocabulary.of(classes).names)


def test_images_are_encoded_together_and_asked_for_the_classes() -> None:
    segmenter = Counting()
    images = [Image(np.zeros((3, 4, 3), np.uint8)), Image(np.zeros((5, 2, 3), np.uint8))]
    assert [tuple(m.shape) for m in InstanceObjectness(segmenter, "object").predict_maps(images)] == [(3, 4), (5, 2)]
    assert segmenter.encoded == [2]
    assert InstanceObjectness(segmenter, "object", min_score=0.5).predict_maps(images)[0].max() == 0
    assert InstanceObjectness(segmenter, "cat, dog", min_score=0.5).predict_maps(images)[0].max() == 1
    assert InstanceObjectness(segmenter, "object").predict_maps([]) == []


def test_a_method_of_ours_serves() -> None:
    source: Objectness = InstanceObjectness(Zip(FakeClip(), FakeSam()), NAMES)
    scene = next(s for s in draw_paper_scenes() if s.image.id == "two classes")
    assert np.array_equal(source.predict_maps([scene.image])[0].numpy() > 0.5, scene.masks.any(0))
    assert source.provenance["objectness"] == "instances" and source.provenance["segmenter"]["method"] == "zip"


def test_bad_scores_are_refused() -> None:
    with pytest.raises(InputError, match=r"min_score in 0 \.\. 1"):
        InstanceObjectness(Counting(), "object", min_score=2)
