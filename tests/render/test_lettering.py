import pytest
from PIL import ImageFont

from annofree.render.lettering import drawable, extent, font_of, shortened


def test_a_name_is_one_line_of_a_few_characters() -> None:
    assert shortened(" traffic \n light ") == "traffic light"
    long = shortened("very " * 40)
    assert len(long) == 28 and long.endswith("…")
    assert shortened("abcdef", 4) == "abc…"


def test_accents_that_the_font_lacks_are_left_out_and_other_signs_are_kept() -> None:
    assert drawable("Ångström, crème brûlée") == "Angstrom, creme brulee"
    assert drawable("橙子 🍊") == "橙子 🍊"
    assert drawable("plain ascii") == "plain ascii"


@pytest.mark.parametrize("name", ["", "\ud800", "\x00", "\u202eabc", "عربي", "e\u0301\u0301", "\U0010ffff", "👩‍🚀"])
def test_any_name_can_be_measured(name: str) -> None:
    width, height = extent(shortened(name), font_of(13), 13)
    assert width >= 4 and height > 13


def test_a_font_of_each_size() -> None:
    font = font_of(20)
    assert isinstance(font, ImageFont.FreeTypeFont) and font.size == 20
