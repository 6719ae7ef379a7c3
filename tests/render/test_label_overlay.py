import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.formats.label_maps import assign_label_colors
from annofree.ops.palette import assign_colors
from annofree.render.label_overlay import draw_label_map
from annofree.structures import VOID, Image, LabelMap

GRAY = 128
CAT = assign_label_colors(("background", "dog", "cat"), 0)[2].astype(int)


def picture(size: tuple[int, int]) -> Image:
    return Image(np.full((*size, 3), GRAY, np.uint8))


def halves(size: tuple[int, int], left: int, right: int, names: tuple[str, ...], background: int | None = None) -> LabelMap:
    labels = np.full(size, left, np.int32)
    labels[:, size[1] // 2 :] = right
    return LabelMap(labels, names, background)


def at(sheet: PIL.Image.Image, x: int, y: int) -> list[int]:
    color: list[int] = np.asarray(sheet)[y, x].tolist()
    return color


def colors_of(sheet: PIL.Image.Image) -> set[tuple[int, ...]]:
    return {tuple(c) for c in np.unique(np.asarray(sheet).reshape(-1, 3), axis=0).tolist()}


def test_regions_have_the_colour_of_their_name_and_the_background_is_left_alone() -> None:
    sheet = draw_label_map(picture((600, 800)), halves((600, 800), 0, 2, ("background", "dog", "cat"), 0))
    assert at(sheet, 100, 300) == [GRAY] * 3
    assert np.abs(np.array(at(sheet, 700, 300)) - (GRAY + CAT) / 2).max() <= 2


def test_an_edge_is_white_between_two_lines() -> None:
    """The color of the region inside, that of the other one or the background's black outside."""
    for background, other in ((0, (0, 0, 0)), (None, assign_colors(["background", "dog"])["background"])):
        names = ("background", "dog", "cat")
        labels = halves((600, 800), 0, 2, names, background)
        ground = Image(np.broadcast_to(CAT.astype(np.uint8), (600, 800, 3)).copy())  # the cat's own color
        sheet = draw_label_map(ground, labels)
        cat = assign_label_colors(names, background)[2].astype(int)
        row = np.asarray(sheet, int)[300, 390:410]
        assert (np.abs(row[9:11] - 255).max(1) <= 20).all()
        assert np.abs(row[11:13] - cat).max() <= 20 and np.abs(row[7:9] - other).max() <= 20


def test_the_legend_shows_the_colours_of_the_names_that_are_there_and_no_others() -> None:
    names = ("dog", "cat", "bird")
    sheet = draw_label_map(picture((600, 800)), halves((600, 800), 0, 2, names))
    legend = colors_of(sheet.crop((0, 600, sheet.width, sheet.height)))
    dog, cat, bird = (tuple(c) for c in assign_label_colors(names).tolist())
    assert dog in legend and bird in legend and cat not in legend


def test_void_is_hatched_and_named() -> None:
    sheet = draw_label_map(picture((600, 800)), halves((600, 800), VOID, 0, ("dog",)))
    region = colors_of(sheet.crop((50, 50, 300, 300)))
    assert (GRAY,) * 3 in region and len(region) == 2
    assert (224, 224, 192) in colors_of(sheet.crop((0, 600, sheet.width, sheet.height)))


def test_the_legend_stands_below_wide_pictures_and_beside_tall_ones() -> None:
    wide = draw_label_map(picture((600, 800)), halves((600, 800), 0, 1, ("dog", "cat")))
    tall = draw_label_map(picture((800, 600)), halves((800, 600), 0, 1, ("dog", "cat")))
    assert wide.width == 800 and wide.height > 600
    assert tall.height == 800 and tall.width > 600


def test_a_small_picture_is_enlarged_by_a_whole_factor() -> None:
    sheet = draw_label_map(picture((60, 100)), halves((60, 100), 0, 1, ("dog", "cat"), 0))
    assert sheet.width == 600 and sheet.height > 360
    assert at(sheet, 296, 100) == [GRAY] * 3 and at(sheet, 303, 100) != [GRAY] * 3


def test_long_lists_end_with_what_is_left_out() -> None:
    labels = np.arange(400, dtype=np.int32).reshape(20, 20)
    names = tuple(f"a rather long name of class number {k}" for k in range(400))
    few, many = (draw_label_map(picture((20, 20)), LabelMap(labels, names), limit=limit) for limit in (5, 60))
    assert few.height < many.height
    assert tuple(assign_label_colors(names)[4].tolist()) in colors_of(few.crop((0, 520, few.width, few.height)))
    assert tuple(assign_label_colors(names)[5].tolist()) not in colors_of(few.crop((0, 520, few.width, few.height)))


@pytest.mark.parametrize("size", [(1, 1), (3, 5000), (5000, 3)])
def test_odd_shapes_can_be_drawn(size: tuple[int, int]) -> None:
    sheet = draw_label_map(picture(size), LabelMap(np.zeros(size, np.int32), ("dog",)))
    assert max(sheet.size) >= 512


def test_only_void_and_only_background() -> None:
    draw_label_map(picture((20, 30)), LabelMap(np.full((20, 30), VOID, np.int32), ("dog",)))
    sheet = draw_label_map(picture((20, 30)), LabelMap(np.zeros((20, 30), np.int32), ("background",), 0))
    assert colors_of(sheet.crop((0, 0, 540, 360))) == {(GRAY,) * 3}


def test_the_same_input_gives_the_same_output_and_is_left_alone() -> None:
    image, labels = picture((60, 80)), halves((60, 80), 0, 1, ("犬", "the cat\nof the neighbours"))
    assert draw_label_map(image, labels) == draw_label_map(image, labels)
    assert (image.pixels == GRAY).all()


def test_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"of size .60, 80."):
        draw_label_map(picture((60, 80)), halves((80, 60), 0, 1, ("dog", "cat")))
