"""Detectors: images a second of our Cascade Mask R-CNN beside torchvision's Mask R-CNN, on the same backbone.

    uv run python benchmarks/detectors.py --backbone resnet50 --side 800 --device cuda --bf16 --json detectors.json

torchvision's is its own MaskRCNN, with its transform and its pasting, at the same sizes of heads and proposals.  Three
box heads instead of one cost more; how much more is what this tells.  Scenes are rectangles and ellipses on noise.  Both
are timed in turn, so that a slow spell of the machine meets both.  Training is one step of SGD; use ends with masks in the
image.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor

from annofree.detectors.backbones import Backbone
from annofree.detectors.base import DetectorNetwork
from annofree.detectors.build import build_network
from annofree.detectors.config import BACKBONES, DetectorConfig
from annofree.detectors.types import DetectionTargets
from annofree.testing.timing import Spread, format_spreads, measure_seconds

NAMES = tuple(f"class {i}" for i in range(20))
SMALL: dict[str, Any] = {
    "layers": (1, 1, 1, 1),
    "width": 16,
    "channels": 16,
    "fc": 32,
    "mask_convs": 1,
    "anchors": (8, 16, 32, 64, 128),
    "rpn_before": (100, 100),
    "rpn_after": (50, 50),
    "roi_batch": 32,
}

Scene = tuple[Tensor, DetectionTargets]


def scene(size: tuple[int, int], objects: int, rng: torch.Generator) -> Scene:
    """Pixels (3, H, W) and what is in them: every other object an ellipse."""
    height, width = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    spans = (0.1 + 0.3 * torch.rand(objects, 2, generator=rng)) * torch.tensor([width, height])
    low = (torch.rand(objects, 2, generator=rng) * (torch.tensor([width, height]) - spans)).floor()
    boxes = torch.cat([low, low + spans.ceil()], 1)
    masks = torch.zeros(objects, height, width, dtype=torch.bool)
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
        oval = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2 < 1
        masks[i] = inside & oval if i % 2 else inside
    pixels = torch.rand(3, height, width, generator=rng)
    for mask in masks:
        pixels[:, mask] = pixels[:, mask] * 0.2 + 0.8 * torch.rand(3, 1, generator=rng)
    return pixels, DetectionTargets(boxes, torch.randint(0, len(NAMES), (objects,), generator=rng), masks)


class Body(Backbone):
    """Our backbone as torchvision's detectors want it."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        self.out_channels = config.channels


def torchvisions(config: DetectorConfig) -> nn.Module:
    """torchvision's Mask R-CNN at the sizes of a configuration."""
    network: nn.Module = MaskRCNN(
        Body(config),
        min_size=config.side,
        max_size=config.longest,
        image_mean=config.mean,
        image_std=config.std,
        rpn_anchor_generator=AnchorGenerator(tuple((s,) for s in config.anchors), (config.ratios,) * 5),
        rpn_pre_nms_top_n_train=config.rpn_before[0],
        rpn_pre_nms_top_n_test=config.rpn_before[1],
        rpn_post_nms_top_n_train=config.rpn_after[0],
        rpn_post_nms_top_n_test=config.rpn_after[1],
        box_head=TwoMLPHead(config.channels * config.box_pool**2, config.fc),
        box_predictor=FastRCNNPredictor(config.fc, len(config.names) + 1),
        box_score_thresh=config.score_floor,
        box_batch_size_per_image=config.roi_batch,
        mask_head=MaskRCNNHeads(config.channels, (config.channels,) * config.mask_convs, 1),
        mask_predictor=MaskRCNNPredictor(config.channels, config.channels, len(config.names) + 1),
    )
    return network


def learning(network: nn.Module, scenes: Sequence[Scene], ours: bool, device: str, bf16: bool) -> Callable[[], object]:
    """One step on all scenes."""
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9)
    pixels, targets = [p.to(device) for p, _ in scenes], [t.to(device) for _, t in scenes]
    theirs = [{"boxes": t.boxes, "labels": t.labels + 1, "masks": t.masks.to(torch.uint8)} for t in targets]

    def step() -> None:
        network.train()
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=bf16):
            losses = network(pixels, targets if ours else theirs)
        optimizer.zero_grad()
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def finding(network: nn.Module, scenes: Sequence[Scene], device: str, bf16: bool) -> Callable[[], object]:
    """Everything found in all scenes, masks as bool."""
    pixels = [p.to(device) for p, _ in scenes]

    @torch.inference_mode()
    def find() -> list[Tensor]:
        network.eval()
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=bf16):
            if isinstance(network, DetectorNetwork):
                return [found.masks for found in network.detect(pixels)]
            return [found["masks"] >= 0.5 for found in network(pixels)]

    return find


def timings(config: DetectorConfig, scenes: Sequence[Scene], repeats: int, device: str, bf16: bool) -> dict[str, list[float]]:
    """Images a second of each network at each work, once a repeat, in turn, after one round that is not counted."""
    torch.manual_seed(0)
    ours, theirs = build_network(config).to(device), torchvisions(config).to(device)
    jobs = {
        "train cascade": learning(ours, scenes, True, device, bf16),
        "train torchvision": learning(theirs, scenes, False, device, bf16),
        "use cascade": finding(ours, scenes, device, bf16),
        "use torchvision": finding(theirs, scenes, device, bf16),
    }
    rounds = [{name: len(scenes) / measure_seconds(job, device) for name, job in jobs.items()} for _ in range(repeats + 1)]
    return {name: [r[name] for r in rounds[1:]] for name in jobs}


def ratios(rates: dict[str, list[float]]) -> dict[str, Spread]:
    """The cascade over torchvision's, divided within each repeat."""
    pairs = {work: zip(rates[f"{work} cascade"], rates[f"{work} torchvision"], strict=True) for work in ("train", "use")}
    return {work: Spread.of([a / b for a, b in pair]) for work, pair in pairs.items()}


def table(rates: dict[str, list[float]]) -> str:
    """Lay out images a second and ratios as plain text."""
    speed = format_spreads("images a second", {name: Spread.of(values) for name, values in rates.items()}, 28, 3)
    return f"{speed}\n\n{format_spreads('cascade / torchvision', ratios(rates), 28, 3)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description="Cascade Mask R-CNN beside torchvision's Mask R-CNN.")
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet18")
    parser.add_argument("--side", type=int, default=256, help="short side of the images in px; the long one is 4/3 of it")
    parser.add_argument("--batch", type=int, default=2, help="images a step")
    parser.add_argument("--objects", type=int, default=7, help="in each image")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="compute under autocast")
    parser.add_argument("--small", action="store_true", help="tiny networks, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    asked = parser.parse_args(arguments)
    size = (asked.side, asked.side * 4 // 3)
    backbone = "clip-resnet" if asked.small else asked.backbone
    changes: dict[str, Any] = {"backbone": backbone, "norm": "frozen", "sampling": 2, **(SMALL if asked.small else {})}
    config = DetectorConfig("cascade", NAMES, side=size[0], longest=size[1], **changes)
    rng = torch.Generator().manual_seed(0)
    scenes = [scene(size, asked.objects, rng) for _ in range(asked.batch)]
    print(f"{backbone}, {size[0]} x {size[1]} px, {asked.batch} at once, {asked.device}{', bf16' if asked.bf16 else ''}\n")
    rates = timings(config, scenes, asked.repeats, asked.device, asked.bf16)
    print(table(rates))
    if asked.json:
        record = {
            "settings": {k: getattr(asked, k) for k in ("side", "batch", "objects", "repeats", "device", "bf16", "small")}
            | {"backbone": backbone},
            "machine": {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__},
            "pictures_a_second": {name: Spread.of(v)._asdict() | {"repeats": v} for name, v in rates.items()},
            "ratios": {work: spread._asdict() for work, spread in ratios(rates).items()},
        }
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
