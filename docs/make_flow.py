"""Draw docs/how-it-flows.png: one image through every step of Zip.

uv run python docs/make_flow.py [--picture examples/scenes/harbour.jpg] [--name boat]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from annofree.io.images import read_image
from annofree.methods.build import load
from annofree.methods.explain.explain import explain_method
from annofree.structures import Image, Vocabulary

_SIDE = 320
_PANELS = (
    ("The image", 0, "the image"),
    ("Clue of each name", 0, "clue: how much '{name}'"),
    ("Clusters", 0, "K-means on conv4_x"),
    ("Edges", 1, "fragments, without a name"),
    ("Fragments kept and dropped", 0, "kept: active and compact"),
    ("Coarse boxes", 0, "joined: coarse boxes"),
    ("SAM's first masks", 0, "SAM, from the box"),
    ("SAM's refined masks", 0, "SAM, from the refined box"),
)
"""Of each panel the step of ``annofree explain``, which of its drawings, and the title."""


def panels(image: Image, name: str) -> list[tuple[str, PILImage.Image]]:
    """Every step of Zip on one image, each with its title."""
    found = explain_method(load("zip", models="tiny", device="cpu"), image, Vocabulary.of([name]), "instance")
    drawings = {step.title: step.drawings for step in found.steps}
    return [(title.format(name=name), drawings[step][k].picture) for step, k, title in _PANELS]


def sheet(steps: list[tuple[str, PILImage.Image]], columns: int = 4) -> PILImage.Image:
    """Lay the steps out in rows, with their titles."""
    font, rows = ImageFont.load_default(17), -(-len(steps) // columns)
    page = PILImage.new("RGB", (columns * (_SIDE + 12) + 12, rows * (_SIDE + 40) + 12), "white")
    for i, (title, picture) in enumerate(steps):
        x, y = 12 + i % columns * (_SIDE + 12), 12 + i // columns * (_SIDE + 40)
        ImageDraw.Draw(page).text((x, y), f"{i + 1}. {title}", fill="black", font=font)
        large = picture.resize((_SIDE, _SIDE), PILImage.Resampling.LANCZOS)
        page.paste(large, (x, y + 24))
    return page


def main() -> None:
    """Draw the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("examples/scenes/harbour.jpg"))
    parser.add_argument("--name", default="boat")
    parser.add_argument("--out", type=Path, default=Path("docs/how-it-flows.png"))
    asked = parser.parse_args()
    sheet(panels(read_image(asked.picture), asked.name)).quantize(192).save(asked.out, optimize=True)


if __name__ == "__main__":
    main()
