"""Draw docs/answer.png, what goes in beside what comes out, and say in README.md how much of the answer is right.

uv run python docs/answer_figure.py              # gives README's first command, some CPU minutes
uv run python docs/answer_figure.py --run OUT    # from what that command left in OUT

The answer itself is kept as docs/answer.json, which a test holds README and the models against.
"""

from __future__ import annotations

import argparse
import re
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import PIL.Image
from pages import fill
from PIL import ImageDraw, ImageFont

from annofree.apps.cli import app
from annofree.errors import InputError
from annofree.evaluation.metrics.answer import AnswerScores, evaluate_answer
from annofree.formats.coco import CocoFile
from annofree.io.atomic import write_atomic

ROOT = Path(__file__).parents[1]
README, TRUTH, SCENES = ROOT / "README.md", ROOT / "examples" / "scenes-truth.json", ROOT / "examples" / "scenes"
PICTURE, ANSWER = ROOT / "docs" / "answer.png", ROOT / "docs" / "answer.json"
BEGIN = "<!-- the answer: docs/answer_figure.py -->"
SHOWN = ("orange-and-elephants.jpg", "oranges.jpg", "market.jpg", "zoo.jpg")
"""Scenes in the image: right answers, a thing in pieces, and names that are asked for in vain."""

ALT = "Four sample scenes, and beside each what was found in it"

_SIDE, _NEAR, _FAR, _HEAD, _FONT = 400, 8, 36, 44, 24  # px
_INK = (27, 31, 36)


def command() -> list[str]:
    """README's first command, without its program and its --out."""
    found = re.search(r"uv run annofree (segment .*?)(?: --out \S+)?\n", README.read_text(encoding="utf-8"))
    if found is None:
        raise InputError(f"expected a command 'uv run annofree segment ...' in {README}")
    return shlex.split(found[1])


def answered(run: Path) -> CocoFile:
    """The answer of a run, without its drawings."""
    file = CocoFile.read(run / "annotations.json")
    kept = ("id", "file_name", "height", "width")
    return replace(file, images=[{key: image[key] for key in kept} for image in file.images])


def counted(answer: CocoFile, scene: str | None = None) -> AnswerScores:
    """How much of an answer is right, of the things that were asked for, in all scenes or in one."""
    truth = CocoFile.read(TRUTH)
    asked = {category["name"] for category in answer.categories}
    truth.categories = [category for category in truth.categories if category["name"] in asked]
    ids = {category["id"] for category in truth.categories}
    truth.annotations = [row for row in truth.annotations if row["category_id"] in ids]
    return evaluate_answer(truth, answer, image_ids=[i["id"] for i in truth.images if scene in (None, i["file_name"])])


def line(answer: CocoFile) -> str:
    """The line of README under the image."""
    scores, asked = counted(answer), " and ".join(f"{category['name']}s" for category in answer.categories)
    return (
        f"The command below asks all {len(answer.images)} sample scenes for {asked}: **{scores.n_truth} things, "
        f"{scores.n_right} found, {scores.n_answers - scores.n_right} wrong** (mask IoU 0.5, tier S2)."
    )


def pairs(names: Sequence[str], run: Path) -> list[tuple[PIL.Image.Image, PIL.Image.Image]]:
    """Each scene, and what the run drew over it."""
    drawn = {image["file_name"]: run / image["overlay"] for image in CocoFile.read(run / "annotations.json").images}
    return [(_square(SCENES / name), _square(drawn[name])) for name in names]


def _square(path: Path) -> PIL.Image.Image:
    with PIL.Image.open(path) as opened:
        return opened.convert("RGB").resize((_SIDE, _SIDE), PIL.Image.Resampling.LANCZOS)


def sheet(scenes: Sequence[tuple[PIL.Image.Image, PIL.Image.Image]], names: Sequence[str]) -> PIL.Image.Image:
    """Lay scenes out two in a row, what goes in beside what comes out."""
    font, rows = ImageFont.load_default(_FONT), -(-len(scenes) // 2)
    wide = 2 * _SIDE + _NEAR
    page = PIL.Image.new("RGB", (2 * wide + _FAR, rows * (_SIDE + _NEAR) + _HEAD), "white")
    titles = f"in: an image, {', '.join(names)}", "out: masks, boxes, names, scores"
    for column in range(4):
        x = column // 2 * (wide + _FAR) + column % 2 * (_SIDE + _NEAR)
        ImageDraw.Draw(page).text((x, _HEAD / 2), titles[column % 2], fill=_INK, font=font, anchor="lm")
        for row, scene in enumerate(scenes[column // 2 :: 2]):
            page.paste(scene[column % 2], (x, _HEAD + row * (_SIDE + _NEAR)))
    return page


def main() -> None:
    """Draw the image and write the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="the folder that README's first command left")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = asked.run or Path(temporary) / "out"
        if asked.run is None:
            app([*command(), "--out", str(run)], standalone_mode=False)
        answer = answered(run)
        image = sheet(pairs(SHOWN, run), [category["name"] for category in answer.categories]).quantize(
            255, dither=PIL.Image.Dither.NONE
        )
    answer.write(ANSWER)
    write_atomic(PICTURE, lambda place: image.save(place, "PNG", optimize=True))
    fill(README, BEGIN, f"![{ALT}]({PICTURE.relative_to(ROOT)})\n\n{line(answer)}")


if __name__ == "__main__":
    main()
