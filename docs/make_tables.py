"""Put what was measured into the tables of zip.md, semantic.md, answers.md, results.md, zutis.md, detectors.md, README.md.

uv run annofree reproduce recipes/emoji/zip.toml --out reproduced/zip
uv run python docs/make_tables.py reproduced/zip --expect

A row of a table is a run of the recipe when it has its name, a column a figure when its heading is known; all other cells stay.
`--expect` writes what was measured into the recipe, in the place of what it expected.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pages import END, round_figure, write_expected

from annofree.io.atomic import write_atomic

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes" / "emoji"
PAGES = {
    "zip": ("methods/zip.md", "results.md"),
    "semantic": ("methods/semantic.md", "results.md"),
    "answers": ("answers.md", "../README.md"),
    "zutis-bundled": ("methods/zutis.md",),
    "reco": ("methods/semantic.md",),
    "open_vocabulary": ("methods/detectors.md",),
}
"""The pages that show runs of a recipe."""
COLUMNS = {
    "AP all, class-agnostic": "all class-agnostic AP",
    "AP, class-agnostic": "all class-agnostic AP",
    "separated, touching": "touching separated",
    "separated, touching, class-agnostic": "touching class-agnostic separated",
    "touching": "touching mIoU",
    "cluttered": "cluttered mIoU",
    "things only": "all mIoU of things",
    "pixel accuracy": "all pixel accuracy",
    **{name: f"all {name}" for name in ("precision", "recall", "F1", "duplicates", "count error", "calibration error")},
    **{
        f"{v} {g}": f"{g} {v}" for v in ("AP", "AP50", "AR100", "F1", "mIoU") for g in ("plain", "touching", "cluttered", "all")
    },
}
"""Headings and the figures that stand below them; others are figures by their own names."""
ROWS = {"**the default**": "consensus: + floor, the answer", "the whole ranking of Zip (`--policy all`)": "zip: the ranking"}
"""Rows that are called otherwise than their runs."""
USUAL = [
    *("plain AP", "all AP", "all AP50", "all AR100", "all class-agnostic AP", "touching separated"),
    *("plain mIoU", "touching mIoU", "cluttered mIoU", "all mIoU"),
]
"""What a recipe expects of a run of which it expected nothing."""


def find_run(label: str, runs: Mapping[str, Any]) -> str | None:
    """The run that a row shows, None where it is none."""
    plain = ROWS.get(label, label.replace(": **the answer**", ", the answer").replace("**", "").replace("¹", ""))
    plain = plain.replace("SAM + CLIP: ", "sam_clip: ")
    plain = re.sub(r"^(Zip|ZUTIS|detector|consensus): ", lambda m: f"{m[1].lower()}: ", plain)
    plain = re.sub(r"^consensus \(.*\)$", "consensus (default)", plain)
    return plain if plain in runs else None


def refresh(page: Path, runs: Mapping[str, Mapping[str, Any]]) -> int:
    """Put the figures of runs into the tables of a page; returns how many rows were found."""
    head: list[str] = []
    found, others, lines = 0, False, page.read_text(encoding="utf-8").split("\n")
    for k, line in enumerate(lines):
        others = line.startswith("<!-- numbers:") or (others and not line.startswith(END))  # what another script fills
        if others or not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        head = head or cells
        run = find_run(cells[0], runs)
        if run is None or cells is head:
            continue
        figures = [COLUMNS.get(title, title) for title in head]
        if not any(figure in runs[run] for figure in figures[1:]):
            continue
        cells = [
            round_figure(f, runs[run][f]) if f in runs[run] and i else cell
            for i, (f, cell) in enumerate(zip(figures, cells, strict=True))
        ]
        lines[k], found = f"| {' | '.join(cells)} |".replace("|  |", "| |"), found + 1
    write_atomic(page, lambda temporary: temporary.write_text("\n".join(lines), encoding="utf-8"))
    return found


def main() -> None:
    """Refresh the pages of the recipes that were measured."""
    parser = argparse.ArgumentParser(description="Put what was measured into tables, row by row.")
    parser.add_argument("folders", type=Path, nargs="+", help="what annofree reproduce wrote, named as the recipe")
    parser.add_argument("--expect", action="store_true", help="write it into the recipes, too")
    asked = parser.parse_args()
    for folder in asked.folders:
        runs = json.loads((folder / "figures.json").read_text(encoding="utf-8"))["figures"]
        for page in PAGES[folder.name]:
            print(page, refresh(HERE / page, runs), "rows")
        if asked.expect:
            write_expected(RECIPES / f"{folder.name}.toml", runs, USUAL, as_told=True)


if __name__ == "__main__":
    main()
