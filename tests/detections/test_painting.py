from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.measure import label
from tests.support.painted import assert_best
from torch import Tensor
from torch.nn import functional as F

from annofree.detections.painting import (
    average_over_regions,
    build_label_map,
    compute_confidence,
    convert_regions,
    find_strongest,
    number_classes,
    number_components,
    resize_to_pixels,
)
from annofree.errors import InputError
from annofree.structures import VOID, Detections, LabelMap
from annofree.testing.tolerances import assert_close


def scores(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 5, 7, generator=torch.Generator().manual_seed(seed))


def in_parts(maps: Tensor, size: tuple[int, int], seen: list[int]) -> Tensor:
    def draw(part: slice) -> Tensor:
        drawn = resize_to_pixels(maps[part], size)
        seen.append(drawn.numel())
        return drawn

    best, values = find_strongest(draw, len(maps), size, at_once=20_000)
    sure = compute_confidence(draw, len(maps), size, values, 3.0, at_once=20_000)
    return torch.stack([best.double(), values.double(), sure.double()])


@pytest.mark.parametrize("count", [1, 7, 500, 920])
def test_a_few_classes_at_a_time_give_what_all_at_once_give(count: int) -> None:
    maps, size, seen = scores(count), (48, 64), list[int]()
    best, values, share = in_parts(maps, size, seen)
    full = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
    # torch's bilinear differs in the last bit with the number of maps that it is given: where two classes tie, either may win
    assert_best(best, full)
    assert_close(values.float(), full.amax(0))
    assert_close(share.float(), (3 * full).softmax(0).amax(0))
    assert max(seen) <= 20_000 and sum(seen) == 2 * full.numel()


def test_of_equal_scores_the_first_class_wins_across_parts() -> None:
    maps = torch.ones(50, 2, 2)
    assert find_strongest(lambda part: maps[part], 50, (2, 2), at_once=12).best.max() == 0


def test_a_picture_larger_than_the_limit_is_drawn_class_by_class() -> None:
    asked: list[slice] = []

    def draw(part: slice) -> Tensor:
        asked.append(part)
        return torch.zeros(1, 3, 3)

    find_strongest(draw, 4, (3, 3), at_once=5)
    assert asked == [slice(i, i + 1) for i in range(4)]


def test_cells_that_cover_a_padded_picture_are_cropped() -> None:
    maps = torch.arange(6.0).view(1, 2, 3)
    drawn = resize_to_pixels(maps, (7, 10), (8, 12))
    full = F.interpolate(maps[None], size=(8, 12), mode="bilinear", align_corners=False)[0]
    assert_close(drawn, full[:, :7, :10])
    assert resize_to_pixels(maps, (2, 3)).equal(maps)


LABELS = LabelMap(
    np.array([[1, 1, 0, 2], [0, 1, 2, 0], [VOID, 0, 0, 1]], np.int32), ("background", "cat", "dog", "kite"), background=0
)


def test_components_of_a_label_map() -> None:
    regions, owner = number_components(LABELS, 8)
    assert regions.tolist() == [[1, 1, 0, 2], [0, 1, 2, 0], [0, 0, 0, 3]]
    assert owner == [1, 2, 1]
    assert number_components(LABELS, 4)[1] == [1, 2, 2, 1]


def test_all_pixels_of_a_class() -> None:
    regions, owner = number_classes(LABELS)
    assert regions.tolist() == [[1, 1, 0, 2], [0, 1, 2, 0], [0, 0, 0, 1]] and owner == [1, 2]


def test_without_a_background_each_class_is_a_thing() -> None:
    plain = LabelMap(np.array([[0, 0, 1]], np.int32), ("cat", "dog"))
    assert number_components(plain)[1] == number_classes(plain)[1] == [0, 1]
    nothing = LabelMap(np.zeros((2, 2), np.int32), ("background", "cat"), background=0)
    assert number_components(nothing)[1] == number_classes(nothing)[1] == []


def test_components_are_those_of_each_class_by_itself() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.int32)
    regions, owner = number_components(LabelMap(labels, ("background", "a", "b", "c"), 0), 4)
    for k in (1, 2, 3):
        alone = label(labels == k, connectivity=1)
        numbers = [i + 1 for i, o in enumerate(owner) if o == k]
        assert alone.max() == len(numbers)
        for number in numbers:
            mask = regions.numpy() == number
            assert np.array_equal(mask, alone == alone[mask][0])


def test_detections_are_scored_sorted_and_limited() -> None:
    regions, owner = number_components(LABELS, 8)
    values = torch.arange(12.0).view(3, 4)
    means = average_over_regions(regions, 3, [values, -values])
    assert_close(means[:, 0], [(0 + 1 + 5) / 3, (3 + 6) / 2, 11])
    assert_close(means[:, 1], -means[:, 0])
    found = convert_regions(regions, owner, np.array([0.2, 0.9, 0.5], np.float32), LABELS.names)
    assert found.labels.tolist() == ["dog", "cat", "cat"] and found.scores.tolist() == pytest.approx([0.9, 0.5, 0.2])
    assert np.array_equal(found.masks[0], regions.numpy() == 2)
    large = convert_regions(regions, owner, np.array([0.2, 0.9, 0.5], np.float32), LABELS.names, min_area=2)
    assert large.labels.tolist() == ["dog", "cat"] and large.areas.tolist() == [2, 3]
    assert convert_regions(regions, owner, np.ones(3, np.float32), LABELS.names, most=1).labels.tolist() == ["cat"]


def test_no_regions_are_no_detections() -> None:
    regions = torch.zeros(3, 4, dtype=torch.long)
    assert average_over_regions(regions, 0, [torch.ones(3, 4), torch.ones(3, 4)]).shape == (0, 2)
    found = convert_regions(regions, [], np.zeros(0, np.float32), ["cat"])
    assert (len(found), found.size, found.names) == (0, (3, 4), ("cat",))


def test_a_pixel_is_named_with_the_chance_that_one_of_its_masks_is_right() -> None:
    rng = np.random.default_rng(0)
    masks, ids, scores = rng.random((9, 6, 8)) < 0.5, rng.integers(1, 4, 9), rng.random(9).astype(np.float32)
    found = Detections.from_masks(masks, ids, scores, ["background", "a", "b", "c"])
    for threshold in (0.0, 0.4, 0.7, 1.0):
        labels = build_label_map(found, 0, threshold).labels
        for y, x in np.ndindex(6, 8):  # pixel by pixel
            wrong = [
                np.prod([1 - min(s, 0.98) for m, k, s in zip(masks, ids, scores, strict=True) if k == name and m[y, x]])
                for name in (1, 2, 3)
            ]
            likely = 1 - np.array(wrong)
            sure = likely.max() > min(threshold, 0.98) + 1e-6
            assert labels[y, x] == (1 + likely.argmax() if sure else 0)
    assert build_label_map(found[:0], 0).compute_shares() == {"background": 1.0}
    with pytest.raises(InputError, match="threshold from 0 to 1"):
        build_label_map(found, 0, 1.5)
