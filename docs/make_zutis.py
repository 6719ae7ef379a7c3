"""Fill the numbers of docs/methods/zutis.md, and draw its curves, from what `annofree reproduce` left.

uv run annofree reproduce recipes/emoji/zutis.toml --out reproduced/zutis
uv run python docs/make_zutis.py reproduced/zutis
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from pages import INSTANCES, MADE, fill, stack_overlays, table, text, write_expected

from annofree.formats.coco import CocoFile
from annofree.io.atomic import write_atomic
from annofree.methods.build import MethodSpec
from annofree.retrieval.archive import Archive
from annofree.retrieval.archive_sheets import write_sheets
from annofree.training.engine.curves import plot_log

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "emoji" / "zutis.toml"
PAGE = HERE / "methods" / "zutis.md"
CURVES, SAMPLES, PIECES = (HERE / "methods" / f"zutis-{name}" for name in ("curves.png", "archive.jpg", "pieces.jpg"))
VALIDATION = HERE.parent / "examples" / "validation"
BEGIN = "<!-- numbers: docs/make_zutis.py -->"
EXPECTED = ("plain AP", "all AP", "all AP50", "all class-agnostic AP", "plain mIoU", "all mIoU")
PIXELS = ("plain mIoU", "touching mIoU", "cluttered mIoU", "all mIoU", "all mIoU of things", "all pixel accuracy")


def numbers(record: Mapping[str, Any]) -> str:
    """Everything that was measured, as Markdown."""
    figures = dict(record["figures"])
    made = figures.pop(MADE)
    stages = ["| stage | |", "|---|---|", *(f"| {k} | {text(v)} |" for k, v in made.items())]
    return "\n\n".join(
        [
            "\n".join(stages),
            "Instances, mask AP:",
            tabulate_seeds(figures, INSTANCES),
            "Label maps:",
            tabulate_seeds(figures, PIXELS),
        ]
    )


def tabulate_seeds(figures: Mapping[str, Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Lay runs out as a table, those that differ by their seed alone in one row: the mean, and the lowest and highest."""
    seeds: dict[str, dict[str, list[float]]] = {}
    for run, values in figures.items():
        row = seeds.setdefault(re.sub(r", seed \d+$", "", run), {})
        for name in (name for name in columns if values.get(name) is not None):
            row.setdefault(name, []).append(values[name])
    return table(seeds, columns, spread)


def spread(values: Sequence[float] | None) -> str:
    """Write a figure, or the mean of several with the lowest and the highest."""
    if values is None or len(values) < 2:
        return text(values[0] if values else None)
    return f"{text(float(np.mean(values)))} ({text(min(values))}–{text(max(values))})"


def archive_picture(folder: Path, names: Sequence[str]) -> PIL.Image.Image:
    """The contact sheets of a few names, one above the other, at half of their size."""
    archive = Archive.read(folder)
    few = Archive(tuple(names), {n: archive.members[n] for n in names}, archive.places, archive.about)
    write_sheets(few, folder / "shown", 12)
    sheets = [np.asarray(PIL.Image.open(path).convert("RGB")) for path in sorted((folder / "shown").glob("*.jpg"))]
    width = max(s.shape[1] for s in sheets)
    whole = np.concatenate([np.pad(s, ((0, 0), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets])
    image = PIL.Image.fromarray(whole)
    return image.resize((image.width // 2, image.height // 2), PIL.Image.Resampling.LANCZOS)


def pieces_picture(ids: Sequence[int]) -> PIL.Image.Image:
    """The bundled network's answer to validation scenes, half as large as overlays are: above nothing is cut at necks."""
    truth = CocoFile.read(VALIDATION / "truth.json")
    names = [row["name"] for row in truth.categories]
    files = {row["id"]: VALIDATION / "images" / row["file_name"] for row in truth.images}
    methods = [(MethodSpec("zutis", models="tiny", settings=s, policy="answer").build(), 0.0) for s in ({"neck": 0.0}, {})]
    return stack_overlays([files[id_] for id_ in ids], names, methods)


def main() -> None:
    """Write the page and its images."""
    parser = argparse.ArgumentParser(description="Fill docs/methods/zutis.md from a reproduced recipe.")
    parser.add_argument("made", type=Path, help="the folder that annofree reproduce wrote")
    parser.add_argument("--names", nargs="*", default=["elephant", "pizza", "cup"], help="whose archives are shown")
    parser.add_argument("--scenes", nargs="*", type=int, default=[51, 53, 55, 57], help="validation scenes that are shown")
    asked = parser.parse_args()
    record = json.loads((asked.made / "figures.json").read_text(encoding="utf-8"))
    fill(PAGE, BEGIN, numbers(record))
    write_expected(RECIPE, record["figures"], EXPECTED)
    plot_log(asked.made / "seen-0" / "log.jsonl", CURVES)
    sheet = archive_picture(asked.made / "archive", asked.names)
    write_atomic(SAMPLES, lambda temporary: sheet.save(temporary, format="JPEG", quality=85))
    beside = pieces_picture(asked.scenes)
    write_atomic(PIECES, lambda temporary: beside.save(temporary, format="JPEG", quality=88))
    print(f"{PAGE}, {CURVES.name}, {SAMPLES.name}, {PIECES.name}, {RECIPE.name}")


if __name__ == "__main__":
    main()
