"""Fill the numbers of docs/methods/zutis.md, and draw its curves, from what `annofree reproduce` left.

uv run annofree reproduce recipes/emoji/zutis.toml --out reproduced/zutis
uv run python docs/make_zutis.py reproduced/zutis
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from pages import INSTANCES, MADE, fill, table, text

from annofree.io.atomic import write_atomic
from annofree.retrieval.archive import Archive
from annofree.retrieval.archive_sheets import write_sheets
from annofree.training.engine.curves import plot_log

HERE = Path(__file__).parent
PAGE, CURVES, SAMPLES = (
    HERE / "methods" / "zutis.md",
    HERE / "methods" / "zutis-curves.png",
    HERE / "methods" / "zutis-archive.jpg",
)
BEGIN = "<!-- numbers: docs/make_zutis.py -->"
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
            table(figures, INSTANCES),
            "Label maps:",
            table(figures, PIXELS),
        ]
    )


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


def main() -> None:
    """Write the page and its images."""
    parser = argparse.ArgumentParser(description="Fill docs/methods/zutis.md from a reproduced recipe.")
    parser.add_argument("made", type=Path, help="the folder that annofree reproduce wrote")
    parser.add_argument("--names", nargs="*", default=["elephant", "pizza", "cup"], help="whose archives are shown")
    asked = parser.parse_args()
    record = json.loads((asked.made / "figures.json").read_text(encoding="utf-8"))
    fill(PAGE, BEGIN, numbers(record))
    plot_log(asked.made / "tiny-zutis" / "log.jsonl", CURVES)
    sheet = archive_picture(asked.made / "archive", asked.names)
    write_atomic(SAMPLES, lambda temporary: sheet.save(temporary, format="JPEG", quality=85))
    print(f"{PAGE}, {CURVES.name}, {SAMPLES.name}")


if __name__ == "__main__":
    main()
