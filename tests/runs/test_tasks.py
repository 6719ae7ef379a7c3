"""Several tasks asked of one image: who is asked, how often an image is encoded, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tests.support.alike import assert_same_detections

from annofree.detections.panoptic import PanopticSettings, merge_panoptic
from annofree.errors import InputError
from annofree.methods.dense.maskclip import MaskClip
from annofree.methods.registry import TASKS
from annofree.methods.zip import Zip
from annofree.runs.tasks import Prediction, Tasks
from annofree.structures import Detections, Image, LabelMap, Vocabulary
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes
from annofree.testing.tolerances import assert_same_pixels

WORDS = Vocabulary.of("dog, grass")
SIZE = (4, 6)
IMAGES = [Image(np.zeros((*SIZE, 3), np.uint8), name) for name in "ab"]


@dataclass
class Stub:
    """A method that remembers what it was asked; its encodings say whose they are."""

    name: str
    log: list[tuple[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def provenance(self) -> dict[str, Any]:
        return {"method": self.name}

    def remarks(self, classes: Any) -> list[str]:
        return list(self.notes)

    def encode(self, images: Sequence[Image]) -> list[Any]:
        self.log.append(("encode", [image.id for image in images]))
        return [(self.name, image.id) for image in images]


class Things(Stub):
    def instances(self, image: Any, classes: Any) -> Detections:
        self.log.append(("instances", image))
        masks = np.zeros((2, *SIZE), bool)
        masks[0, :, :2] = masks[1, :, :3] = True
        return Detections.from_masks(masks, [0, 0], [0.9, 0.8], classes.names)


class Pixels(Stub):
    def semantic(self, image: Any, classes: Any) -> LabelMap:
        self.log.append(("semantic", image))
        labels = np.zeros(SIZE, np.int32)
        labels[:, 4:] = 2
        return LabelMap(labels, ("background", *classes.names), 0)


class Both(Things, Pixels):
    pass


def asked(tasks: Tasks) -> list[Prediction]:
    return [tasks.predict(encoding, WORDS) for encoding in tasks.encode(IMAGES)]


def test_what_is_not_wanted_is_none() -> None:
    things, pixels = Things("t"), Pixels("p")
    for wanted in TASKS:
        for answer in asked(Tasks((wanted,), things, pixels, ["grass"])):
            said = {"instance": answer.detections, "semantic": answer.label_map, "panoptic": answer.panoptic}
            assert [task for task, part in said.items() if part is not None] == [wanted]


@pytest.mark.parametrize(("wanted", "method"), [("instance", Things("t")), ("semantic", Pixels("p"))])
def test_one_task_needs_one_method(wanted: str, method: Any) -> None:
    tasks = Tasks((wanted,), **{"instances" if wanted == "instance" else "semantic": method})
    asked(tasks)
    verb = "instances" if wanted == "instance" else "semantic"
    assert method.log == [("encode", ["a", "b"]), (verb, (method.name, "a")), (verb, (method.name, "b"))]
    assert tasks.methods == [method]
    assert tasks.provenance == {"method": method.name}


def test_two_methods_each_get_their_own_encoding_once() -> None:
    things, pixels = Things("t"), Pixels("p")
    tasks = Tasks(TASKS, things, pixels, ["grass"])
    asked(tasks)
    assert things.log == [("encode", ["a", "b"]), ("instances", ("t", "a")), ("instances", ("t", "b"))]
    assert pixels.log == [("encode", ["a", "b"]), ("semantic", ("p", "a")), ("semantic", ("p", "b"))]
    assert tasks.methods == [things, pixels]
    assert tasks.provenance == {"methods": [{"method": "t"}, {"method": "p"}]}


def test_a_method_that_does_both_encodes_once() -> None:
    both = Both("b")
    tasks = Tasks(TASKS, both, both, ["grass"])
    answers = asked(tasks)
    assert [entry for entry in both.log if entry[0] == "encode"] == [("encode", ["a", "b"])]
    assert [entry[0] for entry in both.log[1:]] == ["instances", "semantic"] * 2
    assert {entry[1] for entry in both.log[1:]} == {("b", "a"), ("b", "b")}
    assert tasks.provenance == {"method": "b"}
    assert all(answer.panoptic is not None for answer in answers)


def test_methods_that_are_merely_alike_are_two() -> None:
    assert len(Tasks(("panoptic",), Both("b"), Both("b")).methods) == 2


def test_no_pictures_have_no_encodings() -> None:
    assert Tasks(("instance", "semantic"), Things("t"), Pixels("p")).encode([]) == []


@pytest.mark.parametrize("wanted", TASKS)
def test_a_task_that_nobody_does_is_refused(wanted: str) -> None:
    with pytest.raises(InputError, match=f"expected a method for the task {wanted}, got none"):
        Tasks((wanted,))
    lacking: dict[str, Any] = {"semantic": Pixels("p")} if wanted == "instance" else {"instances": Things("t")}
    with pytest.raises(InputError, match=f"the task {wanted}"):
        Tasks((wanted,), **lacking)


def test_remarks_are_said_once() -> None:
    tasks = Tasks(TASKS, Things("t", notes=("few words", "small")), Pixels("p", notes=("small", "grey")))
    assert tasks.remarks(WORDS) == ["few words", "small", "grey"]


def test_panoptic_maps_have_the_stuff_and_the_policy() -> None:
    both = Both("b")
    (one, _) = asked(Tasks(("panoptic",), both, both, ["grass"], PanopticSettings(min_visible=0.1)))
    assert one.panoptic is not None
    assert one.panoptic.segments[0].tolist() == [1, 1, 2, 0, 3, 3]
    assert [(s.class_id, s.is_thing) for s in one.panoptic.infos] == [(0, True), (0, True), (1, False)]
    (plain, _) = asked(Tasks(("panoptic",), both, both))
    assert plain.panoptic is not None
    assert plain.panoptic.segments[0].tolist() == [1, 1, 0, 0, 0, 0]  # no stuff, and the second is mostly hidden


@pytest.mark.parametrize("methods", ["two", "one"])
def test_the_answers_are_those_of_the_methods_alone(methods: str) -> None:
    dense = MaskClip(FakeClip())
    finder: Any = Zip(FakeClip(), FakeSam()) if methods == "two" else dense
    images, words = [s.image for s in draw_paper_scenes()[1:3]], Vocabulary.of(NAMES)
    tasks = Tasks(TASKS, finder, dense, ["tree"])
    for image, encoding in zip(images, tasks.encode(images), strict=True):
        answer = tasks.predict(encoding, words)
        found, labels = finder.instances(image, words), dense.semantic(image, words)
        assert answer.detections is not None and answer.label_map is not None and answer.panoptic is not None
        assert len(found)
        assert_same_detections(answer.detections, found)
        assert_same_pixels(answer.label_map.labels, labels.labels)
        joined = merge_panoptic(answer.detections, answer.label_map, stuff=["tree"])
        assert np.array_equal(answer.panoptic.segments, joined.segments)
        assert answer.panoptic.to_coco() == joined.to_coco()
