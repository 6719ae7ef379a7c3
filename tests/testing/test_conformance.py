"""The suite passes right methods and bites wrong ones: each mutation of a right method fails the check made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from skimage.measure import label
from tests.support.wrong_methods import mistakes_of_both, remarking_in_one_text

from annofree.protocols import Segmenter
from annofree.structures import BoolArray, Detections, Image, Vocabulary
from annofree.testing import conformance
from annofree.testing.conformance import CHECKS, check_batches, check_known_answers, check_segmenter
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import COLORS, NAMES, draw_paper_scenes


class Told:
    """What every method says beside its answers."""

    provenance: dict[str, Any] = {"method": "test"}  # noqa: RUF012

    def remarks(self, classes: Any) -> list[str]:
        return [f"never read: {name}" for name in Vocabulary.of(classes).names if name not in NAMES]


class Colors(Told):
    """Draws the region under the first pixel of each shade, and names it by its colour: exact, with no features."""

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return [self.encode_one(image) for image in images]

    def encode_one(self, image: Image) -> tuple[BoolArray, list[str]]:
        shades = [(name, shade) for name, pair in COLORS.items() for shade in pair]
        found = [(name, mask) for name, shade in shades for mask in pieces((image.pixels == shade).all(2))]
        masks = np.array([mask for _, mask in found], bool).reshape(-1, *image.size)
        return masks, [name for name, _ in found]

    def instances(self, image: Any, classes: Any) -> Detections:
        names = Vocabulary.of(classes).names
        masks, labels = self.encode([image])[0] if isinstance(image, Image) else image
        kept = [i for i, name in enumerate(labels) if name in names]
        return Detections.from_masks(masks[kept], [names.index(labels[i]) for i in kept], [0.9] * len(kept), names)


class SamOnAGrid(Told):
    """Prompts a masker with a grid of points and names what it draws by its crop: the shape of a real method."""

    def __init__(self) -> None:
        self.clip, self.sam = FakeClip(), FakeSam()

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return [self.encode_one(image, embedding) for image, embedding in zip(images, self.sam.embed(images), strict=True)]

    def encode_one(self, image: Image, embedding: Any) -> tuple[BoolArray, Any]:
        y, x = np.mgrid[: image.size[0] : 16, : image.size[1] : 16].reshape(2, -1)
        drawn = self.sam.predict_masks(embedding, points=np.stack([x, y], 1).astype(np.float32))
        masks = np.stack(list({mask.tobytes(): mask for mask in drawn.masks[:, 0].numpy()}.values()))
        boxes = Detections.from_masks(masks, [0] * len(masks), [1] * len(masks), ["thing"]).boxes
        return masks, self.clip.encode_crops(image, boxes, pooled=False)

    def instances(self, image: Any, classes: Any) -> Detections:
        vocabulary = Vocabulary.of(classes)
        masks, features = self.encode([image])[0] if isinstance(image, Image) else image
        values, ids = (features @ self.clip.encode_text(vocabulary).T).clamp(0, 1).max(1)
        return Detections.from_masks(masks, ids.numpy(), values.numpy(), vocabulary.names)[
            values.sort(descending=True)[0].numpy() > 0.5
        ]


def pieces(mask: BoolArray) -> list[BoolArray]:
    labels = label(mask, connectivity=1)
    return [labels == i for i in range(1, labels.max() + 1)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("make", [Colors, SamOnAGrid])
def test_right_methods_pass(make: Callable[[], Segmenter], check: Callable[[Segmenter], None]) -> None:
    assert isinstance(make(), Segmenter)
    check(make())


class Rounds(Colors):
    """In a batch, scores and the edge of each mask are what another order of sums makes of them."""

    loses, off = 1, 1e-5

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return [(*self.encode_one(image), len(images) > 1) for image in images]

    def instances(self, image: Any, classes: Any) -> Detections:
        masks, labels, together = self.encode([image])[0] if isinstance(image, Image) else image
        found = super().instances((masks, labels), classes)
        if not together:
            return found
        drawn = found.masks.copy()
        for mask in drawn:
            mask.flat[np.flatnonzero(mask)[: self.loses]] = False
        scores = found.scores + np.linspace(-self.off, self.off, len(found), dtype=np.float32)
        return Detections.from_masks(drawn, found.class_ids, scores, found.names)


def test_rounding_in_a_batch_is_no_mistake() -> None:
    check_batches(Rounds())


def test_all_checks_are_in_the_suite() -> None:
    assert {f for name, f in vars(conformance).items() if name.startswith("check_")} == {*CHECKS, check_segmenter}
    check_segmenter(Colors, min_iou=0.99)


class Blind(Colors):
    def instances(self, image: Any, classes: Any) -> Detections:
        return super().instances(image, classes)[:0]


class SwapsAxes(Colors):
    """Reads x for y where it fits, as a reshape to (W, H) does."""

    def encode_one(self, image: Image) -> tuple[BoolArray, list[str]]:
        masks, labels = super().encode_one(image)
        return masks.transpose(0, 2, 1).reshape(masks.shape), labels


class TakesTallForWide(Colors):
    def encode_one(self, image: Image) -> tuple[BoolArray, list[str]]:
        masks, labels = super().encode_one(image)
        return (masks[:, ::-1] if image.id.endswith("transposed") else masks), labels


class SeesThingsOnPaper(Colors):
    def encode_one(self, image: Image) -> tuple[BoolArray, list[str]]:
        masks, labels = super().encode_one(image)
        return (masks, labels) if labels else (np.ones((1, *image.size), bool), ["tree"])


class NamesTheBackground(Colors):
    def instances(self, image: Any, classes: Any) -> Detections:
        found = super().instances(image, classes)
        if not len(found):
            return found
        masks = np.concatenate([found.masks, (found.masks.sum(0) == 0)[None]])
        return Detections.from_masks(masks, [*found.class_ids, 0], [0.5] * len(found) + [0.6], found.names)


class RisingScores(Colors):
    def instances(self, image: Any, classes: Any) -> Detections:
        found = super().instances(image, classes)
        return replace(found, scores=np.linspace(0.5, 0.9, len(found), dtype=np.float32))


class ShortBoxes(Colors):
    def instances(self, image: Any, classes: Any) -> Detections:
        found = super().instances(image, classes)
        return replace(found, boxes=found.boxes - np.array([0, 0, 1, 1], np.float32))


class FirstNameWins(Colors):
    """Scores by place in the list, as a softmax that runs over the wrong axis does."""

    def instances(self, image: Any, classes: Any) -> Detections:
        found = super().instances(image, classes)
        scores = (0.9 - 0.1 * found.class_ids / len(found.names)).astype(np.float32)
        return Detections.from_masks(found.masks, found.class_ids, scores, found.names)


class SharesScores(Colors):
    """Divides one sum among all names, present or not."""

    def instances(self, image: Any, classes: Any) -> Detections:
        found = super().instances(image, classes)
        return replace(found, scores=found.scores / np.float32(len(found.names)))


class DrawsLessInBatches(Rounds):
    loses = 200


class ScoresOtherwiseInBatches(Rounds):
    off = 1e-3


class DropsWithEncodings(Colors):
    def instances(self, image: Any, classes: Any) -> Detections:
        found = super().instances(image, classes)
        return found if isinstance(image, Image) else found[:1]


class PaintsOnPixels(Colors):
    def encode_one(self, image: Image) -> tuple[BoolArray, list[str]]:
        encoding = super().encode_one(image)
        image.pixels[:4] = 0
        return encoding


class WearsOut(Colors):
    """Consumes what it was given: the second answer from one encoding is empty."""

    def instances(self, image: Any, classes: Any) -> Detections:
        found = super().instances(image, classes)
        if not isinstance(image, Image):
            image[0][:] = False
        return found


class Restless(Colors):
    """Never gives the same answer twice, as one that draws at random without a seed."""

    def __init__(self) -> None:
        self.count = 0

    def instances(self, image: Any, classes: Any) -> Detections:
        self.count += 1
        found = super().instances(image, classes)
        return replace(found, scores=found.scores - np.float32(1e-6 * self.count))


class RemembersById(Colors):
    """Takes an image with the id and size of the last one for the last one."""

    def __init__(self) -> None:
        self.last: dict[Any, Any] = {}

    def encode_one(self, image: Image) -> tuple[BoolArray, list[str]]:
        key = (image.id, image.size)
        self.last = {key: self.last[key] if key in self.last else super().encode_one(image)}
        masks, labels = self.last[key]
        return masks, labels


class LagsBehind(Colors):
    """Answers with the image before, where that has the same size."""

    def __init__(self) -> None:
        self.before: tuple[BoolArray, list[str]] | None = None

    def encode_one(self, image: Image) -> tuple[BoolArray, list[str]]:
        now, before = super().encode_one(image), self.before
        self.before = now
        return now if before is None or before[0].shape[1:] != image.size else before


class AddsUpImages(Colors):
    """Keeps a running mean over images, as a normalisation left in training mode does."""

    def __init__(self) -> None:
        self.count = 0

    def instances(self, image: Any, classes: Any) -> Detections:
        self.count += 1
        found = super().instances(image, classes)
        return replace(found, scores=found.scores / np.float32(1 + 0.1 * self.count))


@pytest.mark.parametrize(
    ("wrong", "check", "message"),
    [
        (Blind, "check_known_answers", "no 'apple' with IoU"),
        (SwapsAxes, "check_known_answers", "no 'apple' with IoU"),
        (NamesTheBackground, "check_known_answers", "score above"),
        (TakesTallForWide, "check_transposed", "with its old mask"),
        (SeesThingsOnPaper, "check_empty_scenes", "found"),
        (RisingScores, "check_well_formed", "falling scores"),
        (ShortBoxes, "check_tight_boxes", "tight box"),
        (FirstNameWins, "check_vocabulary_order", "scores differ"),
        (SharesScores, "check_absent_classes", "scores differ"),
        (DrawsLessInBatches, "check_batches", "the masks differ"),
        (ScoresOtherwiseInBatches, "check_batches", "scores differ"),
        (DropsWithEncodings, "check_image_or_encoding", "image for encoding"),
        (PaintsOnPixels, "check_inputs_unchanged", "pixels were changed"),
        (WearsOut, "check_inputs_unchanged", "asked again"),
        (Restless, "check_inputs_unchanged", "asked again: the scores differ"),
        (Restless, "check_no_memory", "after another: the scores differ"),
        (LagsBehind, "check_no_memory", "no 'apple' with IoU"),
        (RemembersById, "check_no_memory", "no 'apple' with IoU"),
        (AddsUpImages, "check_no_memory", "after another"),
        *mistakes_of_both(
            Colors,
            "instances",
            batches="check_batches",
            names="check_bad_input",
            provenance="check_provenance",
            remarks="check_remarks",
        ),
    ],
)
def test_wrong_methods_fail_the_check_made_for_them(wrong: Callable[[], Segmenter], check: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        getattr(conformance, check)(wrong())


@pytest.mark.parametrize("wrong", [Blind, TakesTallForWide, ShortBoxes, remarking_in_one_text(Colors)])
def test_the_suite_as_a_whole_finds_them(wrong: Callable[[], Segmenter]) -> None:
    with pytest.raises(AssertionError):
        check_segmenter(wrong)


def test_min_iou_is_the_bar() -> None:
    class Loose(Colors):
        """Leaves out the first rows of each object."""

        def encode_one(self, image: Image) -> tuple[BoolArray, list[str]]:
            masks, labels = super().encode_one(image)
            for mask in masks:
                mask[: int(np.flatnonzero(mask.any(1))[0]) + 4] = False
            return masks, labels

    check_known_answers(Loose())
    with pytest.raises(AssertionError, match=r"IoU >= 0\.95"):
        check_known_answers(Loose(), 0.95)


def test_the_suite_leaves_the_world_as_it_was() -> None:
    before = [scene.image.pixels.copy() for scene in draw_paper_scenes()]
    with pytest.raises(AssertionError):
        check_segmenter(PaintsOnPixels)
    assert all(np.array_equal(a, scene.image.pixels) for a, scene in zip(before, draw_paper_scenes(), strict=True))
