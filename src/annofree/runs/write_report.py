"""HTML report of a run: works offline, and without scripts except for its filters.

OUT
├── index.html
├── images/   shown images in two sizes, and their label maps
└── sheets/   crops of the best instances per class
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from annofree.formats.annotations import Annotation, read_annotation
from annofree.io.atomic import name_errors
from annofree.io.coco_stream import stream_coco
from annofree.render.html import assign_class_colors
from annofree.render.page_folder import open_page_folder
from annofree.render.page_images import ImageFiles, Opener, ShownImage, link_to, open_overlay
from annofree.render.page_shapes import MOST_SHAPES, limit_points
from annofree.runs.report_page import GENERATOR, PageParts, Row, choose_rows, render_page
from annofree.runs.report_sheets import SheetFiles
from annofree.runs.store.finals import require_intact
from annofree.runs.store.maps import list_map_names, read_labels, read_panoptic
from annofree.runs.store.summary import RunSummary

__all__ = ["Opener", "write_report"]


def write_report(
    run: Path, out: Path, *, shown: int = 12, crops: int = 24, sheets: int = 200, image: Opener | None = None
) -> Path:
    """Write the report of a run's folder to ``out`` and return its page.

    A run of up to three times ``shown`` images is shown whole; else the ``shown`` most confident, least confident and emptiest,
    each image once.  ``crops`` instances are on the sheet of a class, for the ``sheets`` classes that have the most.  Images
    are what ``image`` opens; without it, or where it raises InputError, the run's overlays.  An earlier report is replaced.
    Raises InputError if ``run`` is no run, and if ``out`` holds something else.
    """
    summary = RunSummary.read(run, best=crops)
    with open_page_folder(out, GENERATOR, ("images", "pictures", "sheets")) as folder:
        rows = choose_rows(summary, shown)
        _require_intact(run, summary, rows)
        made = SheetFiles(run, folder, summary, image).write_sheets(sheets)
        names = list(dict.fromkeys([*(c.name for c in summary.classes.values()), *list_map_names(run), *summary.shares]))
        files = ImageFiles(folder, image, assign_class_colors(names))
        drawn = _drawn(run, out, summary, rows, files)
        text = render_page(summary, PageParts(names, rows, drawn, made))
        with name_errors(folder / "index.html"):
            (folder / "index.html").write_text(text, encoding="utf-8", errors="replace")
    return out / "index.html"


def _require_intact(run: Path, summary: RunSummary, rows: Sequence[Row]) -> None:
    """Refuse overlays and maps that would be shown and are not as the run wrote them."""
    best = {crop.image_id for counted in summary.classes.values() for crop in counted.best}
    shown = [summary.pictures[id_] for id_ in best.union(*(row.ids for row in rows))]
    require_intact(run, {place for image in shown for place in (image.overlay, image.labels, image.panoptic)})


def _drawn(run: Path, out: Path, summary: RunSummary, rows: Sequence[Row], files: ImageFiles) -> dict[int, ShownImage]:
    """Write the files of every image that is shown, by its id."""
    chosen = {id_: summary.pictures[id_] for row in rows for id_ in row.ids}
    things = _things(run, summary, list(chosen))
    files.points = limit_points(sum(min(MOST_SHAPES, len(found)) for found in things.values()))
    labels, panoptic = read_labels(run, chosen.values()), read_panoptic(run, chosen.values())
    drawn = {}
    for id_, counted in chosen.items():
        maps = {"labels": labels.get(counted.labels), "panoptic": panoptic.get(counted.panoptic)}
        drawn[id_] = files.show(
            counted.file_name,
            counted.size,
            things[id_],
            maps={kind: read for kind, read in maps.items() if read is not None},
            overlay=partial(open_overlay, run, counted.overlay),
            link=link_to(run / counted.overlay, out, run),
        )
    return drawn


def _things(run: Path, summary: RunSummary, ids: Sequence[int]) -> dict[int, list[Annotation]]:
    """The instances of some images, read row by row."""
    found: dict[int, list[Annotation]] = {id_: [] for id_ in ids}
    names: dict[Any, str] = {id_: counted.name for id_, counted in summary.classes.items()}
    if summary.has_instances and ids:
        for kind, row in stream_coco(run / "annotations.json"):
            if kind == "annotations" and row["image_id"] in found:
                found[row["image_id"]].append(read_annotation(row, names, summary.pictures[row["image_id"]].size))
    return found
