"""The suite passes a right method and bites wrong ones: each mutation of the right method fails the check made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.support.wrong_methods import mistakes_of_both, remarking_in_one_text

from annofree.protocols import SemanticSegmenter
from annofree.structures import Image, IntArray, LabelMap, Vocabulary
from annofree.testing import semantic_conformance
from annofree.testing.paper_world import NAMES, classify_pixels
from annofree.testing.semantic_conformance import SEMANTIC_CHECKS, check_order_of_names, check_semantic_segmenter


class Colors:
    """Names each pixel by its colour: exact, with no features."""

    provenance: dict[str, Any] = {"method": "test"}  # noqa: RUF012

    def remarks(self, classes: Any) -> list[str]:
        return [f"never read: {name}" for name in Vocabulary.of(classes).names if name not in NAMES]

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return [self.encode_one(image) for image in images]

    def encode_one(self, image: Image) -> IntArray:
        return classify_pixels(image.pixels)

    def semantic(self, image: Any, classes: Any) -> LabelMap:
        asked = Vocabulary.of(classes).names
        classes_there = self.encode([image])[0] if isinstance(image, Image) else image
        names = asked if "background" in asked else ("background", *asked)
        own = [names.index(name) if name in names else names.index("background") for name in (*NAMES, "background")]
        return LabelMap(np.array(own, np.int32)[classes_there], names, names.index("background"))


@pytest.mark.parametrize("check", SEMANTIC_CHECKS, ids=lambda check: check.__name__)
def test_a_right_method_passes(check: Callable[[SemanticSegmenter], None]) -> None:
    assert isinstance(Colors(), SemanticSegmenter)
    check(Colors())


class Rounds(Colors):
    """With another order of names, two pixels of each image fall to another name, as where two tie."""

    def semantic(self, image: Any, classes: Any) -> LabelMap:
        found = super().semantic(image, classes)
        if found.names[1:] == NAMES[::-1]:
            found.labels[0, :2] = 1
        return found


def test_rounding_is_no_mistake() -> None:
    check_order_of_names(Rounds())


def test_all_checks_are_in_the_suite() -> None:
    checks = {f for name, f in vars(semantic_conformance).items() if name.startswith("check_")}
    assert checks == {*SEMANTIC_CHECKS, check_semantic_segmenter}
    check_semantic_segmenter(Colors, min_iou=0.99)


class Blind(Colors):
    def encode_one(self, image: Image) -> IntArray:
        return np.full(image.size, len(NAMES), np.int64)


class SeesMore(Colors):
    """Names a margin of paper as well."""

    def encode_one(self, image: Image) -> IntArray:
        classes = super().encode_one(image)
        classes[:, : image.size[1] // 2][classes[:, : image.size[1] // 2] == len(NAMES)] = 3
        return classes


class TakesTallForWide(Colors):
    def encode_one(self, image: Image) -> IntArray:
        classes = super().encode_one(image)
        return classes[::-1] if image.id.endswith("transposed") else classes


class PaintsPaper(Colors):
    def encode_one(self, image: Image) -> IntArray:
        classes = super().encode_one(image)
        return np.zeros_like(classes) if (classes == len(NAMES)).all() else classes


class SmallerMaps(Colors):
    """Leaves thin images at the size of its cells."""

    def semantic(self, image: Any, classes: Any) -> LabelMap:
        found = super().semantic(image, classes)
        return replace(found, labels=found.labels[:1]) if found.size[1] == 3 else found


class DoubleBackground(Colors):
    def semantic(self, image: Any, classes: Any) -> LabelMap:
        found = super().semantic(image, classes)
        listed = "background" in Vocabulary.of(classes).names
        return LabelMap(found.labels, (*found.names, "background 2"), found.background) if listed else found


class NoBackgroundForOne(Colors):
    def semantic(self, image: Any, classes: Any) -> LabelMap:
        found = super().semantic(image, classes)
        return LabelMap(np.zeros_like(found.labels), ("apple",)) if len(found.names) == 2 else found


class FirstNameWins(Colors):
    def semantic(self, image: Any, classes: Any) -> LabelMap:
        found = super().semantic(image, classes)
        if found.names == ("background", *NAMES[::-1]):
            found.labels[:2] = 1
        return found


class AbsentNamesCount(Colors):
    def semantic(self, image: Any, classes: Any) -> LabelMap:
        found = super().semantic(image, classes)
        if "zeppelin" in found.names:
            found.labels[:2] = found.names.index("zeppelin")
        return found


class OtherForEncodings(Colors):
    def semantic(self, image: Any, classes: Any) -> LabelMap:
        found = super().semantic(image, classes)
        return found if isinstance(image, Image) else replace(found, labels=found.labels * 0)


class PaintsOnPixels(Colors):
    def encode_one(self, image: Image) -> IntArray:
        classes = super().encode_one(image)
        image.pixels[:4] = 0
        return classes


class WearsOut(Colors):
    def semantic(self, image: Any, classes: Any) -> LabelMap:
        found = super().semantic(image, classes)
        if not isinstance(image, Image):
            image[:] = len(NAMES)
        return found


class Restless(Colors):
    """Never gives the same answer twice: another pixel is background each time."""

    def __init__(self) -> None:
        self.count = 0

    def semantic(self, image: Any, classes: Any) -> LabelMap:
        found = super().semantic(image, classes)
        self.count += 1
        found.labels.flat[self.count % found.labels.size] = len(found.names) - 1
        return found


class RemembersById(Colors):
    def __init__(self) -> None:
        self.last: dict[Any, IntArray] = {}

    def encode_one(self, image: Image) -> IntArray:
        key = (image.id, image.size)
        self.last = {key: self.last[key] if key in self.last else super().encode_one(image)}
        return self.last[key]


@pytest.mark.parametrize(
    ("wrong", "check", "message"),
    [
        (Blind, "check_known_pixels", "'apple' has IoU"),
        (SeesMore, "check_known_pixels", "of which there is none"),
        (TakesTallForWide, "check_transposed_pixels", "with its old self"),
        (PaintsPaper, "check_empty_paper", "of it is"),
        (SmallerMaps, "check_well_formed_maps", "expected the image's size"),
        (DoubleBackground, "check_listed_background", "expected the names"),
        (NoBackgroundForOne, "check_one_name", "expected the names"),
        (FirstNameWins, "check_order_of_names", "of the pixels differ"),
        (AbsentNamesCount, "check_absent_names", "of the pixels differ"),
        (OtherForEncodings, "check_encoding_for_image", "image for encoding"),
        (PaintsOnPixels, "check_nothing_changed", "pixels were changed"),
        (WearsOut, "check_nothing_changed", "asked again"),
        (Restless, "check_nothing_changed", "asked again: .* of the pixels differ"),
        (RemembersById, "check_nothing_changed", "is elsewhere"),
        *mistakes_of_both(
            Colors,
            "semantic",
            batches="check_batches_of_images",
            names="check_bad_names",
            provenance="check_told",
            remarks="check_told",
        ),
    ],
)
def test_wrong_methods_fail_the_check_made_for_them(wrong: Callable[[], SemanticSegmenter], check: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        getattr(semantic_conformance, check)(wrong())


@pytest.mark.parametrize("wrong", [Blind, TakesTallForWide, DoubleBackground, remarking_in_one_text(Colors)])
def test_the_suite_as_a_whole_finds_them(wrong: Callable[[], SemanticSegmenter]) -> None:
    with pytest.raises(AssertionError):
        check_semantic_segmenter(wrong)
