"""Mask R-CNN here is torchvision's, on our backbone."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator

from annofree.detectors.build import build_network
from annofree.detectors.config import DetectorConfig
from annofree.detectors.mask_rcnn import MaskRcnn
from annofree.testing.tolerances import assert_close


class Body(torch.nn.Module):
    """A backbone as torchvision's detectors want it."""

    def __init__(self, backbone: torch.nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        levels: dict[str, Tensor] = self.backbone(x)
        return levels


def test_it_finds_what_torchvision_finds(tiny: Callable[..., DetectorConfig]) -> None:
    torch.manual_seed(0)
    config = tiny("mask_rcnn", roi_scale=224, side=64, longest=96, score_floor=0.0, detections=20)
    ours = build_network(config).eval()
    assert isinstance(ours, MaskRcnn)
    ours.roi_heads.mask_predictor.mask_fcn_logits.weight.data *= 1000  # masks are neither empty nor full
    theirs = MaskRCNN(
        Body(ours.backbone, config.channels),
        min_size=64,
        max_size=96,
        image_mean=config.mean,
        image_std=config.std,
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in config.anchors), (config.ratios,) * 5),
        box_head=ours.roi_heads.box_head,
        box_predictor=ours.roi_heads.box_predictor,
        mask_head=ours.roi_heads.mask_head,
        mask_predictor=ours.roi_heads.mask_predictor,
        rpn_pre_nms_top_n_test=config.rpn_before[1],
        rpn_post_nms_top_n_test=config.rpn_after[1],
        box_score_thresh=0.0,
        box_detections_per_img=20,
    ).eval()
    theirs.rpn.head.load_state_dict(ours.rpn.head.state_dict())
    pixels = torch.rand(3, 64, 96)
    found, with_masks = ours.detect([pixels])[0], theirs([pixels])[0]
    assert_close(found.boxes, with_masks["boxes"], depth="network")
    assert_close(found.scores, with_masks["scores"], depth="network")
    assert found.scores.diff().abs().min() > 1e-5  # far enough apart to come in one order
    assert torch.equal(found.labels, with_masks["labels"] - 1) and len(found.boxes) == 20
    agree = (found.masks == (with_masks["masks"][:, 0] >= 0.5)).float().mean()
    assert agree > 0.99 > 1 - found.masks.float().mean()  # masks are pasted another way, see test_pasting


def test_small_pictures_within_much_padding_are_read_at_the_right_place(tiny: Callable[..., DetectorConfig]) -> None:
    network = build_network(tiny("mask_rcnn", score_floor=0.0, side=33, longest=33)).eval()
    found = network.detect([torch.rand(3, 33, 33)])[0]
    assert len(found.boxes) and found.boxes.max() <= 33
    assert isinstance(network, MaskRcnn) and network.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
