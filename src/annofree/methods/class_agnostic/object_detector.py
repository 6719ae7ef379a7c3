"""A trained detector that tells no names apart, as a method without names: CutLER's, or any that knows "object" alone.

N things found in an image, the strongest first.
"""

from __future__ import annotations

from collections.abc import Sequence

from annofree.detectors.config import OBJECT
from annofree.errors import InputError
from annofree.methods.detector import Detector, DetectorInfo, DetectorSettings
from annofree.protocols import DetectorBackend
from annofree.structures import Detections, Image

__all__ = ["ObjectDetector", "build_detector"]


class ObjectDetector(Detector):
    """A detector of the one name object; raises InputError for a network that knows others."""

    def __init__(self, network: DetectorBackend, origin: DetectorInfo, settings: DetectorSettings | str = "default") -> None:
        super().__init__(network, origin, settings)
        if origin.names != (OBJECT,):
            raise InputError(
                f"expected a detector that knows {OBJECT} alone, got one of {len(origin.names)} names; ask for those"
            )

    def discover(self, images: Sequence[Image]) -> list[Detections]:
        """Find the things of each image, without names."""
        return [self.instances(encoding, OBJECT) for encoding in self.encode(images)]


def build_detector(network: DetectorBackend, origin: DetectorInfo, settings: DetectorSettings | str = "default") -> Detector:
    """A detector by what its network knows: without names where that is "object" alone."""
    return (ObjectDetector if origin.names == (OBJECT,) else Detector)(network, origin, settings)
