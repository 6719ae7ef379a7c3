"""Methods without names: the conformance suite, and what each draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.fragments.maskcut import Cut, MaskCutSettings
from annofree.methods.class_agnostic.discovery import VARIANTS, Discovery
from annofree.methods.class_agnostic.fragments import FragmentsSettings, ZipFragments
from annofree.methods.class_agnostic.maskcut import MaskCut, MaskCutMethodSettings, _resize_mask
from annofree.methods.class_agnostic.maskdistill import MaskDistill, MaskDistillMethodSettings
from annofree.methods.class_agnostic.object_detector import ObjectDetector, build_detector
from annofree.methods.class_agnostic.sam_everything import VARIANTS as EVERYTHING
from annofree.methods.class_agnostic.sam_everything import SamEverything, SamEverythingSettings
from annofree.methods.detector import Detector, DetectorInfo
from annofree.methods.registry import find_method, is_class_agnostic
from annofree.protocols import ClassAgnosticSegmenter
from annofree.structures import Image
from annofree.testing.class_agnostic_conformance import CHECKS
from annofree.testing.fake_detector import FakeDetector, PaperThings
from annofree.testing.fakes import FakeClip, FakeDino, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes


class FakeObjects(FakeDetector):
    """The same network, trained without names."""

    def detect(self, pixels: list[Any]) -> list[PaperThings]:
        return [found._replace(labels=found.labels * 0) for found in super().detect(pixels)]


MAKERS: dict[str, Callable[[], Any]] = {
    "maskcut": lambda: MaskCut(FakeDino(), MaskCutMethodSettings(side=96, cuts=MaskCutSettings(tau=0.2))),
    "maskcut, cells": lambda: MaskCut(FakeDino(), MaskCutMethodSettings(side=96, crf=None)),
    **{
        f"sam_everything, {name}": partial(SamEverything, FakeSam(), replace(variant, points=9))
        for name, variant in EVERYTHING.items()
    },
    "sam_everything, crops": lambda: SamEverything(FakeSam(), SamEverythingSettings(8, crop_layers=1, min_region=9)),
    "fragments": lambda: ZipFragments(FakeClip(), FakeSam()),
    "fragments, no SAM": lambda: ZipFragments(FakeClip(), FakeSam(), FragmentsSettings(prompting="none")),
    **{rule: partial(Discovery, FakeDino(), rule) for rule in VARIANTS},
    "maskdistill": lambda: MaskDistill(FakeDino(), MaskDistillMethodSettings(side=None)),
    "maskdistill, resized": lambda: MaskDistill(FakeDino(), MaskDistillMethodSettings(side=72)),
    "detector": lambda: build_detector(FakeObjects(), DetectorInfo(("object",), {})),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", MAKERS)
def test_conformance(name: str, check: Callable[[Any], None]) -> None:
    assert isinstance(MAKERS[name](), ClassAgnosticSegmenter)
    check(MAKERS[name]())


@pytest.mark.parametrize("rule", ["lost", "tokencut", "dss"])
def test_a_thing_on_paper_is_found_to_the_cell(rule: str) -> None:
    scene = draw_paper_scenes()[0]
    (found,) = Discovery(FakeDino(), rule).discover([scene.image])
    assert (found.masks[0] == scene.masks[0]).all() and found.scores.tolist() == [1.0]


def test_maskcut_takes_things_apart_and_draws_none_twice() -> None:
    image = np.full((96, 96, 3), 128, np.uint8)
    image[8:32, 8:40], image[56:80, 48:88] = (200, 30, 30), (40, 60, 200)
    (found,) = MAKERS["maskcut"]().discover([Image(image)])
    drawn = {tuple(box) for box in found.boxes.tolist()}
    assert {(8.0, 8.0, 40.0, 32.0), (48.0, 56.0, 88.0, 80.0)} <= drawn
    assert found.masks.sum(0).max() == 1


def test_a_mask_that_the_field_tears_apart_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that follow no edge: the field moves them to where color is, and less than half of them stays."""
    image = np.full((64, 64, 3), 255, np.uint8)
    image[:, :6] = 0
    cells = np.zeros((8, 8), bool)
    cells[:, :3] = True
    for agree, count in ((0.0, 1), (0.9, 0)):
        method = MaskCut(FakeDino(), MaskCutMethodSettings(side=64, agree=agree))
        monkeypatch.setattr("annofree.methods.class_agnostic.maskcut.cut_masks", lambda *_: [Cut(cells, 2)])
        (found,) = method.discover([Image(image)])
        assert len(found) == count and method.undecided == 2


def test_masks_are_resized_as_pillow_does() -> None:
    mask = np.zeros((16, 16), bool)
    mask[4:9, 5:14] = True
    gray = PIL.Image.fromarray(mask.astype(np.uint8) * 255).resize((41, 30), PIL.Image.Resampling.BICUBIC)
    expected = np.asarray(gray) > 127.5
    assert (_resize_mask(mask, (30, 41)) == expected).all() and not _resize_mask(np.zeros((4, 4), bool), (9, 9)).any()


def test_maskdistill_draws_the_cells_of_a_thing() -> None:
    scene = draw_paper_scenes()[0]
    (found,) = MAKERS["maskdistill"]().discover([scene.image])
    assert (found.masks[0] == scene.masks[0]).all() and found.scores.tolist() == [1.0]


def test_a_detector_of_names_is_none_without() -> None:
    assert type(build_detector(FakeDetector(), DetectorInfo(NAMES, {}))) is Detector
    with pytest.raises(InputError, match="expected a detector that knows object alone"):
        ObjectDetector(FakeDetector(), DetectorInfo(NAMES, {}))


def test_the_registry_knows_what_needs_no_names() -> None:
    assert {
        name
        for name in ("maskcut", "discovery", "maskdistill", "fragments", "sam_everything", "zip", "detector")
        if find_method(name).class_agnostic
    } == {
        "maskcut",
        "discovery",
        "maskdistill",
        "fragments",
        "sam_everything",
    }
    assert is_class_agnostic("maskcut + discovery") and not is_class_agnostic("maskcut+clip_diy")
