"""SAM + CLIP on the paper world and on scripted masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from annofree.clues.regions import Look
from annofree.detections.proposals import build_point_grid
from annofree.errors import InputError
from annofree.methods.class_agnostic.sam_everything import SamEverything
from annofree.methods.sam_clip import VARIANTS, SamClip, SamClipEncoding, SamClipSettings
from annofree.methods.variants import change_settings
from annofree.protocols import Embedding, PromptedMasks, Segmenter
from annofree.structures import BoolArray, Image, Vocabulary
from annofree.testing.conformance import CHECKS, check_known_answers
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

LOOKS = get_args(Look)


def boxes_as_masks(*boxes: tuple[int, int, int, int]) -> BoolArray:
    """Filled boxes x0 y0 x1 y1 (N, 20, 30)."""
    masks = np.zeros((len(boxes), 20, 30), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


class Scripted(FakeSam):
    """Answers any points with given masks (P, M, H, W) of given quality (P, M)."""

    def __init__(self, masks: BoolArray, quality: list[list[float]]) -> None:
        self.answer = PromptedMasks(torch.from_numpy(masks), torch.tensor(quality))
        self.asked: list[dict[str, Any]] = []

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        return [Embedding(image.size, ()) for image in images]

    def predict_masks(self, embedding: Embedding, **prompts: Any) -> PromptedMasks:
        self.asked.append(prompts)
        return self.answer


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conforms(check: Callable[[Segmenter], None]) -> None:
    check(SamClip(FakeClip(), FakeSam()))


@pytest.mark.parametrize("candidates", ["grid", "default", "official", "fast"])
@pytest.mark.parametrize("look", LOOKS)
def test_every_look_and_every_reading_finds_the_objects(look: Look, candidates: Any) -> None:
    settings = replace(VARIANTS["default"], look=look, candidates=candidates)
    check_known_answers(SamClip(FakeClip(), FakeSam(), settings), min_iou=0.99)


def test_variants_are_readings_of_the_paper() -> None:
    assert VARIANTS["crops"] == replace(VARIANTS["default"], look="box")


def test_the_parallel_form_of_the_paper_draws_each_object_many_times() -> None:
    scene = draw_paper_scenes()[0]
    found = SamClip(FakeClip(), FakeSam(), "paper").instances(scene.image, NAMES)
    assert len(found) == 100
    assert all(np.array_equal(mask, scene.masks[0]) for mask in found.masks[:5])


class Watched(FakeClip):
    def __init__(self) -> None:
        self.pooled: list[bool] = []

    def encode_crops(self, image: Image, boxes: npt.NDArray[np.float32], *, pooled: bool) -> Tensor:
        self.pooled.append(pooled)
        return super().encode_crops(image, boxes, pooled=pooled)


@pytest.mark.parametrize(("look", "asked"), [("pooled", [True, True]), ("box", [False, False]), ("masked", [])])
def test_clip_is_asked_once_an_image_and_as_the_settings_say(look: Look, asked: list[bool]) -> None:
    clip = Watched()
    SamClip(clip, FakeSam(), replace(VARIANTS["default"], look=look)).encode(
        [draw_paper_scenes()[0].image, draw_paper_scenes()[1].image]
    )
    assert clip.pooled == asked


def test_everything_mode_brings_what_it_finds_by_itself() -> None:
    image = draw_paper_scenes()[0].image
    (encoding,) = SamClip(FakeClip(), FakeSam(), "everything").encode([image])
    (found,) = SamEverything(FakeSam(), "default").discover([image])
    assert np.array_equal(encoding.masks, found.masks)
    assert encoding.quality.tolist() == pytest.approx(found.scores.tolist())


def test_grid_points_are_cell_centres_row_by_row() -> None:
    points = build_point_grid(3, (30, 60))
    assert points.dtype == np.float32
    assert points.tolist() == [[x, y] for y in (5.0, 15.0, 25.0) for x in (10.0, 30.0, 50.0)]
    assert build_point_grid(1, (1, 1)).tolist() == [[0.5, 0.5]]


def test_the_masker_gets_the_grid_of_its_picture() -> None:
    sam = Scripted(boxes_as_masks((0, 0, 5, 5))[:, None], [[0.9]])
    SamClip(FakeClip(), sam, SamClipSettings(points=4)).encode([Image(np.zeros((20, 30, 3), np.uint8))])
    assert len(sam.asked) == 1
    assert np.array_equal(sam.asked[0]["points"], build_point_grid(4, (20, 30)))
    assert sam.asked[0]["multimask"] is False


class TwoWords(FakeClip):
    def encode_text(self, vocabulary: Vocabulary) -> Tensor:
        return torch.eye(2)[: len(vocabulary)]


def worked(**changes: Any) -> tuple[list[str], list[float]]:
    """Four masks: likeness 1.0, 0.8, 0 and below 0 with their nearest names; quality 0.81, 0.25, 1 and 1."""
    masks = boxes_as_masks((0, 0, 9, 9), (10, 0, 20, 9), (0, 10, 9, 20), (10, 10, 20, 20))
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0], [-0.6, -0.8]])
    encoding = SamClipEncoding(masks, torch.tensor([0.81, 0.25, 1.0, 1.0]), features)
    found = SamClip(TwoWords(), FakeSam(), SamClipSettings(**changes)).instances(encoding, "dog, cat")
    return found.labels.tolist(), found.scores.tolist()


def test_the_score_is_the_geometric_mean_of_likeness_and_quality() -> None:
    labels, scores = worked()
    assert labels == ["dog", "cat"]  # what is like no name has none
    assert scores == pytest.approx([(1.0 * 0.81) ** 0.5, (0.8 * 0.25) ** 0.5])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"score": "clip"}, [1.0, 0.8]),
        ({"score": "sam"}, [0.81, 0.25]),
        # two names of cosines 1 and 0, and 0.6 and 0.8
        ({"scale": 1.0, "score": "clip"}, [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(-0.2))]),
    ],
)
def test_each_form_of_the_score(changes: dict[str, Any], expected: list[float]) -> None:
    assert worked(**changes)[1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "labels"),
    [({"min_likeness": 0.8}, ["dog", "cat"]), ({"min_likeness": 0.9}, ["dog"]), ({"most": 1}, ["dog"]), ({"most": 0}, [])],
)
def test_the_unlike_and_the_weak_are_left_out(changes: dict[str, Any], labels: list[str]) -> None:
    assert worked(**changes)[0] == labels


def kept(quality: list[float], **changes: Any) -> list[list[int]]:
    """Boxes kept of: one, the same less a column (IoU 0.9), one far away, nothing."""
    masks = boxes_as_masks((0, 0, 10, 10), (0, 0, 9, 10), (15, 5, 25, 15), (0, 0, 0, 0))
    sam = Scripted(masks[:, None], [[q] for q in quality])
    encoding = SamClip(FakeClip(), sam, SamClipSettings(**changes)).encode([Image(np.zeros((20, 30, 3), np.uint8))])[0]
    assert len(encoding.masks) == len(encoding.quality) == len(encoding.features)
    columns = [np.flatnonzero(mask.any(0)) for mask in encoding.masks]
    return sorted([int(c[0]), int(c[-1]) + 1] for c in columns)


def test_empty_masks_are_left_out_and_all_else_kept_in_the_parallel_form() -> None:
    assert kept([0.9, 0.8, 0.7, 1.0]) == [[0, 9], [0, 10], [15, 25]]


def test_the_weaker_of_two_alike_is_suppressed() -> None:
    assert kept([0.9, 0.8, 0.7, 1.0], nms=0.7) == [[0, 10], [15, 25]]
    assert kept([0.8, 0.9, 0.7, 1.0], nms=0.7) == [[0, 9], [15, 25]]
    assert kept([0.9, 0.8, 0.7, 1.0], nms=0.95) == [[0, 9], [0, 10], [15, 25]]


def test_masks_of_low_quality_are_left_out_before_they_suppress() -> None:
    assert kept([0.4, 0.8, 0.5, 1.0], min_quality=0.5, nms=0.7) == [[0, 9], [15, 25]]
    assert kept([0.4, 0.3, 0.2, 1.0], min_quality=0.5, nms=0.7) == []


def test_of_many_masks_a_point_the_best_is_kept() -> None:
    masks = boxes_as_masks((0, 0, 4, 4), (0, 0, 10, 10), (0, 0, 20, 20))[None]
    sam = Scripted(masks, [[0.5, 1.3, 0.9]])  # a guess of an IoU may be above 1
    image = Image(np.zeros((20, 30, 3), np.uint8))
    encoding = SamClip(FakeClip(), sam, SamClipSettings(points=1, many=True)).encode([image])[0]
    assert encoding.masks.sum((1, 2)).tolist() == [100]
    assert encoding.quality.tolist() == [1.0]
    assert sam.asked[0]["multimask"] is True


def test_nothing_drawn_is_nothing_found() -> None:
    sam = Scripted(boxes_as_masks((0, 0, 0, 0))[:, None], [[1.0]])
    found = SamClip(FakeClip(), sam, SamClipSettings(points=1)).instances(Image(np.zeros((20, 30, 3), np.uint8)), NAMES)
    assert (len(found), found.size, found.names) == (0, (20, 30), NAMES)


def test_no_images_give_no_encodings() -> None:
    assert SamClip(FakeClip(), FakeSam()).encode([]) == []


def test_an_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown variant of sam_clip 'crop'; did you mean 'crops'\?"):
        SamClip(FakeClip(), FakeSam(), "crop")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"look": "boxed"}, "unknown value of look 'boxed'; did you mean 'box'"),
        ({"look": 3}, "expected look of the settings as 'box' or 'masked' or 'black' or 'pooled', got 3"),
        ({"candidates": "everything"}, "unknown value of candidates 'everything'. Known: default, fast, grid"),
        ({"candidates": None}, "expected candidates of the settings as 'grid' or 'default' or"),
        ({"score": "geometry"}, "unknown value of score 'geometry'; did you mean 'geometric'"),
        ({"score": True}, "expected score of the settings as 'geometric' or 'clip' or 'sam', got True"),
        ({"scale": -1}, "expected at least 1 point a side and a scale from 0, got 32 and -1"),
        ({"points": 0}, "expected at least 1 point a side and a scale from 0, got 0 and 0"),
        ({"pooled": False}, "unknown setting 'pooled'"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        change_settings(VARIANTS["default"], changes)
