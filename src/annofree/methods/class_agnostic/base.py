"""What methods without names have in common: all is found in ``encode``, and the one name that is asked for is put on it.

N things found, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from annofree.detectors.config import OBJECT
from annofree.errors import InputError
from annofree.methods.detector import DetectorEncoding
from annofree.protocols import SelfSupervised
from annofree.structures import Classes, Detections, Image, Vocabulary

__all__ = ["ClassAgnostic", "ClassAgnosticByDino"]


class ClassAgnostic:
    """A method that answers ``discover``: detections of the one class object, the strongest first, for each image."""

    name = "class_agnostic"

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings and models."""
        raise NotImplementedError

    @property
    def encoding_key(self) -> tuple[Any, ...]:
        """Two of these can share an encoding if all that they were made with is the same."""
        return (self.name, repr(self.provenance))

    def discover(self, images: Sequence[Image]) -> list[Detections]:
        """Find the things of each image, without names."""
        raise NotImplementedError

    def remarks(self, classes: Classes) -> list[str]:
        """Say what things are called; raises InputError where several names are asked for."""
        name = _one_name(classes)
        return [] if name == OBJECT else [f"{self.name} tells no names apart: whatever it finds is called {name!r}"]

    def encode(self, images: Sequence[Image]) -> list[DetectorEncoding]:
        """Find all; one encoding an image, in order, with masks as run lengths."""
        return [DetectorEncoding.of(found) for found in self.discover(images)] if images else []

    def instances(self, image: Image | DetectorEncoding, classes: Classes) -> Detections:
        """What was found in an image, or in an encoding of it, under the one name that is asked for.

        Raises InputError where several names are asked for.
        """
        name = _one_name(classes)
        encoding = self.encode([image])[0] if isinstance(image, Image) else image
        return encoding.select(encoding.labels.numpy(), np.arange(len(encoding.counts)), (name,))


class ClassAgnosticByDino(ClassAgnostic):
    """One that finds things in what a ``dino`` sees, by its ``settings``."""

    settings: Any
    dino: SelfSupervised

    @property
    def provenance(self) -> dict[str, Any]:
        """Method, settings and DINO."""
        return {"method": self.name, "settings": asdict(self.settings), "models": [self.dino.provenance]}


def _one_name(classes: Classes) -> str:
    names = Vocabulary.of(classes).names
    if len(names) > 1:
        raise InputError(
            f"expected one name, such as {OBJECT}, for this method tells none apart, got {len(names)}; ask for one"
        )
    return names[0]
