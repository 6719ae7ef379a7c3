import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.formats.class_colours import PALETTE, class_colour
from annofree.formats.overlay import _ink, draw_overlay
from annofree.structures import Detections, Image


def scene(size: tuple[int, int], boxes: list[tuple[int, int, int, int]], grey: int = 128) -> tuple[Image, Detections]:
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    scores = np.linspace(0.9, 0.5, len(boxes)).tolist()
    return Image(np.full((*size, 3), grey, np.uint8)), Detections.from_masks(masks, [0] * len(boxes), scores, ["orange"])


def colour_at(picture: PIL.Image.Image, x: int, y: int) -> npt.NDArray[np.int64]:
    return np.array(picture.getpixel((x, y)), np.int64)


def test_a_mask_is_tinted_and_the_rest_of_the_picture_is_left_alone() -> None:
    picture = draw_overlay(*scene((600, 800), [(100, 100, 300, 300)]))
    assert picture.size == (800, 600) and picture.mode == "RGB"
    assert (colour_at(picture, 600, 450) == 128).all()
    inside = colour_at(picture, 200, 200)
    edge = colour_at(picture, 200, 299)
    assert abs(inside - 128).max() > 30
    assert abs(edge - 128).max() > 1.5 * abs(inside - 128).max()  # the contour is full colour, the tint is not


def test_the_picture_itself_is_not_changed() -> None:
    image, found = scene((600, 800), [(100, 100, 300, 300)])
    draw_overlay(image, found)
    assert (image.pixels == 128).all()


def test_the_same_input_gives_the_same_output() -> None:
    image, found = scene((90, 120), [(10, 10, 60, 60), (40, 30, 110, 80)])
    assert draw_overlay(image, found) == draw_overlay(image, found)


@pytest.mark.parametrize("gap", [0, 1])
def test_neighbours_of_one_class_differ_in_colour(gap: int) -> None:
    boxes = [(x, y, x + 100 - gap, y + 100 - gap) for y in range(100, 600, 100) for x in range(100, 900, 100)]
    picture = draw_overlay(*scene((700, 1000), boxes))
    for x, y in ((x0 + 60, y0 + 50) for x0, y0, _, _ in boxes):  # tags of all boxes stay clear of these
        here, right, below = (colour_at(picture, *place) for place in ((x, y), (x + 100, y), (x, y + 100)))
        for there in (right, below):
            assert (there == 128).all() or abs(here - there).sum() > 15


def test_colours_stay_when_weaker_detections_come_and_go() -> None:
    image, found = scene((600, 800), [(50, 50, 200, 200), (190, 50, 400, 200), (500, 300, 700, 500)])
    all_of_them, first_two = draw_overlay(image, found), draw_overlay(image, found[:2])
    for x, y in ((120, 150), (300, 150)):
        assert (colour_at(all_of_them, x, y) == colour_at(first_two, x, y)).all()


def test_a_class_has_its_colour_in_every_picture_whatever_else_is_found() -> None:
    boxes = [(100, 100, 300, 300), (310, 100, 500, 300), (100, 350, 300, 500)]
    image, found = scene((600, 800), boxes)
    names = ("elephant", "orange", "dog")
    mixed = Detections.from_masks(found.masks, [1, 1, 0], found.scores, names)
    alone = Detections.from_masks(found.masks[[2]], [0], [0.3], ["elephant"])
    for picture, name, (x0, _, x1, y1) in (
        (draw_overlay(image, mixed), "orange", boxes[0]),
        (draw_overlay(image, mixed), "orange", boxes[1]),
        (draw_overlay(image, mixed), "elephant", boxes[2]),
        (draw_overlay(image, alone), "elephant", boxes[2]),
    ):
        assert abs(colour_at(picture, (x0 + x1) // 2, y1 - 1) - class_colour(name)).max() <= 2
    first, second = (colour_at(draw_overlay(image, mixed), x, 200) for x in (200, 400))
    assert abs(first - second).sum() > 30  # two of one class side by side: another shade


def test_tags_can_be_read() -> None:
    def luminance(colour: tuple[int, ...]) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.array(colour) / 255]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for colour in PALETTE:
        low, high = sorted((luminance(colour), luminance(_ink(colour))))
        assert (high + 0.05) / (low + 0.05) > 4.5  # WCAG 2, level AA


def test_a_small_picture_is_enlarged_by_a_whole_factor() -> None:
    assert draw_overlay(*scene((48, 64), [(10, 10, 30, 30)])).size == (512, 384)
    assert draw_overlay(*scene((400, 500), [(10, 10, 30, 30)])).size == (1000, 800)
    assert draw_overlay(*scene((400, 512), [(10, 10, 30, 30)])).size == (512, 400)


def test_a_lone_pixel_is_still_seen_in_an_enlarged_picture() -> None:
    picture = draw_overlay(*scene((64, 64), [(40, 40, 41, 41)]))
    assert abs(colour_at(picture, 40 * 8 + 4, 40 * 8 + 4) - 128).max() > 30


@pytest.mark.parametrize("size", [(1, 1), (3, 20000), (20000, 3)])
def test_odd_shapes_can_be_drawn(size: tuple[int, int]) -> None:
    picture = draw_overlay(*scene(size, [(0, 0, size[1], size[0])]))
    assert max(picture.size) >= 512


def test_weak_and_surplus_detections_are_left_out() -> None:
    image, found = scene((600, 800), [(50, 50, 200, 200), (500, 300, 700, 500)])
    for picture in (draw_overlay(image, found, min_score=0.7), draw_overlay(image, found, limit=1)):
        assert (colour_at(picture, 120, 120) != 128).any()
        assert (colour_at(picture, 600, 400) == 128).all()


def test_nothing_found_leaves_the_picture() -> None:
    image = Image(np.full((600, 512, 3), 9, np.uint8))
    assert (np.asarray(draw_overlay(image, Detections.none((600, 512), ["dog"]))) == image.pixels).all()


def test_long_and_foreign_names_are_drawn() -> None:
    masks = np.ones((2, 100, 100), bool)
    found = Detections.from_masks(masks, [0, 1], [0.5, 0.4], ["very " * 39 + "long", "橙子 🍊"])
    assert draw_overlay(Image(np.zeros((100, 100, 3), np.uint8)), found).size == (600, 600)


def test_detections_of_another_picture_are_refused() -> None:
    image, _ = scene((600, 800), [])
    with pytest.raises(InputError, match=r"\(600, 800\).*\(800, 600\)"):
        draw_overlay(image, Detections.none((800, 600), ["dog"]))
