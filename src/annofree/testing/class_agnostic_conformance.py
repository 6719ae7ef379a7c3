"""Conformance suite for methods that find things without names, other packages' among them.

Give the method the fakes of ``testing.fakes`` for its encoders and run the checks on the paper world.  What a method finds is
its own affair; that it finds the same thing each time, alone or in a batch, and calls it what it is asked to, is not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from annofree.protocols import ClassAgnosticSegmenter
from annofree.structures import Detections, Image
from annofree.testing.paper_world import draw_paper_scenes
from annofree.testing.requirements import require, require_refused

__all__ = ["CHECKS", "check_class_agnostic"]


def check_class_agnostic(make: Callable[[], ClassAgnosticSegmenter]) -> None:
    """Run all checks, each on a new method; raises AssertionError at the first that fails."""
    for check in CHECKS:
        check(make())


def check_something_is_found(method: ClassAgnosticSegmenter) -> None:
    """Where one thing lies on paper, one of the masks is nearer to it than the whole image is; the paper may be found, too."""
    scene = draw_paper_scenes()[0]
    (found,) = method.discover([scene.image])
    require(len(found) > 0, f"scene {scene.image.id!r}: expected a mask of its one thing, got none")
    truth = scene.masks[0]
    iou = max((mask & truth).sum() / (mask | truth).sum() for mask in found.masks)
    require(
        iou > truth.mean(), f"scene {scene.image.id!r}: the best mask has IoU {iou:.2f} with its thing, as much as everything"
    )


def check_well_formed(method: ClassAgnosticSegmenter) -> None:
    """Sizes are those of the images, nothing is empty, scores fall and are in 0 .. 1, and all is called object."""
    for image in _images():
        (found,) = method.discover([image])
        require(found.size == image.size, f"image {image.id!r} of {image.size}: masks have the size {found.size}")
        require(found.names == ("object",), f"expected the one name object, got {found.names}")
        require(bool((np.diff(found.scores) <= 0).all()), f"image {image.id!r}: scores do not fall: {found.scores}")
        require(all(mask.any() for mask in found.masks), f"image {image.id!r}: a mask is empty")


def check_batches(method: ClassAgnosticSegmenter) -> None:
    """Images together give what each gives alone; no images give nothing; the same call gives the same."""
    require(method.discover([]) == [] and len(method.encode([])) == 0, "expected nothing of no images")
    images = _images()
    alone = [method.discover([image])[0] for image in images]
    for image, one, other in zip(images, alone, method.discover(images), strict=True):
        require(_is_same(one, other), f"image {image.id!r}: found otherwise with others than alone")


def check_names(method: ClassAgnosticSegmenter) -> None:
    """The one name asked for is put on all that is found, of an image or its encoding; several are refused."""
    image = draw_paper_scenes()[0].image
    (found,), (encoding,) = method.discover([image]), method.encode([image])
    for asked in (image, encoding):
        named = method.instances(asked, "thing")
        require(named.names == ("thing",), f"expected all to be called thing, got {named.names}")
        require(_is_same(found, named), "expected what was discovered under another name, got other masks")
    require(method.remarks("object") == [] and len(method.remarks("thing")) == 1, "expected a remark on a name, none on object")
    require_refused("two names", lambda: method.instances(image, "cat, dog"))
    require_refused("remarks on two names", lambda: method.remarks("cat, dog"))


CHECKS: tuple[Callable[[ClassAgnosticSegmenter], None], ...] = (
    check_something_is_found,
    check_well_formed,
    check_batches,
    check_names,
)
"""All checks, in order."""


def _images() -> list[Image]:
    """The scenes, empty paper, and images smaller than a patch."""
    blank = [Image(np.full((*size, 3), 128, np.uint8), f"blank {size}") for size in ((72, 120), (5, 9), (1, 1))]
    return [scene.image for scene in draw_paper_scenes()] + blank


def _is_same(one: Detections, other: Detections) -> bool:
    same = len(one) == len(other) and bool(np.array_equal(one.scores, other.scores))
    return same and all(np.array_equal(a, b) for a, b in zip(one.masks, other.masks, strict=True))
