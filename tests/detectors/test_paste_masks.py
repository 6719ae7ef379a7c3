"""Masks back in the image, beside grid_sample and torchvision's way."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from annofree.detectors.paste_masks import paste


def blobs(count: int, cells: int = 28) -> Tensor:
    small = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    return F.interpolate(small, size=(cells, cells), mode="bicubic", align_corners=False)[:, 0].clamp(0, 1)


def sampled(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    low, span = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    places = (torch.stack([x, y], -1)[None] - low[:, None, None]) / span[:, None, None] * 2 - 1
    return F.grid_sample(masks[:, None], places, align_corners=False)[:, 0]


def test_it_is_what_grid_sample_gives() -> None:
    masks = blobs(5)
    boxes = torch.tensor([[3.2, 4.7, 30.1, 22.9], [-5, -8, 20, 60], [10, 10, 70, 55], [20, 20, 20.6, 20.7], [50, 0, 64, 50.5]])
    pasted, twin = paste(masks, boxes, (50, 64)), sampled(masks, boxes, (50, 64))
    sure = (twin - 0.5).abs() > 1e-5
    assert pasted.shape == (5, 50, 64) and torch.equal(pasted[sure], (twin >= 0.5)[sure]) and sure.float().mean() > 0.99
    assert pasted[:3].flatten(1).any(1).all()


def grown(masks: Tensor) -> Tensor:
    return F.max_pool2d(masks[:, None].float(), 3, 1, 1)[:, 0] > 0


def test_it_agrees_with_torchvision_to_a_pixel() -> None:
    masks = blobs(4)
    boxes = torch.tensor([[10.0, 20, 90, 100], [0, 0, 128, 96], [40, 30, 68, 58], [70, 5, 126, 61]])
    theirs = paste_masks_in_image(masks[:, None], boxes, (128, 128))[:, 0] >= 0.5
    ours = paste(masks, boxes, (128, 128))
    # theirs rounds the box, grown by a cell, to whole pixels
    assert (grown(ours) | ~theirs).all() and (grown(theirs) | ~ours).all()
    assert float((ours != theirs).float().mean()) < 0.02 < float(ours.float().mean())


def test_a_full_mask_fills_its_box() -> None:
    pasted = paste(torch.ones(1, 28, 28), torch.tensor([[2.0, 3, 9, 7]]), (10, 12))[0]
    assert pasted[3:7, 2:9].all() and int(pasted.sum()) == 28


@pytest.mark.parametrize("box", [[20.0, 3, 30, 7], [-9, -9, -2, -2], [4, 4, 4, 9]])
def test_boxes_outside_or_without_area_give_nothing(box: list[float]) -> None:
    assert not paste(torch.ones(1, 4, 4), torch.tensor([box]), (10, 12)).any()


def test_no_box_gives_no_mask() -> None:
    assert paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)
