"""DeepLabv3+: its size, its dilations, and configurations that make no network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.models import resnet

from annofree.detectors.backbones import load_backbone
from annofree.detectors.deeplab.network import DeepLab, DeepLabConfig, dilate_stages
from annofree.errors import InputError
from annofree.testing.tolerances import assert_close


def count_parameters(config: DeepLabConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in DeepLab(config).parameters())


def test_with_a_resnet_50_it_has_the_papers_parameters() -> None:
    assert round(count_parameters(DeepLabConfig(names=tuple(f"name {i}" for i in range(20)))) / 1e6, 1) == 26.6


@pytest.mark.parametrize("stride", [8, 16])
def test_dilations_are_torchvisions(stride: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = resnet.resnet50(replace_stride_with_dilation=[False, stride == 8, True]).eval()
        pixels = torch.randn(1, 3, 64, 64)
    ours = resnet.resnet50().eval()
    ours.load_state_dict(theirs.state_dict())
    dilate_stages(ours, stride)
    with torch.inference_mode():
        a, b = pixels, pixels
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            a, b = getattr(theirs, name)(a), getattr(ours, name)(b)
    assert b.shape[-1] == 64 // stride
    assert_close(b, a, depth="network")


@pytest.mark.parametrize("backbone", ["resnet18", "clip-resnet"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_logits_are_on_cells_of_four_px_at_any_stride(backbone: Any, stride: Any) -> None:
    config = DeepLabConfig(("a", "b"), backbone, (1, 1, 1, 1), 8, stride=stride, channels=8, fine=4, rates=(1, 2, 3))
    network = DeepLab(config)
    assert network(torch.randn(2, 3, 64, 96)).shape == (2, 3, 16, 24)
    assert network.train()(torch.randn(1, 3, 64, 64)).shape == (1, 3, 16, 16)  # a batch of one can be learned from


def test_a_resnets_weights_are_taken() -> None:
    network = DeepLab(DeepLabConfig(("a",), "resnet18", channels=8, fine=4))
    state = resnet.resnet18().state_dict()
    said = load_backbone(network, state)
    assert set(said.left_out) == {"fc.weight", "fc.bias"}
    assert torch.equal(network.backbone.body.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"names": ()}, "expected names to tell apart"),
        ({"names": ("a", "a")}, "expected names to tell apart, each once"),
        ({"names": ("a",), "backbone": "resnet5"}, "unknown backbone 'resnet5'; did you mean 'resnet50'"),
        ({"names": ("a",), "rates": (1, 2)}, "expected 3 values above 0 as rates"),
        ({"names": ("a",), "channels": 0}, "expected width, channels and fine from 1"),
        ({"names": ("a",), "chanels": 8}, "unknown setting of the network 'chanels'; did you mean 'channels'"),
    ],
)
def test_what_makes_no_network_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DeepLabConfig.of(values)
