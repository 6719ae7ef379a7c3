"""The auto-annotation function, called as CVAT calls it, and checked by CVAT's own driver."""

from __future__ import annotations

import importlib.util
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from cvat_sdk.auto_annotation import driver
from cvat_sdk.masks import decode_mask

import annofree
from annofree.apps.integrations import cvat as ours
from annofree.errors import InputError
from annofree.structures import Detections

SIZE = (40, 60)


def two_masks() -> np.ndarray[Any, np.dtype[np.bool_]]:
    masks = np.zeros((2, *SIZE), bool)
    masks[0, 4:24, 6:30] = True
    masks[1, 2:8, 40:50] = masks[1, 30:36, 40:52] = True
    return masks


class KnownFinder:
    """Finds a dog, and a cat in two parts."""

    vocabulary = annofree.Vocabulary.of("cat: kitten, dog")

    def find(self, image: PIL.Image.Image) -> Detections:
        assert image.size == (SIZE[1], SIZE[0])
        return Detections.from_masks(two_masks(), [1, 0], [0.75, 0.25], self.vocabulary.names)


def annotate(shape: str, conf: float | None = None, poly: bool = False) -> list[Any]:
    """What CVAT uploads, after its own checks."""
    function = ours.CvatFunction(KnownFinder(), shape)  # type: ignore[arg-type]
    kind = "polygon" if poly else shape
    labels = [SimpleNamespace(name=n, id=10 + k, type=kind, attributes=[], sublabels=[]) for k, n in enumerate(("dog", "cat"))]
    checks = driver._AnnotationMapper(
        logging.getLogger(), function.spec.labels, labels, allow_unmatched_labels=False, conv_mask_to_poly=poly
    )
    context = driver._DetectionFunctionContextImpl(frame_name="a.png", conf_threshold=conf, conv_mask_to_poly=poly)
    tags, shapes = checks.validate_and_remap(function.detect(context, PIL.Image.new("RGB", (SIZE[1], SIZE[0]))), 5)
    assert tags == [] and all(one.frame == 5 for one in shapes)
    return list(shapes)


def test_masks_are_those_that_were_found_under_the_labels_of_the_task() -> None:
    shapes = annotate("mask")
    masks = [decode_mask(one.points, image_width=SIZE[1], image_height=SIZE[0]) for one in shapes]
    assert np.array_equal(masks, two_masks())
    assert [(one.label_id, one.type.value, one.score) for one in shapes] == [(10, "mask", 0.75), (11, "mask", 0.25)]


def test_boxes_are_those_of_the_masks() -> None:
    assert [one.points for one in annotate("rectangle")] == [[6, 4, 30, 24], [40, 2, 52, 36]]


def test_masks_become_polygons_and_parts_of_one_thing_a_group() -> None:
    shapes = annotate("mask", poly=True)
    assert [one.type.value for one in shapes] == ["polygon"] * 3
    assert [getattr(one, "group", 0) for one in shapes] == [0, 2, 2]
    xs, ys = np.reshape(shapes[0].points, (-1, 2)).T
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (6, 4, 30, 24)


@pytest.mark.parametrize("conf, count", [(None, 2), (0.0, 2), (0.25, 2), (0.5, 1), (1.0, 0)])
def test_what_scores_less_than_asked_is_left_out(conf: float | None, count: int) -> None:
    assert len(annotate("mask", conf)) == count


def test_a_function_file_is_made_by_its_parameters_and_finds_things() -> None:
    spec = importlib.util.spec_from_file_location("__cvat_function__", str(ours.__file__))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = module.create(classes="elephant, orange", preset="tiny", device="cpu", policy="all", min_score=0.3)
    assert [(one.name, one.id, one.type) for one in function.spec.labels] == [("elephant", 0, "mask"), ("orange", 1, "mask")]
    image = PIL.Image.open("examples/scenes/oranges.jpg")
    best = function.detect(driver._DetectionFunctionContextImpl(frame_name="oranges.jpg"), image)[0]
    mask = decode_mask(best.points, image_width=image.width, image_height=image.height)
    assert best.label_id == 1 and best.score >= 0.3 and mask.any()


@pytest.mark.parametrize(
    "given",
    [
        {"classes": ""},
        {"classes": "a", "shape": "blob"},
        {"classes": "a", "preset": "tinny"},
        {"classes": "a", "method": "zipp"},
    ],
)
def test_parameters_that_cannot_be_are_refused_before_any_image(given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ours.create(**{"preset": "tiny", **given})
