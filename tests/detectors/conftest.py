"""A detector small enough to learn within seconds, and a scene to learn."""

from collections.abc import Callable

import pytest
import torch
from tests.support.small_detector import TINY
from torch import Tensor

from annofree.detectors.config import DetectorConfig
from annofree.detectors.types import DetectionTargets

Scene = tuple[Tensor, DetectionTargets]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Weights and images drawn without a seed of their own are the same in any order of tests."""
    torch.manual_seed(0)


@pytest.fixture
def tiny() -> Callable[..., DetectorConfig]:
    """Makes the configuration of a small detector, with changes."""
    return lambda kind="cascade", **changes: DetectorConfig(kind=kind, **{**TINY, **changes})


def nothing(size: tuple[int, int]) -> DetectionTargets:
    return DetectionTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, *size, dtype=torch.bool))


@pytest.fixture
def empty() -> Callable[[tuple[int, int]], DetectionTargets]:
    """The target of an image of a size with nothing in it."""
    return nothing


@pytest.fixture
def scene() -> Scene:
    """A red disc and a blue bar on grey, 64 x 80 px."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(80), indexing="ij")
    masks = torch.stack([(y - 26) ** 2 + (x - 24) ** 2 < 16**2, (y >= 38) & (y < 54) & (x >= 40) & (x < 72)])
    pixels = torch.full((3, 64, 80), 0.5)
    for mask, color in zip(masks, ((0.9, 0.1, 0.1), (0.1, 0.1, 0.9)), strict=True):
        pixels[:, mask] = torch.tensor(color)[:, None]
    boxes = torch.tensor([[9.0, 11, 40, 42], [40, 38, 72, 54]])
    return pixels, DetectionTargets(boxes, torch.tensor([0, 1]), masks)
