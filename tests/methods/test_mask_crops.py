"""Masks of an objectness, each named by the crop that is black around it, on the paper world; and where the masks are from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from annofree.clues.background import Background
from annofree.clues.objectness import InstanceObjectness
from annofree.clues.regions import draw_cut_outs
from annofree.detectors.config import OBJECT
from annofree.errors import InputError, MissingError
from annofree.formats.coco import CocoFile
from annofree.methods.class_agnostic.mask_crops import MaskCrops, MaskCropsSettings, ObjectMasks, split_objectness
from annofree.methods.components import Models
from annofree.methods.detector import Detector, DetectorInfo
from annofree.methods.registry import find_objectness_roles
from annofree.protocols import Segmenter, SemanticSegmenter
from annofree.structures import VOID, Detections, Image, LabelMap, Vocabulary
from annofree.testing.conformance import CHECKS
from annofree.testing.fake_detector import FakeDetector
from annofree.testing.fakes import FakeClip, FakeObjectness
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.semantic_conformance import SEMANTIC_CHECKS

SCENE = next(scene for scene in draw_paper_scenes() if scene.image.id == "two classes")

# the fake CLIP sees the mean of a crop, which black makes dark
GRAY = MaskCropsSettings(look="masked")


def everything() -> InstanceObjectness:
    return InstanceObjectness(Detector(FakeDetector(), DetectorInfo(FakeDetector.names, {"name": "fake-detector"})), NAMES)


# The method


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_its_instances_conform(check: Callable[[Segmenter], None]) -> None:
    method = MaskCrops(FakeClip(), everything(), GRAY)
    assert isinstance(method, Segmenter)
    check(method)


@pytest.mark.parametrize("check", SEMANTIC_CHECKS, ids=lambda check: check.__name__)
def test_its_label_maps_conform(check: Callable[[SemanticSegmenter], None]) -> None:
    method = MaskCrops(FakeClip(), everything(), GRAY)
    assert isinstance(method, SemanticSegmenter)
    check(method)


def test_regions_of_a_map_serve_where_there_are_no_masks() -> None:
    found = MaskCrops(FakeClip(), FakeObjectness(), GRAY).semantic(SCENE.image, NAMES)
    assert np.array_equal(found.labels > 0, SCENE.masks.any(0))
    values = torch.tensor([[0.9, 0.7, 0.1], [0.1, 0.1, 0.5]])
    assert split_objectness(values).masks.tolist() == [[[1, 1, 0], [0, 0, 1]]]
    assert split_objectness(torch.zeros(2, 3)).masks.shape == (0, 2, 3)


def test_clip_sees_black_around_a_mask() -> None:
    image, mask = Image(np.full((8, 8, 3), 255, np.uint8)), np.zeros((1, 8, 8), bool)
    mask[0, 2:6, 2:4] = True
    (black,), (gray,) = draw_cut_outs(image, mask, 8, 0.0), draw_cut_outs(image, mask, 8)
    assert black.min() == 0 and gray.min() > 0.4 and black.max() == gray.max() == 1
    clip = Watching()
    for settings in ("default", GRAY):
        MaskCrops(clip, everything(), settings).encode([SCENE.image])
    assert clip.corners == [0.0, 0.5]


class Watching(FakeClip):
    """Keeps the level of the corner of the first square of each call."""

    def __init__(self) -> None:
        self.corners: list[float] = []

    def encode_squares(self, pixels: Tensor) -> Tensor:
        self.corners.append(round(float(pixels[0, 0, 0, 0]), 3))
        return super().encode_squares(pixels)


class Two:
    """A large mask that is less sure than a small one in it; and one that no one believes."""

    provenance: dict[str, Any] = {"method": "two", "models": [{"name": "finder"}]}  # noqa: RUF012

    def remarks(self, classes: Any) -> list[str]:
        return []

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return list(images)

    def instances(self, image: Image, classes: Any) -> Detections:
        masks = np.zeros((3, *image.size), bool)
        masks[0, :, :6], masks[1, :2, :2], masks[2] = True, True, True
        return Detections.from_masks(masks, [0, 0, 0], [0.5, 0.9, 0.2], Vocabulary.of(classes).names)


def test_the_strongest_mask_lies_on_top_and_what_none_has_is_background() -> None:
    image = Image(np.full((4, 8, 3), 200, np.uint8))
    source = InstanceObjectness(Two(), OBJECT)
    assert [len(found) for found in source.find_masks([image])] == [2] and source.find_masks([]) == []
    method = MaskCrops(Sized(), source, "paper")
    found = method.semantic(image, "small, large")
    expected = np.zeros((4, 8), np.int32)
    expected[:, :6], expected[:2, :2] = 2, 1
    assert found == LabelMap(expected, ("background", "small", "large"), 0)
    bare = MaskCrops(Sized(), source, MaskCropsSettings(background=Background("none"))).semantic(image, "small, large")
    assert bare.background is None and set(np.unique(bare.labels)) == {VOID, 0, 1}
    assert (MaskCrops(Sized(), source).semantic(image, "background").labels == 0).all()
    assert [model["name"] for model in method.provenance["models"]][1:] == ["finder"]
    assert method.provenance["method"] == "mask_crops" and method.provenance["settings"]["look"] == "black"


class Sized(FakeClip):
    """Names a crop by how much of it is not black: the small mask has a square of 4 px at least, and fills a quarter of it."""

    def encode_squares(self, pixels: Tensor) -> Tensor:
        small = (pixels.amax(1) > 0.4).float().mean((1, 2)) < 0.35
        return torch.stack([small, ~small], 1).float()

    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        told = {"small": [1.0, 0.0], "large": [0.0, 1.0]}
        return torch.tensor([told.get(name, [-1.0, -1.0]) for name in vocabulary.names])

    @property
    def dimension(self) -> int:
        return 2


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="expected an objectness whose masks are named, got none; choose a source"):
        MaskCrops(FakeClip(), None)
    with pytest.raises(InputError, match="expected the background rule words or none"):
        MaskCropsSettings(background=Background("threshold"))
    with pytest.raises(InputError, match="unknown variant of mask_crops 'papers'; did you mean 'paper'"):
        MaskCrops(FakeClip(), everything(), "papers")


# Where masks are from


def test_a_detector_is_asked_for_all_that_it_knows() -> None:
    models = Models("tiny", "cpu", objectness="cutler")
    network = FakeDetector(), DetectorInfo(FakeDetector.names, {"name": "fake-detector"})
    source: Any = models.with_parts(detector=network).objectness
    assert isinstance(source, InstanceObjectness) and source.classes.names == FakeDetector.names and source.min_score == 0.3
    (found,) = source.predict_maps([SCENE.image])
    assert np.array_equal(found.numpy() > 0, SCENE.masks.any(0))
    assert models.objectness is not source  # other parts, another objectness
    assert ObjectMasks(source).models == [{"name": "fake-detector", "trained_on": list(FakeDetector.names)}]


def stored(place: Path, size: tuple[int, int]) -> Path:
    found = Detections.from_masks(SCENE.masks, [0] * len(SCENE.masks), [0.9, 0.2], [OBJECT])
    height, width = size
    rows = found.to_coco(image_id=1)
    CocoFile([{"id": 1, "file_name": "a.png", "height": height, "width": width}], [{"id": 1, "name": OBJECT}], rows).write(
        place
    )
    return place


def test_stored_masks_are_an_objectness(tmp_path: Path) -> None:
    place = stored(tmp_path / "masks.json", SCENE.image.size)
    assert find_objectness_roles(str(place)) == ()
    source: Any = Models("tiny", "cpu", objectness=str(place)).objectness
    image = Image(SCENE.image.pixels, "a.png")
    (found,) = source.predict_maps([image])
    assert np.array_equal(found.numpy() > 0, SCENE.masks[0])  # the other scores 0.2
    assert source.provenance["segmenter"]["masks"]["name"] == "masks.json"
    with pytest.raises(InputError, match=r"expected masks of b.png in .*masks.json, which lists 1 images"):
        source.predict_maps([Image(SCENE.image.pixels, "b.png")])
    with pytest.raises(InputError, match=r"expected masks of a.png at its size, 2x2, got"):
        source.predict_maps([Image(np.zeros((2, 2, 3), np.uint8), "a.png")])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cuttler", "unknown objectness source 'cuttler'; did you mean 'cutler'"),
        ("runs/none", r"expected a source of objectness \(found, .*none\), or a folder with detector.json.*, got runs/none"),
        ("", "unknown objectness source ''"),
    ],
)
def test_what_is_no_source_is_refused(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Models("tiny", "cpu", objectness=source)


def test_models_without_a_detector_are_refused() -> None:
    with pytest.raises((InputError, MissingError), match="give its folder as the method, or as the objectness"):
        _ = Models("openai-vit-b-32+sam-b", "cpu", objectness="cutler").objectness
