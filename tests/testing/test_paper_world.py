from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from annofree.testing.paper_world import COLORS, NAMES, PaperScene, classify_pixels, draw_paper_scenes

each_scene = pytest.mark.parametrize("scene", draw_paper_scenes(), ids=lambda scene: scene.image.id)


@each_scene
def test_truth_fits_the_picture(scene: PaperScene) -> None:
    assert scene.masks.dtype == bool
    assert scene.masks.shape == (len(scene.names), *scene.image.size)
    assert scene.masks.sum(0).max(initial=0) <= 1, "objects overlap"
    expected = np.full(scene.image.size, len(NAMES))
    for name, mask in zip(scene.names, scene.masks, strict=True):
        expected[mask] = NAMES.index(name)
    assert np.array_equal(classify_pixels(scene.image.pixels), expected)


@each_scene
def test_each_object_is_one_flat_region(scene: PaperScene) -> None:
    for mask in scene.masks:
        assert label(mask, connectivity=1).max() == 1
        assert len(np.unique(scene.image.pixels[mask], axis=0)) == 1


@each_scene
def test_no_symmetry_hides_a_mistake(scene: PaperScene) -> None:
    pixels = scene.image.pixels
    assert pixels.shape[0] != pixels.shape[1]
    if scene.names:
        assert not any(np.array_equal(pixels, other) for other in (pixels[::-1], pixels[:, ::-1], pixels[::-1, ::-1]))


def test_touching_instances_share_a_class_but_no_shade() -> None:
    scene = next(s for s in draw_paper_scenes() if s.image.id == "touching")
    assert len(set(scene.names)) == 1 and len(scene.names) == 2
    one, other = scene.masks
    assert (one[:-1] & other[1:]).any()
    shades = [scene.image.pixels[mask][0].astype(float) for mask in scene.masks]
    unit = [shade / np.linalg.norm(shade) for shade in shades]
    assert unit[0] @ unit[1] < 0.99


def test_shades_are_apart_and_named() -> None:
    for index, (name, shades) in enumerate(COLORS.items()):
        assert NAMES[index] == name
        assert classify_pixels(np.array([shades], np.uint8)).tolist() == [[index, index]]
    assert len({shade for shades in COLORS.values() for shade in shades}) == 2 * len(NAMES)


@pytest.mark.parametrize("gray", [(0, 0, 0), (255, 255, 255), (122, 116, 104)])
def test_grey_is_background(gray: tuple[int, int, int]) -> None:
    assert classify_pixels(np.full((2, 3, 3), gray, np.uint8)).tolist() == [[len(NAMES)] * 3] * 2


def test_scenes_are_drawn_anew() -> None:
    draw_paper_scenes()[0].image.pixels[:] = 0
    assert draw_paper_scenes()[0].masks.any() and draw_paper_scenes()[0].image.pixels.any()


@each_scene
def test_transposed(scene: PaperScene) -> None:
    turned = scene.transposed()
    assert turned.image.size == scene.image.size[::-1]
    assert np.array_equal(turned.transposed().image.pixels, scene.image.pixels)
    assert np.array_equal(turned.transposed().masks, scene.masks)
