"""The configuration of a detector: it goes to JSON and back, refuses nonsense, and makes each kind of network."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch

from annofree.detectors.build import build_network
from annofree.detectors.config import DetectorConfig
from annofree.detectors.types import DetectionTargets
from annofree.errors import InputError

Make = Callable[..., DetectorConfig]


def test_it_goes_to_json_and_back(tiny: Make) -> None:
    config = tiny(drop_loss=0.01)
    assert DetectorConfig.of(json.loads(json.dumps(asdict(config)))) == config
    assert not config.agnostic and tiny(names=("object",)).agnostic


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "yolo"}, "unknown kind of detector"),
        ({"backbone": "resnet5O"}, "did you mean 'resnet50'"),
        ({"norm": "none"}, "unknown norm"),
        ({"names": ()}, "names that a detector finds"),
        ({"names": "dog"}, "names that a detector finds"),
        ({"names": ("dog", "dog")}, "once"),
        ({"side": 0}, "side of a detector in whole numbers from 1, got 0"),
        ({"fc": 2.5}, "fc of a detector"),
        ({"sampling": -1}, "from 0, got -1"),
        ({"anchors": (8, 16)}, "5 values as anchors"),
        ({"std": (0.1, 0.1, 0.0)}, "above 0"),
        ({"nms": 1.5}, "nms of a detector in 0 .. 1"),
    ],
)
def test_nonsense_is_refused(tiny: Make, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tiny(**changes)


def test_settings_that_are_none_or_lack_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'side'"):
        DetectorConfig.of({"kind": "cascade", "names": ["a"], "sides": 3})
    with pytest.raises(InputError, match="setting 'names'"):
        DetectorConfig.of({"kind": "cascade"})


@pytest.mark.parametrize("kind", ["cascade", "mask_rcnn"])
def test_each_kind_is_made(tiny: Make, kind: str) -> None:
    network = build_network(tiny(kind))
    assert network.config.kind == kind and network.device == "cpu"


def test_a_target_goes_to_a_device() -> None:
    target = DetectionTargets(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 2, 2, dtype=torch.bool))
    weighed = target._replace(weights=torch.ones(1)).to("meta")
    assert [part.device.type for part in weighed if part is not None] == ["meta"] * 4 and target.to("meta").weights is None
