"""Conformance suite for instance segmentation methods, including third-party ones.

Give the method `FakeClip` and `FakeSam` for its encoders and run the checks on the paper world: all of them with
`check_segmenter`, or one test a check with ``pytest.mark.parametrize("check", CHECKS)``.  Each check takes a method as
it was built, raises AssertionError with the expected and the actual result, and wants no method in particular: what
a method scores is its own affair, as long as right things come before wrong ones.

On a CPU, repeated calls must agree to the bit.  In a batch, with more classes or in another order of
them, results must agree up to rounding (see `tolerances`), as matrix libraries then sum in another order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from annofree.protocols import Segmenter
from annofree.structures import BoolArray, Detections, FloatArray, Image, Vocabulary
from annofree.testing.paper_world import NAMES, PaperScene, draw_paper_scenes
from annofree.testing.requirements import require, require_refused
from annofree.testing.tolerances import MASK_IOU, TOLERANCES, Tolerance

__all__ = ["CHECKS", "check_segmenter"]

_MIN_IOU = 0.8
_SURE = 0.5  # from this score on, a thing found on empty paper is a mistake
_TRACE = Tolerance(0, 1e-3)  # of scores: an absent class may take a trace of another's probability
_ROUNDING = TOLERANCES[torch.float32, "network"]
_ABSENT = ("zeppelin", "accordion")


def check_segmenter(make: Callable[[], Segmenter], *, min_iou: float = _MIN_IOU) -> None:
    """Run all checks, each on a new method; ``min_iou`` is the mask IoU at which an object counts as found.

    Raises AssertionError at the first check that fails.

    >>> class Blind:
    ...     provenance: dict[str, Any] = {}
    ...     def remarks(self, classes): return []
    ...     def encode(self, images): return list(images)
    ...     def instances(self, image, classes): return Detections.none(image.size, Vocabulary.of(classes).names)
    >>> check_segmenter(Blind)
    Traceback (most recent call last):
    AssertionError: scene 'one': no 'apple' with IoU >= 0.8 (best 0.00) where one is
    """
    check_known_answers(make(), min_iou)
    check_transposed(make(), min_iou)
    for check in CHECKS[2:]:  # what is left has no IoU in it
        check(make())


def check_known_answers(method: Segmenter, min_iou: float = _MIN_IOU) -> None:
    """Each object is found exactly once, and nothing else scores above the lowest of them."""
    for scene in draw_paper_scenes():
        _require_found(scene, method.instances(scene.image, NAMES), min_iou)


def check_transposed(method: Segmenter, min_iou: float = _MIN_IOU) -> None:
    """Exchanging rows and columns of an image exchanges those of the masks."""
    for scene in draw_paper_scenes():
        upright = _matched(scene, method.instances(scene.image, NAMES))
        turned = _matched(scene.transposed(), method.instances(scene.transposed().image, NAMES))
        for name, one, other in zip(scene.names, upright, turned, strict=True):
            overlap = 0.0 if one is None or other is None else float(_ious(one.T[None], other[None])[0, 0])
            require(
                overlap >= min_iou, f"scene {scene.image.id!r}: transposed, {name!r} has IoU {overlap:.2f} with its old mask"
            )


def check_empty_scenes(method: Segmenter) -> None:
    """On empty paper nothing is found with confidence, for any shade and shape."""
    for gray in (0, 128, 255):
        for size in ((72, 120), (40, 24)):
            found = method.instances(Image(np.full((*size, 3), gray, np.uint8)), NAMES)
            sure = found.scores >= _SURE
            names = found[sure].labels.tolist()
            require(not sure.any(), f"empty image {size} of grey {gray}: found {names} scored {_SURE} or more")


def check_well_formed(method: Segmenter) -> None:
    """Sizes and names are those asked for, masks are not empty, scores fall; the rest ``Detections`` checks itself."""
    for where, image in _images():
        _require_well_formed(where, image, method.instances(image, NAMES))


def check_tight_boxes(method: Segmenter) -> None:
    """Each box is the tight, end-exclusive box of its mask."""
    for where, image in _images():
        found = method.instances(image, NAMES)
        for box, mask in zip(found.boxes.tolist(), found.masks, strict=True):
            require(box == _tight(mask), f"{where}: box {box} of a mask whose tight box is {_tight(mask)}")


def check_vocabulary_order(method: Segmenter) -> None:
    """The same names in another order give the same detections."""
    for scene in draw_paper_scenes():
        encoding = method.encode([scene.image])[0]
        found, other = method.instances(encoding, NAMES), method.instances(encoding, NAMES[::-1])
        _require_alike(f"scene {scene.image.id!r}, names reversed", found, other)


def check_absent_classes(method: Segmenter) -> None:
    """Absent classes change no mask of the others and hardly a score, and are not found above them."""
    for scene in draw_paper_scenes():
        encoding = method.encode([scene.image])[0]
        expected = method.instances(encoding, NAMES)
        for names in ((*NAMES, *_ABSENT), (*_ABSENT, *NAMES)):
            found = method.instances(encoding, names)
            present = np.array([name not in _ABSENT for name in found.labels], bool)
            where = f"scene {scene.image.id!r}, asked for {', '.join(_ABSENT)} as well"
            _require_alike(where, expected, found[present], _TRACE)
            _require_found(scene, found, min_iou=0)


def check_batches(method: Segmenter) -> None:
    """Images of different sizes encoded together give, in order, what each gives alone; no images give no encodings."""
    require(len(method.encode([])) == 0, "expected no encodings of no images")
    alone = [method.instances(scene.image, NAMES) for scene in draw_paper_scenes()]
    for step in (1, -1):
        batch = draw_paper_scenes()[::step]
        encodings = method.encode([scene.image for scene in batch])
        require(len(encodings) == len(batch), f"expected {len(batch)} encodings of as many images, got {len(encodings)}")
        for scene, encoding, expected in zip(batch, encodings, alone[::step], strict=True):
            _require_alike(f"scene {scene.image.id!r}, encoded with others", expected, method.instances(encoding, NAMES))


def check_image_or_encoding(method: Segmenter) -> None:
    """Images and encodings, and names as text, list or Vocabulary, give equal results."""
    for scene in draw_paper_scenes():
        where, encoding = f"scene {scene.image.id!r}", method.encode([scene.image])[0]
        found = method.instances(encoding, NAMES)
        _require_alike(f"{where}, image for encoding", found, method.instances(scene.image, NAMES))
        for classes in (", ".join(NAMES), list(NAMES), Vocabulary.of(NAMES)):
            _require_same(f"{where}, names as {type(classes).__name__}", found, method.instances(encoding, classes))


def check_inputs_unchanged(method: Segmenter) -> None:
    """Inputs are not modified; vocabularies and encodings can be reused, to the bit, with other calls in between."""
    vocabulary = Vocabulary.of(NAMES)
    for scene in draw_paper_scenes():
        before = scene.image.pixels.copy()
        encoding = method.encode([scene.image])[0]
        first = method.instances(encoding, vocabulary)
        method.instances(encoding, _ABSENT)
        method.instances(scene.image, vocabulary)
        require(np.array_equal(before, scene.image.pixels), f"scene {scene.image.id!r}: the pixels were changed")
        _require_same(f"scene {scene.image.id!r}, asked again", first, method.instances(encoding, vocabulary))
    require(vocabulary == Vocabulary.of(NAMES), "the vocabulary was changed")


def check_no_memory(method: Segmenter) -> None:
    """What an image gives is to the bit the same after any other, also where sizes and ids are alike."""
    for scene in draw_paper_scenes()[:3]:
        turned = _turned(scene)
        first = method.instances(scene.image, NAMES)
        _require_found(turned, method.instances(turned.image, NAMES), min_iou=0.5)
        _require_same(f"scene {scene.image.id!r}, after another", first, method.instances(scene.image, NAMES))


def check_bad_input(method: Segmenter) -> None:
    """No, empty or doubled names, and arrays that are no image, are refused with InputError."""
    image = draw_paper_scenes()[0].image
    encoding = method.encode([image])[0]
    for classes in ([], "", ["apple", ""], "apple, apple"):
        for asked in (image, encoding):
            require_refused(f"the classes {classes!r}", partial(method.instances, asked, classes))
    for array in (np.zeros((8, 9, 3), np.float32), np.zeros((8, 9), np.uint8), np.zeros((0, 9, 3), np.uint8)):
        require_refused(f"an array {array.dtype} {array.shape}", partial(_ask, method, array))


def check_provenance(method: Segmenter) -> None:
    """Provenance is a JSON-serializable dict that does not change by use."""
    before = json.dumps(method.provenance, sort_keys=True)
    require(isinstance(method.provenance, dict), f"expected provenance as a dict, got {type(method.provenance).__name__}")
    method.instances(draw_paper_scenes()[0].image, NAMES)
    require(json.dumps(method.provenance, sort_keys=True) == before, "provenance changed between two uses")


def check_remarks(method: Segmenter) -> None:
    """Remarks on known and unknown names are lists of sentences, and invalid names are refused."""
    for classes in (NAMES, _ABSENT, ", ".join(_ABSENT), Vocabulary.of(NAMES)):
        remarks = method.remarks(classes)
        good = isinstance(remarks, list) and all(isinstance(remark, str) and remark for remark in remarks)
        require(good, f"remarks on {classes!r}: expected a list of sentences, got {remarks!r}")
    require_refused("the classes []", partial(method.remarks, []))


CHECKS: tuple[Callable[[Segmenter], None], ...] = (
    check_known_answers,
    check_transposed,
    check_empty_scenes,
    check_well_formed,
    check_tight_boxes,
    check_vocabulary_order,
    check_absent_classes,
    check_batches,
    check_image_or_encoding,
    check_inputs_unchanged,
    check_no_memory,
    check_bad_input,
    check_provenance,
    check_remarks,
)
"""All checks; the two that compare with the truth come first."""


def _ask(method: Segmenter, pixels: Any) -> Detections:
    return method.instances(Image(pixels), "apple")


def _require_found(scene: PaperScene, found: Detections, min_iou: float) -> None:
    where, overlaps, left = f"scene {scene.image.id!r}", _overlaps(scene, found), np.ones(len(found), bool)
    weakest = _SURE if not scene.names else 1.0
    for name, row in zip(scene.names, overlaps, strict=True):
        best = int((row * left).argmax()) if len(row) else -1
        overlap = float((row * left)[best]) if len(row) else 0.0
        require(
            overlap > 0 and overlap >= min_iou, f"{where}: no {name!r} with IoU >= {min_iou} (best {overlap:.2f}) where one is"
        )
        left[best], weakest = False, min(weakest, float(found.scores[best]))
    wrong = left & (found.scores > weakest + _TRACE.absolute)
    require(not wrong.any(), f"{where}: {found[wrong].labels.tolist()} score above {weakest:.3f}, the weakest of what is there")


def _require_same(where: str, expected: Detections, got: Detections) -> None:
    """Compare bitwise: results of repeated calls."""
    one, other = expected.labels.tolist(), got.labels.tolist()
    require(one == other, f"{where}: expected {one}, got {other}")
    require([r["counts"] for r in expected.rles] == [r["counts"] for r in got.rles], f"{where}: the masks differ")
    apart = float(np.abs(expected.scores - got.scores).max(initial=0))
    require(apart == 0, f"{where}: the scores differ by {apart:.2g}")


def _require_alike(where: str, expected: Detections, got: Detections, within: Tolerance = _ROUNDING) -> None:
    """Compare up to rounding, each with the one of its name that covers the same pixels and has the nearest score.

    Equal scores may come in any order.
    """
    one, other = sorted(expected.labels.tolist()), sorted(got.labels.tolist())
    require(one == other, f"{where}: expected {len(one)} detections {one}, got {len(other)} {other}")
    require(expected.size == got.size, f"{where}: expected masks of {expected.size}, got {got.size}")
    ious, apart = _ious(expected.masks, got.masks), np.abs(expected.scores[:, None] - got.scores)
    left = np.ones(len(got), bool)
    for i, (name, score) in enumerate(zip(expected.labels.tolist(), expected.scores.tolist(), strict=True)):
        fits = left & (got.class_ids == got.names.index(name)) & (ious[i] >= MASK_IOU)
        require(
            bool(fits.any()), f"{where}: the masks differ, no {name!r} has an IoU of {MASK_IOU} with that scored {score:.3f}"
        )
        nearest = int(np.where(fits, apart[i], np.inf).argmin())
        left[nearest] = False
        most = within.absolute + within.relative * score
        require(float(apart[i, nearest]) <= most, f"{where}: the scores differ by {apart[i, nearest]:.4f}")


def _require_well_formed(where: str, image: Image, found: Detections) -> None:
    require(found.size == image.size, f"{where}: expected the image's size {image.size}, got {found.size}")
    require(found.names == NAMES, f"{where}: expected the names asked for, got {found.names}")
    require(bool((np.diff(found.scores) <= 0).all()), f"{where}: expected falling scores, got {found.scores}")
    require(bool(found.masks.any((1, 2)).all()), f"{where}: a mask is empty")


def _images() -> Iterator[tuple[str, Image]]:
    """Yield the scenes, and images as small and as thin as they come, in paint."""
    for scene in draw_paper_scenes():
        yield f"scene {scene.image.id!r}", scene.image
    for size in ((1, 1), (3, 200), (200, 3), (1, 9), (7, 7)):
        pixels = np.full((*size, 3), 128, np.uint8)
        pixels[:, : size[1] // 2 + 1] = draw_paper_scenes()[0].image.pixels[20, 100]
        yield f"image of {size}", Image(pixels)


def _turned(scene: PaperScene) -> PaperScene:
    """Return the scene upside down, under the id and the size that it had."""
    pixels = np.ascontiguousarray(scene.image.pixels[::-1, ::-1])
    return PaperScene(Image(pixels, scene.image.id), scene.masks[:, ::-1, ::-1], scene.names)


def _tight(mask: BoolArray) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)] if len(rows) else []


def _matched(scene: PaperScene, found: Detections) -> Sequence[BoolArray | None]:
    """Return the best-fitting mask of its class for each object, if any."""
    masks = found.masks
    return [masks[row.argmax()] if row.any() else None for row in _overlaps(scene, found)]


def _overlaps(scene: PaperScene, found: Detections) -> FloatArray:
    """IoU of each object with each detection, 0 where the class differs."""
    same = np.array([found.labels == name for name in scene.names], bool)
    if found.size != scene.image.size or not same.size:
        return np.zeros((len(scene.names), len(found)), np.float32)
    overlaps: FloatArray = _ious(scene.masks, found.masks) * same
    return overlaps


def _ious(ones: BoolArray, others: BoolArray) -> FloatArray:
    a, b = (m.reshape(len(m), m.shape[1] * m.shape[2]).astype(np.float32) for m in (ones, others))
    shared = a @ b.T
    ious: FloatArray = shared / np.maximum(a.sum(1)[:, None] + b.sum(1) - shared, 1)
    return ious
