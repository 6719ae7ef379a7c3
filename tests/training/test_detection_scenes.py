"""Scenes for a detector, with the truth that scaling, cutting, mirroring and pasting leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from annofree.datasets.labeled import Example, Labeled
from annofree.errors import InputError
from annofree.formats.coco import CocoFile
from annofree.ops.boxes import compute_tight_boxes
from annofree.structures import Detections
from annofree.training.augment.color import Axis
from annofree.training.augment.detection_scenes import DetectionScenes, Scene, SceneSettings
from annofree.training.augment.layers import Cutouts, Layer, WindowView, crop_view, lay_over

COLORS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)], np.uint8)
"""Of the background, and of each class."""

PLAIN: dict[str, Any] = {"sides": (40,), "flip": 0.0, "copy_paste": 0.0}

Box = tuple[int, int, int, int, int]
"""Class and y0 x0 y1 x1."""


def painted(size: tuple[int, int], *boxes: Box) -> Example:
    """A black image with boxes in the colours of their classes."""
    masks, pixels = np.zeros((len(boxes), *size), bool), np.zeros((*size, 3), np.uint8)
    for mask, (class_id, y0, x0, y1, x1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
        pixels[mask] = COLORS[1 + class_id]
    class_ids = np.array([b[0] for b in boxes], np.int64)
    return Example(pixels, masks, compute_tight_boxes(masks), class_ids, np.ones(len(boxes), np.float32))


def layer(size: tuple[int, int], *boxes: Box) -> Layer:
    return crop_view(Cutouts.of(painted(size, *boxes)), WindowView.whole(size, size))


def labeled(folder: Path, images: list[Example], repeats: dict[int, float] | None = None) -> Labeled:
    file = CocoFile.with_categories({1: "cat", 2: "dog", 3: "cow", 4: "fox"})
    for n, example in enumerate(images):
        PIL.Image.fromarray(example.image).save(folder / f"{n}.png")
        height, width = example.image.shape[:2]
        more = {"repeat": repeats[n]} if repeats and n in repeats else {}
        id_ = file.add_image(f"{n}.png", (height, width), **more)
        found = Detections.from_masks(example.masks, example.class_ids, example.scores, ("cat", "dog", "cow", "fox"))
        file.add_annotations(found.to_coco(id_))
    file.write(folder / "labels.json")
    return Labeled.read(folder / "labels.json", folder)


@pytest.fixture
def three(tmp_path: Path) -> Labeled:
    """Three images of different shapes with things, and one without."""
    size = (40, 60)
    first = painted(size, (0, 5, 5, 25, 20), (1, 10, 30, 35, 55), (0, 30, 2, 38, 12))
    return labeled(tmp_path, [first, painted((30, 20), (2, 3, 3, 27, 17)), painted((50, 50), (3, 0, 0, 50, 50)), painted(size)])


def make(source: Labeled, seed: int = 0, **settings: Any) -> Scene:
    return DetectionScenes(source, SceneSettings(**settings)).make_scene(np.random.default_rng(seed))


def check(scene: Scene) -> None:
    """Boxes are the bounds of masks, and nothing is empty."""
    boxes, labels, masks, _ = scene.target
    assert scene.pixels.dtype == torch.uint8 and scene.pixels.shape[1:] == masks.shape[1:] and scene.pixels.is_contiguous()
    assert boxes.dtype == torch.float32 and labels.dtype == torch.int64 and masks.dtype == torch.bool
    assert len(boxes) == len(labels) == len(masks) and bool(masks.flatten(1).any(1).all())
    for box, mask in zip(boxes.tolist(), masks, strict=True):
        y, x = torch.nonzero(mask).unbind(1)
        assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_what_is_pasted_over_shrinks_or_goes() -> None:
    below = layer((20, 30), (0, 0, 0, 10, 10), (1, 5, 20, 15, 30), (0, 2, 2, 4, 4))
    both = lay_over(below, layer((8, 8), (2, 0, 0, 8, 8)), at=(0, 0))
    assert both.count_visible().tolist() == [36, 100, 0, 64] and both.class_ids.tolist() == [0, 1, 0, 2]
    assert (both.pixels[:8, :8] == COLORS[3]).all() and (both.pixels[8:10, :10] == COLORS[1]).all()
    assert not (both.masks[0] & both.masks[3]).any() and below.count_visible().tolist() == [100, 100, 4]
    assert compute_tight_boxes(both.masks)[0].tolist() == [0, 0, 10, 10]
    assert both.drop_hidden(0.0, 1).class_ids.tolist() == [0, 1, 2]
    assert both.drop_hidden(0.4, 1).class_ids.tolist() == [1, 2]  # 36 of 100 px show
    assert both.drop_hidden(0.0, 65).class_ids.tolist() == [1]


@pytest.mark.parametrize(("most", "pasted"), [(0.5, []), (0.51, [2]), (0.3, []), (1.0, [2, 3])])
def test_what_would_hide_too_much_is_not_pasted(most: float, pasted: list[int]) -> None:
    below = layer((20, 30), (0, 0, 0, 10, 10), (1, 10, 20, 14, 24))
    above = layer((20, 30), (2, 0, 0, 10, 5), (3, 9, 19, 15, 25))  # half of the first, all of the second
    both = lay_over(below, above, (0, 0), most)
    assert both.class_ids.tolist()[2:] == pasted
    assert both.pixels[0, 0].tolist() == COLORS[3 if pasted else 1].tolist()


def test_only_the_things_are_pasted() -> None:
    below, above = layer((12, 12), (0, 0, 0, 12, 12)), layer((6, 6), (1, 2, 2, 4, 4))
    both = lay_over(below, above, (5, 4))
    expected = np.full((12, 12, 3), COLORS[1])
    expected[7:9, 6:8] = COLORS[2]
    assert (both.pixels == expected).all() and compute_tight_boxes(both.masks)[1].tolist() == [6, 7, 8, 9]
    empty = lay_over(layer((12, 12)), above, (0, 0))
    assert empty.class_ids.tolist() == [1] and len(lay_over(below, layer((6, 6)), (0, 0))) == 1


def test_a_window_is_a_part_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    masks = rng.random((3, 31, 47)) < 0.3
    pixels = rng.integers(256, size=(31, 47, 3), dtype=np.uint8)
    example = Cutouts.of(Example(pixels, masks, compute_tight_boxes(masks), np.arange(3), np.ones(3, np.float32)))
    for scaled in ((20, 33), (62, 94), (40, 30)):
        whole = crop_view(example, WindowView.whole((31, 47), scaled))
        rows, columns = (np.arange(m) * 2 + 1 for m in scaled)
        assert (whole.masks == masks[:, (rows * 31 // (2 * scaled[0]))[:, None], columns * 47 // (2 * scaled[1])]).all()
        part = crop_view(example, WindowView(Axis(31, scaled[0], 4, 0, 12), Axis(47, scaled[1], 7, 0, 20), flip=True))
        assert (part.masks == whole.masks[:, 4:16, 7:27][:, :, ::-1]).all()
        assert np.abs(part.pixels.astype(int) - whole.pixels[4:16, 7:27][:, ::-1].astype(int)).max() <= 1
        assert (part.whole == whole.whole).all()
        assert whole.whole == pytest.approx(whole.count_visible(), rel=0.15)  # a share of the area, and whole pixels


def test_a_picture_at_its_own_size_is_as_it_is(three: Labeled) -> None:
    scenes = DetectionScenes(three, SceneSettings(**PLAIN))
    for seed in range(20):
        scene = scenes.make_scene(np.random.default_rng(seed))
        check(scene)
        if len(scene.target.boxes) == 3:
            example = three.open(0)
            assert (scene.pixels.numpy() == example.image.transpose(2, 0, 1)).all()
            assert (scene.target.masks.numpy() == example.masks).all() and scene.target.labels.tolist() == [0, 1, 0]
            return
    raise AssertionError("the first image was never drawn")


def test_flips_take_boxes_along(tmp_path: Path) -> None:
    source = labeled(tmp_path, [painted((40, 60), (1, 5, 10, 20, 25))])
    flipped = make(source, **{**PLAIN, "flip": 1.0})
    assert flipped.target.boxes.tolist() == [[35, 5, 50, 20]] and flipped.pixels[:, 5, 35].tolist() == COLORS[2].tolist()


@pytest.mark.parametrize(("side", "longest", "size"), [(20, 1000, (20, 30)), (80, 1000, (80, 120)), (80, 90, (60, 90))])
def test_sizes(side: int, longest: int, size: tuple[int, int], tmp_path: Path) -> None:
    source = labeled(tmp_path, [painted((40, 60), (1, 4, 8, 20, 24))])
    scene = make(source, **{**PLAIN, "sides": (side,), "longest": longest})
    factor = size[0] / 40
    assert tuple(scene.pixels.shape) == (3, *size)
    assert scene.target.boxes[0].tolist() == [8 * factor, 4 * factor, 24 * factor, 20 * factor]


def test_sides_are_drawn_and_windows_keep_their_truth(three: Labeled) -> None:
    scenes = DetectionScenes(three, SceneSettings(sides=(20, 30), copy_paste=0.0, crop=1.0, crop_least=0.3, least_visible=0.3))
    made = [scenes.make_scene(np.random.default_rng(seed)) for seed in range(30)]
    assert {min(s.pixels.shape[1:]) for s in made} == {20, 30} and len({s.pixels.shape for s in made}) > 8
    for scene in made:
        check(scene)
        for label, mask in zip(scene.target.labels.tolist(), scene.target.masks, strict=True):
            shown = scene.pixels.numpy().transpose(1, 2, 0)[mask.numpy()].astype(int)
            nearest = np.abs(shown[:, None] - COLORS.astype(int)).sum(2).argmin(1)
            assert np.mean(nearest == 1 + label) > 0.5
    assert {len(s.target.boxes) for s in made} >= {0, 1, 2}


def test_pasted_scenes(three: Labeled) -> None:
    settings = SceneSettings(sides=(40,), flip=0.5, empty=True)
    scenes = DetectionScenes(three, settings)
    made = [scenes.make_scene(np.random.default_rng(seed)) for seed in range(40)]
    for scene in made:
        check(scene)
    assert {len(s.target.boxes) for s in made} >= {1, 2, 3, 4}
    again = DetectionScenes(three, settings, memory=0)
    for seed in (0, 7, 23):
        one, other = made[seed], again.make_scene(np.random.default_rng(seed))
        assert (one.pixels == other.pixels).all() and all(
            torch.equal(getattr(one.target, part), getattr(other.target, part)) for part in ("boxes", "labels", "masks")
        )
        assert torch.equal(one.scores, other.scores) and len(one.scores) == len(one.target.boxes)


def test_at_most_so_many_are_pasted(tmp_path: Path) -> None:
    source = labeled(tmp_path, [painted((40, 60), *((n % 4, 5 * n, 5 * n, 5 * n + 4, 5 * n + 4) for n in range(8)))])
    loose: dict[str, Any] = {"sides": (40,), "flip": 0.0, "most_hidden": 1.0, "paste_scale": (1.0, 1.0)}
    counts = [len(make(source, seed, **loose).target.boxes) for seed in range(12)]
    assert max(counts) == 8 and min(counts) == 8  # at full scale they lie on themselves
    small: dict[str, Any] = {**loose, "paste_scale": (0.5, 0.5), "most_pasted": 2}
    assert {len(make(source, seed, **small).target.boxes) for seed in range(12)} <= {8, 9, 10}


def test_pictures_without_things(three: Labeled, tmp_path: Path) -> None:
    seen = {len(make(three, seed, **PLAIN).target.boxes) for seed in range(30)}
    assert seen == {1, 3} and 0 in {len(make(three, seed, **PLAIN, empty=True).target.boxes) for seed in range(30)}
    empty = next(s for s in (make(three, seed, **PLAIN, empty=True) for seed in range(30)) if not len(s.target.boxes))
    assert empty.target.boxes.shape == (0, 4) and empty.target.masks.shape == (0, *empty.pixels.shape[1:])
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(InputError, match="none of 1 images has any"):
        DetectionScenes(labeled(bare, [painted((9, 9))]))


def test_pictures_come_as_often_as_they_repeat(tmp_path: Path) -> None:
    size = (40, 60)
    source = labeled(tmp_path, [painted(size, (0, 0, 0, 9, 9)), painted(size, (1, 0, 0, 9, 9))], repeats={1: 4.0})
    scenes, rng = DetectionScenes(source, SceneSettings(**PLAIN)), np.random.default_rng(0)
    drawn = [int(scenes.make_scene(rng).target.labels[0]) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(0.8, abs=0.06)


def test_light_changes_colours_alone(three: Labeled) -> None:
    plain, lit = (make(three, 5, **PLAIN, jitter_share=share) for share in (0.0, 1.0))
    assert (plain.target.masks == lit.target.masks).all() and (plain.pixels != lit.pixels).any()


def test_settings_out_of_range() -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"sides": ()},
        {"flip": 1.5},
        {"paste_scale": (0.5, 0.3)},
        {"most_pasted": 0},
        {"crop_least": 0.0},
    )
    for wrong in wrongs:
        with pytest.raises(InputError, match=f"got {next(iter(wrong))}"):
            SceneSettings(**wrong)
