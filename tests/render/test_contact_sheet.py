import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.render.contact_sheet import Thumbnail, draw_contact_sheet
from annofree.structures import Image

RED, GREEN = (200, 0, 0), (0, 200, 0)


def image(height: int, width: int, color: tuple[int, int, int]) -> Image:
    return Image(np.full((height, width, 3), color, np.uint8))


def at(sheet: PIL.Image.Image, x: int, y: int) -> tuple[int, ...]:
    return tuple(np.asarray(sheet)[y, x].tolist())


def ink(sheet: PIL.Image.Image, box: tuple[int, int, int, int]) -> int:
    return int((np.asarray(sheet.crop(box)) < 100).all(2).sum())


def test_pictures_are_whole_and_in_rows() -> None:
    thumbnails = [
        Thumbnail(image(50, 100, RED), "0.5"),
        Thumbnail(image(3000, 1000, GREEN), "0.4"),
        Thumbnail(image(1, 400, RED), ""),
    ]
    sheet = draw_contact_sheet("dog", thumbnails, columns=2, side=100)
    assert sheet.size == (230, 56 + 2 * 128)
    # the wide one fills its square from left to right, in the middle
    assert [at(sheet, x, 105) for x in (10, 109)] == [RED, RED]
    assert RED not in (at(sheet, 60, 75), at(sheet, 60, 135))
    # the tall one fills its own from top to bottom
    assert [at(sheet, 169, y) for y in (56, 155)] == [GREEN, GREEN]
    assert GREEN not in (at(sheet, 125, 105), at(sheet, 215, 105))
    # the third is below the first and still there
    assert at(sheet, 60, 56 + 128 + 49) == RED
    assert at(sheet, 180, 56 + 128 + 50) == (255, 255, 255)


def test_captions_are_under_their_pictures() -> None:
    sheet = draw_contact_sheet("", [Thumbnail(None, "0.51"), Thumbnail(None, "")], columns=2, side=100)
    assert ink(sheet, (0, 0, 230, 50)) == 0
    assert ink(sheet, (10, 157, 110, 184)) > 10
    assert ink(sheet, (120, 157, 220, 184)) == 0
    assert ink(draw_contact_sheet("dog", []), (0, 0, 230, 50)) > 10


def test_a_picture_that_is_not_there_is_crossed() -> None:
    sheet = draw_contact_sheet("dog", [Thumbnail(None, "")], columns=1, side=101)
    crossed = [at(sheet, x, y) for x, y in ((10, 56), (60, 106), (110, 156), (110, 56), (10, 156))]
    assert len(set(crossed)) == 1
    assert at(sheet, 60, 70) != crossed[0]


def test_long_text_is_cut() -> None:
    long, longer = (draw_contact_sheet("wide " * n, [Thumbnail(None, "wide " * n)], columns=2, side=60) for n in (100, 200))
    assert long.tobytes() == longer.tobytes()
    assert ink(long, (75, 116, 140, 144)) == 0  # nothing runs into the next column


def test_a_color_stands_before_the_title() -> None:
    sheet = draw_contact_sheet("dog", [], color=GREEN)
    assert at(sheet, 17, 28) == GREEN and ink(sheet, (34, 0, 230, 50)) > 10
    assert at(draw_contact_sheet("dog", []), 17, 28) != GREEN


def test_the_same_input_gives_the_same_sheet() -> None:
    thumbnails = [Thumbnail(image(30, 70, RED), "0.5")] * 3
    assert draw_contact_sheet("a", thumbnails).tobytes() == draw_contact_sheet("a", thumbnails).tobytes()


@pytest.mark.parametrize(("columns", "side"), [(0, 160), (6, 20)])
def test_a_sheet_that_cannot_be_is_refused(columns: int, side: int) -> None:
    with pytest.raises(InputError, match="at least one column"):
        draw_contact_sheet("dog", [], columns=columns, side=side)
