"""What a notebook shows of the nouns: the same images as files have, gray grounds without an image, escaped names."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from annofree.errors import InputError
from annofree.render.label_overlay import draw_label_map
from annofree.render.overlay import draw_overlay
from annofree.structures import Detections, Image, LabelMap


def found(count: int, size: tuple[int, int] = (60, 80), name: str = "dog") -> Detections:
    masks = np.zeros((count, *size), bool)
    for k, mask in enumerate(masks):
        mask[10:40, 10 + k : 30 + k] = True
    return Detections.from_masks(masks, [0] * count, np.linspace(0.9, 0.5, count, dtype=np.float32), [name])


MAP = LabelMap(np.repeat([[0, 1]], 60, 0).repeat(40, 1).astype(np.int32), ("background", "dog"), 0)


def test_a_noun_draws_itself_over_its_image() -> None:
    image = Image(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    assert found(2).draw(image) == found(2).draw(image.pixels) == draw_overlay(image, found(2))
    assert found(2).draw(image, min_score=0.7) == draw_overlay(image, found(2)[0])
    assert found(2).draw(image, limit=1) == draw_overlay(image, found(2), limit=1)
    assert MAP.draw(image) == draw_label_map(image, MAP)
    for noun in (found(1), MAP):
        with pytest.raises(InputError, match=r"\(60, 60\).*\(60, 80\)"):
            noun.draw(image.pixels[:, :60].copy())


def test_without_an_image_the_ground_is_gray() -> None:
    gray = Image(np.full((60, 80, 3), 112, np.uint8))
    assert found(2).draw() == draw_overlay(gray, found(2)) and MAP.draw() == draw_label_map(gray, MAP)


@pytest.mark.parametrize("noun", [found(2), found(0), MAP, found(1, (1000, 3000)), found(1, (3000, 50))])
def test_a_png_is_of_800_px_at_most(noun: Detections | LabelMap) -> None:
    png = noun._repr_png_()
    with PIL.Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG" and 500 < max(image.size) <= 800


def test_a_page_has_a_line_a_picture_and_the_ten_strongest() -> None:
    page = found(12)._repr_html_()
    assert page.startswith("<p>Detections(12 of 80x60: 12 dog; scores 0.50–0.90)</p><img")
    assert page.count("<tr>") == 11 and "<td>dog</td><td>0.900</td><td>10 10 30 40</td><td>600</td>" in page
    assert page.endswith("<p>and 2 more</p>") and "more" not in found(10)._repr_html_()
    assert found(12)[::-1]._repr_html_().index("0.900") < found(12)[::-1]._repr_html_().index("0.864")


def test_names_are_escaped() -> None:
    page = found(1, name="<script>&")._repr_html_()
    assert "<script>" not in page and page.count("&lt;script&gt;&amp;") == 2


def test_a_noun_needs_no_room_above_until_it_is_drawn() -> None:
    code = (
        "import sys; from annofree.structures import Detections, LabelMap;"
        "rooms = [m.split('.')[1] for m in sys.modules if m.startswith('annofree.')];"
        "above = set(rooms) - {'errors', 'ops', 'structures'};"
        "assert not above, above; assert 'supervision' not in sys.modules and 'pandas' not in sys.modules;"
        "Detections.none((4, 4), ['dog']).draw(); assert 'annofree.render.notebook' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
