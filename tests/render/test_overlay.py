import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.ops.palette import Color, assign_colors, make_palette
from annofree.render.overlay import draw_overlay
from annofree.render.tags import Tagging
from annofree.structures import Detections, Image


def scene(size: tuple[int, int], boxes: list[tuple[int, int, int, int]], gray: int = 128) -> tuple[Image, Detections]:
    masks = np.zeros((len(boxes), *size), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    scores = np.linspace(0.9, 0.5, len(boxes)).tolist()
    return Image(np.full((*size, 3), gray, np.uint8)), Detections.from_masks(masks, [0] * len(boxes), scores, ["orange"])


def color_at(image: PIL.Image.Image, x: int, y: int) -> npt.NDArray[np.int64]:
    return np.array(image.getpixel((x, y)), np.int64)


def test_a_mask_is_tinted_and_the_rest_of_the_picture_is_left_alone() -> None:
    image = draw_overlay(*scene((600, 800), [(100, 100, 300, 300)]))
    assert image.size == (800, 600) and image.mode == "RGB"
    assert (color_at(image, 600, 450) == 128).all()
    inside = color_at(image, 200, 200)
    edge = color_at(image, 200, 299)
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
def test_neighbours_of_one_class_differ_in_colour(monkeypatch: pytest.MonkeyPatch, gap: int) -> None:
    monkeypatch.setattr(Tagging, "draw", lambda *_: None)
    boxes = [(x, y, x + 100 - gap, y + 100 - gap) for y in range(100, 600, 100) for x in range(100, 900, 100)]
    image = draw_overlay(*scene((700, 1000), boxes))
    for x, y in ((x0 + 60, y0 + 50) for x0, y0, _, _ in boxes):
        here, right, below = (color_at(image, *place) for place in ((x, y), (x + 100, y), (x, y + 100)))
        for there in (right, below):
            assert (there == 128).all() or abs(here - there).sum() > 15


def test_colours_stay_when_weaker_detections_come_and_go() -> None:
    image, found = scene((600, 800), [(50, 50, 200, 200), (190, 50, 400, 200), (500, 300, 700, 500)])
    all_of_them, first_two = draw_overlay(image, found), draw_overlay(image, found[:2])
    for x, y in ((120, 150), (300, 150)):
        assert (color_at(all_of_them, x, y) == color_at(first_two, x, y)).all()


def test_a_class_has_its_color_in_every_picture_whatever_else_is_found() -> None:
    boxes = [(100, 100, 300, 300), (310, 100, 500, 300), (100, 350, 300, 500)]
    image, found = scene((600, 800), boxes)
    names = ("elephant", "orange", "dog")
    mixed = Detections.from_masks(found.masks, [1, 1, 0], found.scores, names)
    alone = Detections.from_masks(found.masks[[2]], [0], [0.3], names)
    for picture, name, (x0, _, x1, y1) in (
        (draw_overlay(image, mixed), "orange", boxes[0]),
        (draw_overlay(image, mixed), "orange", boxes[1]),
        (draw_overlay(image, mixed), "elephant", boxes[2]),
        (draw_overlay(image, alone), "elephant", boxes[2]),
    ):
        assert abs(color_at(picture, (x0 + x1) // 2, y1 - 1) - assign_colors(names)[name]).max() <= 2
    first, second = (color_at(draw_overlay(image, mixed), x, 200) for x in (200, 400))
    assert abs(first - second).sum() > 30  # two of one class side by side: another shade


GROUNDS: list[Color] = [*make_palette(12), (0, 0, 0), (255, 255, 255), (128, 128, 128)]


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("class_id", [0, 1, 2, 5])
def test_a_contour_is_seen_on_every_ground_its_own_color_among_them(ground: Color, class_id: int) -> None:
    masks = np.zeros((1, 600, 800), bool)
    masks[0, 200:400, 300:500] = True
    found = Detections.from_masks(masks, [class_id], [0.9], [f"thing {k}" for k in range(12)])
    drawn = np.asarray(draw_overlay(Image(np.full((600, 800, 3), ground, np.uint8)), found), int)
    for across in (drawn[300, 280:320], drawn[300, 480:520], drawn[380:420, 400]):
        gray = across.mean(1)
        assert gray.min() < 80 and gray.max() > 195  # black and white lie side by side
        assert abs(gray - np.mean(ground)).max() > 90  # and one of them stands out
        assert abs(across - make_palette(12)[class_id]).max(1).min() <= 2  # beside the color of the class


def test_a_small_thing_has_its_rim_too() -> None:
    drawn = np.asarray(draw_overlay(*scene((600, 800), [(400, 300, 404, 304)], gray=100)), int)[290:314, 390:414].mean(2)
    assert drawn.max() > 160 and drawn.min() < 60


def test_a_thing_within_another_is_drawn_over_it_and_hides_no_more_of_the_picture() -> None:
    image, found = scene((600, 800), [(100, 100, 700, 500), (300, 200, 500, 400)])  # the large one is the stronger
    both, large = draw_overlay(image, found), draw_overlay(image, found[:1])
    assert abs(color_at(both, 400, 300) - color_at(large, 400, 300)).max() > 15  # another shade
    assert abs(color_at(both, 400, 399) - make_palette(1)[0]).max() <= 2  # its own contour
    stripes = np.where(np.arange(800) // 4 % 2, 150, 100).astype(np.uint8)
    striped = Image(np.broadcast_to(stripes[None, :, None], (600, 800, 3)).copy())
    inside = np.asarray(draw_overlay(striped, found), int)[300, 380:420]
    assert np.ptp(inside, axis=0).max() > 15


def spied(monkeypatch: pytest.MonkeyPatch) -> list[Tagging]:
    """The taggings that are drawn from here on."""
    made: list[Tagging] = []
    draw = Tagging.draw

    def remembered(self: Tagging, canvas: PIL.Image.Image) -> None:
        made.append(self)
        draw(self, canvas)

    monkeypatch.setattr(Tagging, "draw", remembered)
    return made


def test_what_is_not_drawn_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made = spied(monkeypatch)
    boxes = [(x, y, x + 12, y + 12) for x in range(20, 780, 100) for y in range(30, 590, 70)][:62]
    image, found = scene((600, 800), boxes)
    draw_overlay(image, found)
    draw_overlay(image, found, limit=0)
    draw_overlay(image, found, min_score=float(found.scores[49]))
    assert [tagging.notes for tagging in made] == [["and 12 more"], ["and 62 more"], []]


def test_tags_without_room_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = spied(monkeypatch)
    image, found = scene((520, 520), [(x, y, x + 38, y + 38) for x in range(0, 520, 40) for y in range(0, 520, 40)])
    draw_overlay(image, found, limit=169)
    (note,) = made[0].notes
    assert note == f"{169 - len(made[0].texts)} without a tag"


def test_each_class_has_a_tag_before_any_has_two(monkeypatch: pytest.MonkeyPatch) -> None:
    made = spied(monkeypatch)
    image, found = scene((520, 600), [(x, y, x + 40, y + 40) for x in range(0, 500, 42) for y in range(0, 500, 42)])
    names = ("cow", "owl")
    class_ids = [0] * (len(found) - 1) + [1]
    draw_overlay(image, Detections.from_masks(found.masks, class_ids, found.scores, names), limit=len(found))
    assert any(text.startswith("owl") for text in made[0].texts) and len(made[0].texts) < len(found)


def test_tags_keep_clear_of_small_things_and_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made = spied(monkeypatch)
    boxes = [(40, 40, 760, 560), *((x, y, x + 15, y + 15) for x in range(90, 740, 110) for y in range(90, 540, 75))]
    draw_overlay(*scene((600, 800), boxes))
    places = made[0].places
    assert len(places) == len(boxes)
    painted = np.zeros((600, 800), int)
    for x0, y0, x1, y1 in places:
        painted[y0:y1, x0:x1] += 1
    assert painted.max() == 1
    assert not any(painted[y0:y1, x0:x1].any() for x0, y0, x1, y1 in boxes[1:])


def test_a_small_picture_is_enlarged_by_a_whole_factor() -> None:
    assert draw_overlay(*scene((48, 64), [(10, 10, 30, 30)])).size == (512, 384)
    assert draw_overlay(*scene((400, 500), [(10, 10, 30, 30)])).size == (1000, 800)
    assert draw_overlay(*scene((400, 512), [(10, 10, 30, 30)])).size == (512, 400)


def test_a_lone_pixel_is_still_seen_in_an_enlarged_picture() -> None:
    image = draw_overlay(*scene((64, 64), [(40, 40, 41, 41)]))
    assert abs(color_at(image, 40 * 8 + 4, 40 * 8 + 4) - 128).max() > 30


@pytest.mark.parametrize("size", [(1, 1), (3, 20000), (20000, 3), (40, 3000), (3000, 40)])
def test_odd_shapes_can_be_drawn(size: tuple[int, int]) -> None:
    image = draw_overlay(*scene(size, [(0, 0, size[1], size[0])]))
    assert max(image.size) >= 512


def test_weak_and_surplus_detections_are_left_out() -> None:
    image, found = scene((600, 800), [(50, 50, 200, 200), (500, 300, 700, 500)])
    for picture in (draw_overlay(image, found, min_score=0.7), draw_overlay(image, found, limit=1)):
        assert (color_at(picture, 120, 120) != 128).any()
        assert (color_at(picture, 600, 400) == 128).all()


def test_nothing_found_leaves_the_picture() -> None:
    image = Image(np.full((600, 512, 3), 9, np.uint8))
    assert (np.asarray(draw_overlay(image, Detections.none((600, 512), ["dog"]))) == image.pixels).all()


def test_long_and_foreign_names_are_drawn() -> None:
    masks = np.ones((2, 100, 100), bool)
    found = Detections.from_masks(masks, [0, 1], [0.5, 0.4], ["very " * 39 + "long", "橙子 🍊 \ud800\x00\u202e"])
    assert draw_overlay(Image(np.zeros((100, 100, 3), np.uint8)), found).size == (600, 600)


def test_detections_of_another_picture_are_refused() -> None:
    image, _ = scene((600, 800), [])
    with pytest.raises(InputError, match=r"\(600, 800\).*\(800, 600\)"):
        draw_overlay(image, Detections.none((800, 600), ["dog"]))


def test_three_hundred_names() -> None:
    boxes = [(x, y, x + 30, y + 30) for x in range(5, 795, 40) for y in range(5, 595, 40)]
    image, found = scene((600, 800), boxes)
    names = tuple(f"name {k}" for k in range(300))
    many = Detections.from_masks(found.masks, list(range(300)), found.scores, names)
    picture = draw_overlay(image, many, limit=300)
    for k in (0, 17, 299):
        _, y0, x1, y1 = boxes[k]
        edge = np.asarray(picture, int)[y0:y1, x1 - 2 : x1].reshape(-1, 3)
        assert abs(edge - make_palette(300)[k]).max(1).min() <= 2
