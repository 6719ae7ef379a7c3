"""``annofree.segment`` and ``relabel``: images as callers have them, in memory and in a folder."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import PIL.Image
import pytest
import torch

import annofree
from annofree.errors import ImageError, InputError
from annofree.methods.build import MethodSpec, build_method
from annofree.methods.components import Models
from annofree.pipelines.segment import RunResult, SegmentOptions, parse_shard
from annofree.runs.tasks import Prediction
from annofree.structures import Image
from annofree.testing.fakes import FakeClip, FakeSam
from annofree.testing.paper_world import NAMES, draw_paper_scenes

ASKED = ", ".join(NAMES)
SCENE = draw_paper_scenes()[2]
COUNT = len(SCENE.names)


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method on the fakes, which read the paper world perfectly."""
    models = Models("tiny", "cpu", objectness="none").with_parts(clip=FakeClip(), sam=FakeSam())
    monkeypatch.setattr(MethodSpec, "build", lambda spec, _: build_method(spec.method, models, spec.variant))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, scene in enumerate(draw_paper_scenes()):
        PIL.Image.fromarray(scene.image.pixels).save(folder / f"{number}.png")
    return folder


def find(images: Any, **options: Any) -> list[Prediction]:
    found: list[Prediction] = annofree.segment(images, ASKED, method="zip", **options)
    return found


PIXELS = SCENE.image.pixels
FORMS: dict[str, Callable[[Path], Any]] = {
    "path": lambda photos: photos / "2.png",
    "text": lambda photos: str(photos / "2.png"),
    "glob": lambda photos: str(photos / "2*.png"),
    "url": lambda photos: (photos / "2.png").as_uri(),
    "pillow": lambda photos: PIL.Image.open(photos / "2.png"),
    "image": lambda photos: SCENE.image,
    "numpy": lambda photos: PIXELS,
    "numpy, channels first": lambda photos: np.moveaxis(PIXELS, 2, 0),
    "numpy, floats": lambda photos: PIXELS / 255,
    "torch": lambda photos: torch.from_numpy(PIXELS).permute(2, 0, 1),
    "torch, channels last": lambda photos: torch.from_numpy(PIXELS),
    "torch, floats": lambda photos: torch.from_numpy(PIXELS).permute(2, 0, 1) / 255,
    "a list": lambda photos: [PIXELS],
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_taken_in_every_form(form: str, photos: Path) -> None:
    (found,) = find(FORMS[form](photos))
    assert found.error is None and found.detections is not None
    assert sorted(found.detections.labels) == sorted(SCENE.names)
    assert found.label_map is None and found.panoptic is None


def test_forms_are_mixed_in_a_list_and_order_is_kept(photos: Path) -> None:
    found = find([photos / "0.png", PIXELS, PIXELS, Image(PIXELS, "mine")])
    assert [one.id for one in found] == ["0.png", "image-1", "image-2", "mine"]
    twice = find([Image(PIXELS, "mine"), Image(PIXELS, "mine")])
    assert [one.id for one in twice] == ["mine", "mine-2"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), r"got an array of shape \(2, 4, 4, 3\); pass a list of images, not a batch"),
        (np.zeros((4, 4, 7), np.uint8), r"got an array of shape \(4, 4, 7\); convert it to RGB first"),
        (np.zeros((4, 4, 3), np.uint16), "uint8 in 0 .. 255 or floats in 0 .. 1, got uint16"),
        (np.full((4, 4, 3), 200.0), "expected floats in 0 .. 1, got others; divide values in 0 .. 255 by 255"),
        (np.full((4, 4, 3), np.nan), "expected floats in 0 .. 1, got others"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "got int64; convert it first"),
        (7, "a torch tensor or an annofree.Image, got int"),
        ("https://example.org/cat.jpg", "expected images on this machine, got https://example.org/cat.jpg"),
        ([], "expected images"),
    ],
)
def test_what_is_no_image_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(wrong)


def test_all_tasks_in_memory(photos: Path) -> None:
    found = find(photos, task=["instance", "semantic", "panoptic"], stuff="tree", limit=3)
    assert len(found) == 3
    for one, scene in zip(found, draw_paper_scenes(), strict=False):
        assert one.detections is not None and one.label_map is not None and one.panoptic is not None
        assert one.label_map.size == scene.image.size


def test_a_score_floor_holds_in_memory(photos: Path) -> None:
    everything = find(photos / "2.png")[0].detections
    assert everything is not None
    kept = find(photos / "2.png", min_score=1.0)[0].detections
    assert kept is not None and len(kept) == int((everything.scores >= 1.0).sum())


def test_an_only_image_that_fails_raises_and_one_of_several_is_named(photos: Path) -> None:
    (photos / "1.png").write_bytes(b"torn")
    with pytest.raises(ImageError, match=r"1\.png holds something else"):
        find(photos / "1.png")
    failures: list[str] = []
    with pytest.warns(UserWarning, match=r"1 of 8 images failed; the first: expected an image"):
        found = find(photos, callbacks=annofree.Callbacks(on_failure=lambda name, why: failures.append(name)))
    assert failures == ["1.png"] and [one.id for one in found if one.error] == ["1.png"]
    assert all(one.detections is not None for one in found if not one.error)


def test_progress_and_notes_are_heard(photos: Path) -> None:
    steps: list[tuple[int, int]] = []
    notes: list[str] = []
    heard = annofree.Callbacks(on_progress=lambda *step: steps.append(step), on_note=notes.append)
    find(photos, callbacks=heard)
    assert steps == [(k, 8) for k in range(9)]


# In a folder


def test_a_folder_holds_what_memory_does(photos: Path, tmp_path: Path) -> None:
    in_memory = {one.id: one.detections for one in find(photos)}
    done: RunResult = annofree.segment(photos, ASKED, method="zip", out=tmp_path / "out")
    assert done.failed == {} and done.tasks == ("instance",) and not done.was_complete
    stored = dict(done.read_detections())
    assert stored.keys() == in_memory.keys()
    for name, found in stored.items():
        other = in_memory[name]
        assert other is not None and found.to_coco(0) == other.to_coco(0)
    again = annofree.segment(photos, ASKED, method="zip", out=tmp_path / "out")
    assert again.was_complete and again.summary["instances"] == done.summary["instances"] > 0


def test_images_in_memory_are_a_run_too_and_others_of_the_same_names_are_another(tmp_path: Path) -> None:
    def run(*images: Any) -> RunResult:
        return annofree.segment(list(images), ASKED, method="zip", out=tmp_path / "out")

    done = run(PIXELS, draw_paper_scenes()[0].image.pixels)
    assert done.summary["timings"]["images"] == 2 and [name for name, _ in done.read_detections()] == ["image-1", "image-2"]
    assert (tmp_path / "out" / "overlays").is_dir()
    assert run(PIXELS, draw_paper_scenes()[0].image.pixels).was_complete
    with pytest.raises(InputError, match="pixels"):
        run(draw_paper_scenes()[0].image.pixels, PIXELS)


def test_what_only_a_folder_can_do_needs_one(photos: Path) -> None:
    with pytest.raises(InputError, match=r"expected an output folder for fresh and keep_encodings, got none; pass out="):
        find(photos, fresh=True, keep_encodings=True)
    with pytest.raises(InputError, match="output folder for shard"):
        find(photos, shard="1/2")


def test_a_run_is_relabelled(photos: Path, tmp_path: Path) -> None:
    first = annofree.segment(photos, NAMES[0], method="zip", out=tmp_path / "out", keep_encodings=True)
    other = annofree.relabel(first.out, NAMES[1], out=tmp_path / "other")
    whole = annofree.segment(photos, NAMES[1], method="zip", out=tmp_path / "whole")
    assert other.summary["instances"] == whole.summary["instances"] > 0
    assert annofree.relabel(first.out, NAMES[1], out=tmp_path / "other").was_complete
    with pytest.raises(InputError, match="expected another folder"):
        annofree.relabel(first.out, NAMES[1], out=first.out)
    with pytest.raises(InputError, match="unknown way to tell presence 'folders'; did you mean 'folder'"):
        annofree.relabel(first.out, NAMES[1], out=tmp_path / "x", presence="folders")


@pytest.mark.parametrize(("shard", "parts"), [(None, (1, 1)), ("2/4", (2, 4)), ((3, 5), (3, 5))])
def test_a_shard_is_read(shard: Any, parts: tuple[int, int]) -> None:
    assert parse_shard(shard) == parts


@pytest.mark.parametrize("shard", ["2", "a/b", "1/2/3", "-1/2", "/"])
def test_other_shards_are_refused(shard: str) -> None:
    with pytest.raises(InputError, match="expected --shard as a part of all, such as 1/4"):
        parse_shard(shard)


def test_the_options_are_those_of_the_function() -> None:
    """A type checker sees ``SegmentOptions``, Python the signature; they are one."""
    parameters = inspect.signature(annofree.segment).parameters
    keywords = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY and name != "out"]
    assert sorted(SegmentOptions.__annotations__) == sorted(keywords)
    assert get_type_hints(RunResult)["out"] is Path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "expected batch_size of at least 1, got 0"),
        ({"limit": 0}, "expected limit of at least 1, got 0"),
        ({"limit": True}, "expected limit as a whole number of at least 1, got True"),
        ({"min_score": 7}, "expected min_score from 0 to 1, got 7"),
        ({"min_score": "x"}, "expected min_score from 0 to 1, got 'x'"),
        ({"min_score": float("nan")}, "expected min_score from 0 to 1, got nan"),
        ({"task": []}, "expected a task, got none; name one of instance"),
        ({"method": 3}, "expected the method by its name or as a folder, got 3"),
    ],
)
def test_numbers_and_words_out_of_range_are_refused(photos: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        annofree.segment(photos, ASKED, **options)


def test_no_classes_are_for_methods_that_need_none(photos: Path) -> None:
    with pytest.raises(InputError, match=r"expected the names of the classes.*maskcut.*need none"):
        annofree.segment(photos, None)


@pytest.mark.parametrize("classes", [7, b"dog", {"dog": 1}, ["dog", 7]])
def test_classes_that_are_no_names_are_refused(photos: Path, classes: Any) -> None:
    with pytest.raises(InputError, match=r"expected class names as a text|expected each class name as a text, got 7"):
        annofree.segment(photos, classes)
