"""Conformance suite for semantic segmentation methods, including third-party ones.

Give the method the fakes for its encoders and run the checks on the paper world: all of them with
`check_semantic_segmenter`, or one test a check with ``pytest.mark.parametrize("check", SEMANTIC_CHECKS)``.  Each check takes a
method as it was built, which tells a background, and raises AssertionError that says what was expected and what came.

On a CPU, repeated calls must agree to the pixel.  In a batch, with more names or in another order of
them, scores differ by rounding, and so may the few pixels where two names tie: as many as `tolerances` allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from zlib import crc32

import numpy as np

from annofree.protocols import SemanticSegmenter
from annofree.structures import BoolArray, Image, IntArray, LabelMap, Vocabulary
from annofree.testing.paper_world import NAMES, PaperScene, draw_paper_scenes
from annofree.testing.requirements import require, require_refused
from annofree.testing.tolerances import PIXELS

__all__ = ["SEMANTIC_CHECKS", "check_semantic_segmenter"]

_MIN_IOU = 0.8
_ABSENT = ("zeppelin", "accordion")


def check_semantic_segmenter(make: Callable[[], SemanticSegmenter], *, min_iou: float = _MIN_IOU) -> None:
    """Run all checks, each on a new method; ``min_iou`` is the required IoU per class.

    Raises AssertionError at the first check that fails.

    >>> class Blind:
    ...     provenance: dict[str, Any] = {}
    ...     def remarks(self, classes): return []
    ...     def encode(self, images): return list(images)
    ...     def semantic(self, image, classes):
    ...         return LabelMap(np.zeros(image.size, np.int32), ("background", *Vocabulary.of(classes).names), 0)
    >>> check_semantic_segmenter(Blind)
    Traceback (most recent call last):
    AssertionError: scene 'one': 'apple' has IoU 0.00, expected at least 0.8
    """
    check_known_pixels(make(), min_iou)
    check_transposed_pixels(make(), min_iou)
    for check in SEMANTIC_CHECKS[2:]:  # what is left has no IoU in it
        check(make())


def check_known_pixels(method: SemanticSegmenter, min_iou: float = _MIN_IOU) -> None:
    """The pixels of each class are where its objects are, and nowhere else."""
    for scene in draw_paper_scenes():
        _require_fit(scene, method.semantic(scene.image, NAMES), min_iou)


def check_transposed_pixels(method: SemanticSegmenter, min_iou: float = _MIN_IOU) -> None:
    """Exchanging rows and columns of an image exchanges those of the label map."""
    for scene in draw_paper_scenes():
        upright, turned = scene.image, scene.transposed().image
        one, other = _named(method.semantic(upright, NAMES)).T, _named(method.semantic(turned, NAMES))
        for name in {*scene.names}:
            overlap = _iou(one == _code(name), other == _code(name))
            require(overlap >= min_iou, f"scene {upright.id!r}: transposed, {name!r} has IoU {overlap:.2f} with its old self")


def check_empty_paper(method: SemanticSegmenter) -> None:
    """Empty paper is background, whatever its shade and shape."""
    for gray in (0, 128, 255):
        for size in ((72, 120), (40, 24)):
            found = method.semantic(Image(np.full((*size, 3), gray, np.uint8)), NAMES)
            part = float((found.labels != found.background).mean())
            require(part == 0, f"empty image {size} of grey {gray}: {part:.0%} of it is {found.compute_shares()}")


def check_well_formed_maps(method: SemanticSegmenter) -> None:
    """The size is the image's, however small or thin; names are the background and those asked for, in order."""
    for where, image in _images():
        found = method.semantic(image, NAMES)
        require(found.size == image.size, f"{where}: expected the image's size {image.size}, got {found.size}")
        _require_names(where, found, ("background", *NAMES), 0)


def check_listed_background(method: SemanticSegmenter) -> None:
    """A listed "background" is used as the background, without a second one."""
    for scene in draw_paper_scenes():
        expected = _named(method.semantic(scene.image, NAMES))
        for names in ((*NAMES, "background"), ("background", *NAMES)):
            found = method.semantic(scene.image, names)
            where = f"scene {scene.image.id!r}, with background listed"
            _require_names(where, found, names, names.index("background"))
            _require_alike(where, expected, _named(found))


def check_one_name(method: SemanticSegmenter) -> None:
    """A single class works: its pixels or the background."""
    for scene in draw_paper_scenes():
        found = method.semantic(scene.image, ["apple"])
        _require_names(f"scene {scene.image.id!r}, one name", found, ("background", "apple"), 0)


def check_order_of_names(method: SemanticSegmenter) -> None:
    """The same names in another order give the same pixels."""
    for scene in draw_paper_scenes():
        encoding = method.encode([scene.image])[0]
        one, other = method.semantic(encoding, NAMES), method.semantic(encoding, NAMES[::-1])
        _require_alike(f"scene {scene.image.id!r}, names reversed", _named(one), _named(other))


def check_absent_names(method: SemanticSegmenter) -> None:
    """Absent classes change no pixel except by rounding."""
    for scene in draw_paper_scenes():
        encoding = method.encode([scene.image])[0]
        expected = _named(method.semantic(encoding, NAMES))
        for names in ((*NAMES, *_ABSENT), (*_ABSENT, *NAMES)):
            where = f"scene {scene.image.id!r}, asked for {', '.join(_ABSENT)} as well"
            _require_alike(where, expected, _named(method.semantic(encoding, names)))


def check_batches_of_images(method: SemanticSegmenter) -> None:
    """Images of different sizes encoded together give, in order, what each gives alone; no images give no encodings."""
    require(len(method.encode([])) == 0, "expected no encodings of no images")
    alone = [_named(method.semantic(scene.image, NAMES)) for scene in draw_paper_scenes()]
    for step in (1, -1):
        batch = draw_paper_scenes()[::step]
        encodings = method.encode([scene.image for scene in batch])
        require(len(encodings) == len(batch), f"expected {len(batch)} encodings of as many images, got {len(encodings)}")
        for scene, encoding, expected in zip(batch, encodings, alone[::step], strict=True):
            where = f"scene {scene.image.id!r}, encoded with others"
            _require_alike(where, expected, _named(method.semantic(encoding, NAMES)))


def check_encoding_for_image(method: SemanticSegmenter) -> None:
    """Images and encodings, and names as text, list or Vocabulary, give equal results."""
    for scene in draw_paper_scenes():
        where, encoding = f"scene {scene.image.id!r}", method.encode([scene.image])[0]
        expected = _named(method.semantic(encoding, NAMES))
        _require_alike(f"{where}, image for encoding", expected, _named(method.semantic(scene.image, NAMES)))
        for classes in (", ".join(NAMES), list(NAMES), Vocabulary.of(NAMES)):
            found = _named(method.semantic(encoding, classes))
            _require_same(f"{where}, names as {type(classes).__name__}", expected, found)


def check_nothing_changed(method: SemanticSegmenter) -> None:
    """Pixels stay as they are, an encoding serves twice, and no image depends on those before it: to the pixel."""
    for scene in draw_paper_scenes():
        before, encoding = scene.image.pixels.copy(), method.encode([scene.image])[0]
        first = _named(method.semantic(encoding, NAMES))
        turned = Image(np.ascontiguousarray(scene.image.pixels[::-1, ::-1]), scene.image.id)
        other = _named(method.semantic(turned, NAMES))
        method.semantic(encoding, _ABSENT)
        where = f"scene {scene.image.id!r}"
        require(np.array_equal(before, scene.image.pixels), f"{where}: the pixels were changed")
        _require_same(f"{where}, asked again", first, _named(method.semantic(encoding, NAMES)))
        _require_same(f"{where}, seen again", first, _named(method.semantic(scene.image, NAMES)))
        for name in {*scene.names}:
            overlap = _iou(first[::-1, ::-1] == _code(name), other == _code(name))
            require(overlap > 0.5, f"{where}, upside down: {name!r} is elsewhere")


def check_bad_names(method: SemanticSegmenter) -> None:
    """Missing, empty or duplicate names raise InputError, for images, encodings and remarks."""
    image = draw_paper_scenes()[0].image
    for classes in ([], "", ["apple", ""], "apple, apple"):
        for asked in (image, method.encode([image])[0]):
            require_refused(f"the classes {classes!r}", partial(method.semantic, asked, classes))
        require_refused(f"remarks on the classes {classes!r}", partial(method.remarks, classes))


def check_told(method: SemanticSegmenter) -> None:
    """Provenance can be written as JSON and does not change by use; remarks are a list of sentences."""
    before = json.dumps(method.provenance, sort_keys=True)
    method.semantic(draw_paper_scenes()[0].image, NAMES)
    require(json.dumps(method.provenance, sort_keys=True) == before, "provenance changed between two uses")
    for classes in (NAMES, _ABSENT, ", ".join(_ABSENT), Vocabulary.of(NAMES)):
        remarks = method.remarks(classes)
        good = isinstance(remarks, list) and all(isinstance(remark, str) and remark for remark in remarks)
        require(good, f"remarks on {classes!r}: expected a list of sentences, got {remarks!r}")


SEMANTIC_CHECKS: tuple[Callable[[SemanticSegmenter], None], ...] = (
    check_known_pixels,
    check_transposed_pixels,
    check_empty_paper,
    check_well_formed_maps,
    check_listed_background,
    check_one_name,
    check_order_of_names,
    check_absent_names,
    check_batches_of_images,
    check_encoding_for_image,
    check_nothing_changed,
    check_bad_names,
    check_told,
)
"""All checks; the two that compare with the truth come first."""


def _require_fit(scene: PaperScene, found: LabelMap, min_iou: float) -> None:
    named, where = _named(found), f"scene {scene.image.id!r}"
    require(named.shape == scene.image.size, f"{where}: expected a label map of {scene.image.size}, got {named.shape}")
    for name in dict.fromkeys(scene.names):
        truth = np.any([m for m, n in zip(scene.masks, scene.names, strict=True) if n == name], axis=0)
        overlap = _iou(truth, named == _code(name))
        require(overlap >= min_iou, f"{where}: {name!r} has IoU {overlap:.2f}, expected at least {min_iou}")
    wrong = {*found.compute_shares()} - {*scene.names, "background"}
    part = sum(found.compute_shares()[name] for name in wrong)
    require(part <= 1 - min_iou, f"{where}: {part:.0%} of the pixels are {sorted(wrong)}, of which there is none")


def _require_names(where: str, found: LabelMap, names: Sequence[str], background: int) -> None:
    require(found.names == tuple(names), f"{where}: expected the names {tuple(names)}, got {found.names}")
    require(found.background == background, f"{where}: expected entry {background} as background, got {found.background}")


def _require_alike(where: str, expected: IntArray, got: IntArray, share: float = PIXELS) -> None:
    """Compare all pixels, of which this share may differ."""
    require(expected.shape == got.shape, f"{where}: expected a size of {expected.shape}, got {got.shape}")
    part = float((expected != got).mean())
    require(part <= share, f"{where}: {part:.1%} of the pixels differ")


_require_same = partial(_require_alike, share=0.0)  # where the same question was asked twice


def _images() -> list[tuple[str, Image]]:
    """Draw the scenes, and images as small and as thin as they come, in paint."""
    paint = draw_paper_scenes()[0].image.pixels[20, 100]
    odd = [Image(np.broadcast_to(paint, (*size, 3)).copy(), str(size)) for size in ((1, 1), (3, 200), (200, 3), (1, 9), (7, 7))]
    return [(f"image {image.id}", image) for image in (*(s.image for s in draw_paper_scenes()), *odd)]


def _named(found: LabelMap) -> IntArray:
    """A number for the name of each pixel, (H, W), so that maps whose names differ in order compare."""
    codes: IntArray = np.array([*map(_code, found.names), -1])[found.labels]  # void is -1: the last
    return codes


def _code(name: str) -> int:
    return crc32(name.encode())


def _iou(one: BoolArray, other: BoolArray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum())) if one.shape == other.shape else 0.0
