"""What comes after a method: regions of its label map, SAM, ranks, names; on the paper world and on scripted answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from annofree.errors import InputError
from annofree.methods.build import build_method
from annofree.methods.class_agnostic.named_masks import NamedMasks
from annofree.methods.class_agnostic.sam_everything import SamEverything
from annofree.methods.components import Models
from annofree.methods.dense.clip_diy import ClipDiy, ClipDiySettings
from annofree.methods.dense.maskclip import MaskClip
from annofree.methods.explain.explain import explain_method
from annofree.methods.registry import METHODS, Entry, find_method
from annofree.methods.sam_clip import SamClip
from annofree.methods.steps.ranking import Ranked
from annofree.methods.steps.redrawing import Redrawn, RedrawnLabels
from annofree.methods.steps.regions import LabelRegions
from annofree.methods.steps.take import Steps, take_steps
from annofree.protocols import Segmenter, SemanticSegmenter
from annofree.runs.encodings import list_kinds
from annofree.structures import Classes, Detections, Image, LabelMap, Vocabulary
from annofree.testing.conformance import CHECKS, check_known_answers
from annofree.testing.fakes import FakeClip, FakeObjectness, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

MODELS: Any = Models("tiny", "cpu", objectness="none").with_parts(clip=FakeClip(), sam=FakeSam(), objectness=FakeObjectness())
BLANK = Image(np.full((20, 30, 3), 128, np.uint8))


class Scripted:
    """Answers each image with the same masks under the first name, or the same map."""

    provenance: dict[str, Any] = {"method": "scripted", "models": [{"name": "none"}]}  # noqa: RUF012

    def __init__(self, masks: Any = None, scores: Sequence[float] = (), labels: Any = None) -> None:
        self.masks, self.scores, self.labels = masks, scores, labels

    def remarks(self, classes: Classes) -> list[str]:
        return ["as written"]

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return [image.size for image in images]

    def instances(self, image: Any, classes: Classes) -> Detections:
        names = Vocabulary.of(classes).names
        return Detections.from_masks(self.masks, [0] * len(self.masks), self.scores, names)

    def semantic(self, image: Any, classes: Classes) -> LabelMap:
        return LabelMap(self.labels, ("background", *Vocabulary.of(classes).names), background=0)


class OnlyMaps:
    """One that makes label maps and nothing else."""

    provenance: dict[str, Any] = {"method": "only_maps", "models": []}  # noqa: RUF012

    def __init__(self, labels: Any) -> None:
        self.labels = labels

    def remarks(self, classes: Classes) -> list[str]:
        return []

    def encode(self, images: Sequence[Image]) -> list[Any]:
        return [image.size for image in images]

    def semantic(self, image: Any, classes: Classes) -> LabelMap:
        return LabelMap(self.labels, ("background", *Vocabulary.of(classes).names), background=0)


def boxes(*given: tuple[int, int, int, int]) -> np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]:
    masks = np.zeros((len(given), 20, 30), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, given, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def test_regions_of_a_label_map_are_instances() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[2:5, 2:5], labels[2:5, 10:20], labels[10:15, 4:9] = 1, 1, 2
    found = LabelRegions(Scripted(labels=labels)).instances((20, 30), "cat, dog")
    assert sorted(zip(found.labels.tolist(), found.areas.tolist(), strict=True)) == [("cat", 9), ("cat", 30), ("dog", 25)]
    assert found.scores.tolist() == [1, 1, 1]
    assert len(LabelRegions(Scripted(labels=labels), min_area=26).instances((20, 30), "cat, dog")) == 1


@pytest.mark.parametrize("method", ["maskclip", "clip_diy"])
def test_a_semantic_method_drawn_by_sam_finds_the_objects(method: str) -> None:
    clip = FakeClip()
    semantic: Any = MaskClip(clip) if method == "maskclip" else ClipDiy(clip, FakeObjectness(), ClipDiySettings(canvas=128))
    steps = Steps(regions=True, redraw="box")
    scene = draw_paper_scenes()[0]
    found = take_steps(semantic, steps, MODELS).instances(scene.image, NAMES)
    best = [(m & scene.masks[0]).sum() / (m | scene.masks[0]).sum() for m in found.masks]
    assert found[int(np.argmax(best))].labels.tolist() == [scene.names[0]] and max(best) > 0.99


@pytest.mark.parametrize("redraw", ["none", "box", "box+point"])
@pytest.mark.parametrize("method", ["maskclip", "clip_surgery", "patch_cosine", "clip_diy"])
def test_regions_are_drawn_by_sam_where_the_settings_say_so(method: str, redraw: str) -> None:
    parts = {"clip": FakeClip(), "sam": FakeSam(), "objectness": FakeObjectness()}
    models = Models("tiny", "cpu", objectness="none").with_parts(**parts)
    built: Any = build_method(method, models, "default", {"redraw": redraw})
    assert [isinstance(built, kind) for kind in (Segmenter, SemanticSegmenter, RedrawnLabels)] == [True, True, redraw != "none"]
    scene = draw_paper_scenes()[0]
    (encoding,) = built.encode([scene.image])
    found, labels = built.instances(encoding, NAMES), built.semantic(encoding, NAMES)
    best = [(m & scene.masks[0]).sum() / (m | scene.masks[0]).sum() for m in found.masks]
    assert found[int(np.argmax(best))].labels.tolist() == [scene.names[0]] and max(best) > (0.7 if redraw == "none" else 0.99)
    assert found == built.instances(scene.image, NAMES) and labels == built.semantic(scene.image, NAMES)
    assert built.provenance["settings"]["redraw"] == redraw and built.settings.redraw == redraw
    assert ("fake-sam" in [model["name"] for model in built.provenance["models"]]) == (redraw != "none")
    assert type(encoding).__name__ in list_kinds(built)
    assert explain_method(built, scene.image, Vocabulary.of(NAMES), "instance").answer == found


def test_sam_is_among_the_models_that_settings_need() -> None:
    plain, drawn = (find_method("maskclip").list_roles("none", changes) for changes in ({}, {"redraw": "box"}))
    assert plain == ("clip",) and drawn == ("clip", "sam")


def test_what_only_makes_label_maps_finds_their_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[2:5, 2:5] = 1
    only = OnlyMaps(labels)
    monkeypatch.setitem(METHODS, "only_maps", Entry(lambda models, settings: only, tasks=("semantic",), needs=()))
    entry = find_method("only_maps")
    assert entry.tasks == ("instance", "semantic") and entry.regions
    built = build_method("only_maps", Models("tiny", "cpu", objectness="none"))
    assert isinstance(built, Segmenter) and isinstance(built, SemanticSegmenter)
    assert built.instances((20, 30), "cat, dog").areas.tolist() == [9]
    assert built.semantic((20, 30), "cat, dog") == only.semantic((20, 30), "cat, dog")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_is_drawn_anew_still_conforms(check: Any) -> None:
    check(Redrawn(SamClip(FakeClip(), FakeSam()), FakeSam()))


def test_sam_draws_what_a_box_means_and_its_guess_weighs() -> None:
    scene = draw_paper_scenes()[0]
    x0, y0, x1, y1 = (int(v) for v in Detections.from_masks(scene.masks[:1], [0], [1.0], ["x"]).boxes[0])
    coarse = np.zeros((1, *scene.image.size), bool)
    coarse[0, y0:y1, x0:x1] = True
    method = Redrawn(Scripted(coarse, [0.5]), FakeSam())
    found = method.instances(scene.image, "apple")
    assert (found.masks[0] == scene.masks[0]).all()
    assert found.scores.tolist() == pytest.approx([(0.5 * 0.98) ** 0.5])
    assert [model["name"] for model in method.provenance["models"]] == ["none", "fake-sam"]
    assert method.remarks("apple") == ["as written"] and method.encode([]) == []
    assert len(Redrawn(Scripted(coarse[:0], []), FakeSam()).instances(scene.image, "apple")) == 0


class LeftIsThings:
    provenance: dict[str, Any] = {"name": "left"}  # noqa: RUF012

    def predict_maps(self, images: Sequence[Image]) -> list[Tensor]:
        return [torch.cat([torch.full((h, w // 2), 0.64), torch.zeros(h, w - w // 2)], 1) for h, w in (i.size for i in images)]


@pytest.mark.parametrize(
    ("rank", "scores"), [("objectness", [0.64, 0.32, 0.0]), ("both", [(0.64 * 0.36) ** 0.5, (0.32 * 0.5) ** 0.5, 0.0])]
)
def test_objectness_ranks(rank: Any, scores: list[float]) -> None:
    masks = boxes((16, 0, 26, 9), (0, 0, 10, 9), (10, 10, 20, 20))
    found = Ranked(Scripted(masks, [0.9, 0.36, 0.5]), LeftIsThings(), rank).instances(BLANK, "cat")
    assert found.scores.tolist() == pytest.approx(scores)
    assert np.array_equal(found.masks, masks[[1, 2, 0]])


def test_a_method_without_names_is_named() -> None:
    named = take_steps(SamEverything(FakeSam()), Steps(name={"look": "masked"}), MODELS, agnostic=True)
    assert isinstance(named, NamedMasks) and named.settings.look == "masked"
    check_known_answers(named, min_iou=0.99)
    assert [model["name"] for model in named.provenance["models"]] == ["fake-clip", "fake-sam"]
    assert named.remarks("apple") == []


def test_one_without_names_answers_many_by_the_first() -> None:
    found = take_steps(SamEverything(FakeSam()), Steps(), MODELS, agnostic=True).instances(draw_paper_scenes()[0].image, NAMES)
    assert set(found.labels.tolist()) == {NAMES[0]} and found.names == NAMES


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="unknown setting 'looks'; did you mean 'look'"):
        take_steps(Scripted(), Steps(name={"looks": "box"}), MODELS)
    with pytest.raises(InputError, match="expected an objectness to rank by, got none"):
        take_steps(Scripted(), Steps(rank="both"), Models("tiny", "cpu", objectness="none"))


def test_steps_that_take_nothing_leave_a_method_as_it_is() -> None:
    method = Scripted()
    assert take_steps(method, Steps(), cast(Models, MODELS)) is method
