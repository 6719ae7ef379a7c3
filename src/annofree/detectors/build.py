"""Construction of a network from its configuration."""

from __future__ import annotations

from collections.abc import Callable

from annofree.detectors.base import DetectorNetwork
from annofree.detectors.cascade import Cascade
from annofree.detectors.config import DetectorConfig
from annofree.detectors.mask2former import Mask2Former
from annofree.detectors.mask_rcnn import MaskRcnn

__all__ = ["build_network"]

_NETWORKS: dict[str, Callable[[DetectorConfig], DetectorNetwork]] = {
    "cascade": Cascade,
    "mask_rcnn": MaskRcnn,
    "mask2former": Mask2Former,
}


def build_network(config: DetectorConfig) -> DetectorNetwork:
    """Build the network of a configuration, with random weights."""
    return _NETWORKS[config.kind](config)
