import pytest
from PIL import ImageFont

from annofree.render.lettering import load_font, measure_plate, shorten_name, strip_accents


def test_a_name_is_one_line_of_a_few_characters() -> None:
    assert shorten_name(" traffic \n light ") == "traffic light"
    long = shorten_name("very " * 40)
    assert len(long) == 28 and long.endswith("…")
    assert shorten_name("abcdef", 4) == "abc…"


def test_accents_that_the_font_lacks_are_left_out_and_other_signs_are_kept() -> None:
    assert strip_accents("Ångström, crème brûlée") == "Angstrom, creme brulee"
    assert strip_accents("橙子 🍊") == "橙子 🍊"
    assert strip_accents("plain ascii") == "plain ascii"


@pytest.mark.parametrize("name", ["", "\ud800", "\x00", "\u202eabc", "عربي", "e\u0301\u0301", "\U0010ffff", "👩‍🚀"])
def test_any_name_can_be_measured(name: str) -> None:
    width, height = measure_plate(shorten_name(name), load_font(13), 13)
    assert width >= 4 and height > 13


def test_a_font_of_each_size() -> None:
    font = load_font(20)
    assert isinstance(font, ImageFont.FreeTypeFont) and font.size == 20
