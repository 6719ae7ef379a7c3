"""What formats lose of a ground truth, and how much memory an export takes.

    uv run python benchmarks/formats.py --truth coco_mini/annotations.json --images coco_mini/images
    uv run python benchmarks/formats.py --memory 20000

Round trip: the truth is written in each format, read back, and scored against itself with the COCO protocol (every object
with score 1).  AP is 100 where nothing is lost; the fidelity report says what was.  The class-aware AP of masks is shown, of
boxes for a format without masks.

Memory: runs of a tenth of so many small images and of all of them, written by the project's own writer with five objects an
image, are exported to each format in a process of its own, whose peak resident memory is told.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from annofree.evaluation.metrics.instance import evaluate_instances
from annofree.formats.coco import CocoFile
from annofree.formats.registry import FORMATS, export, read, read_run
from annofree.runs.clock import StageTimer
from annofree.runs.run import finish_run
from annofree.runs.store.chunks import Chunks
from annofree.runs.store.layout import RunFolder
from annofree.runs.store.names import ResultNames
from annofree.structures import Detections
from annofree.testing.timing import print_json

WORLD = Path(__file__).parents[1] / "examples" / "validation"
NAMES = ("dog", "cat", "car", "tree")
STRETCH, OBJECTS, SIDE = 64, 5, 48


# Round trip


def first(truth: CocoFile, count: int | None) -> CocoFile:
    """The first images of a truth, or all."""
    images = truth.images[:count]
    ids = {image["id"] for image in images}
    return CocoFile(images, truth.categories, [row for row in truth.annotations if row["image_id"] in ids], truth.info)


def round_trip(truth: CocoFile, name: str, images: Path, folder: Path) -> dict[str, Any]:
    """Write a truth in a format, read it back, and score it."""
    report = export(truth, name, folder / name)
    back = read(name, folder / name, images)
    rows = [{**row, "score": 1.0, "iscrowd": 0} for row in back.annotations if not row.get("iscrowd")]
    said = CocoFile(back.images, back.categories, rows)
    has_masks = any(row["segmentation"] for row in rows)
    scores = evaluate_instances(truth, said, iou_type="segm" if has_masks else "bbox")
    least = report.mask_iou["min"] if report.mask_iou else None
    return {"ap": scores.ap, "of": "masks" if has_masks else "boxes", "least_mask_iou": least, "losses": report.losses}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The formats, one a line."""
    lines = [f"{'format':15}{'AP':>7}  {'of':6}{'least IoU':>10}  lost"]
    for name, row in rows.items():
        least = "-" if row["least_mask_iou"] is None else f"{row['least_mask_iou']:.3f}"
        ap = "-" if row["ap"] is None else f"{100 * row['ap']:.1f}"
        lines.append(f"{name:15}{ap:>7}  {row['of']:6}{least:>10}  {'; '.join(row['losses']) or 'nothing'}")
    return "\n".join(lines)


# Memory


def made_up_run(out: Path, count: int) -> None:
    """A complete run of small images, as ``annofree segment`` leaves it."""
    ids = [f"{k // 1000:03}/{k:06}.jpg" for k in range(count)]
    folder, shards, names = RunFolder.create(out, NAMES, overlays=False), Chunks(out), ResultNames(ids)
    with shards.hold():
        shards.begin({"asked": {}, "stretch": STRETCH}, ids)
        rng = np.random.default_rng(0)
        for number, start in enumerate(range(0, count, STRETCH)):
            rows = []
            for k in range(start, min(count, start + STRETCH)):
                row = folder.record(names.find_names(ids[k]), (SIDE, SIDE), detections=_things(rng))
                rows.append({"n": k, "id": ids[k], **row})
            about = {"images": len(rows), "failed": 0, "instances": OBJECTS * len(rows), "seconds": {"total": 1.0}}
            shards.close(number, rows, about)
        finish_run(shards, folder, ("instance",), {}, StageTimer())


def _things(rng: np.random.Generator) -> Detections:
    masks = np.zeros((OBJECTS, SIDE, SIDE), bool)
    for mask, (x, y) in zip(masks, rng.integers(0, SIDE - 16, (OBJECTS, 2)), strict=True):
        mask[y : y + 16, x : x + 12] = True
        mask[y + 4 : y + 8, x + 3 : x + 6] = False
    return Detections.from_masks(masks, rng.integers(0, len(NAMES), OBJECTS), rng.random(OBJECTS, np.float32), NAMES)


def exported(run: Path, name: str, out: Path) -> dict[str, float]:
    """Export a run, and say what this process took, in MB and seconds."""
    start = time.perf_counter()
    export(read_run(run / "annotations.json", {}), name, out)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # kB on Linux
    return {"peak_megabytes": round(peak, 1), "seconds": round(time.perf_counter() - start, 1)}


def memory(count: int, names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Peaks for a tenth of the images and for all, each in a fresh process."""
    found: dict[str, Any] = {name: {} for name in names}
    for size in (max(1, count // 10), count):
        run = folder / f"run-{size}"
        made_up_run(run, size)
        for name in names:
            command = [sys.executable, __file__, "--export", name, str(run), str(folder / f"{name}-{size}")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name][str(size)] = json.loads(done.stdout)
            print(f"{name:15}{size:>8} images: {done.stdout.strip()}", file=sys.stderr)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", type=Path, default=WORLD / "truth.json", help="a COCO file")
    parser.add_argument("--images", type=Path, default=WORLD / "images", help="its images")
    parser.add_argument("--formats", nargs="*", default=list(FORMATS), choices=list(FORMATS), metavar="FORMAT")
    parser.add_argument("--limit", type=int, help="take the first N images")
    parser.add_argument("--memory", type=int, metavar="N", help="measure the memory of exports of N images instead")
    parser.add_argument("--export", nargs=3, metavar=("FORMAT", "RUN", "OUT"), help="export once, and say what it took")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", action="store_true", help="a few images, once")
    asked = parser.parse_args(arguments)
    if asked.export:
        name, run, out = asked.export
        print(json.dumps(exported(Path(run), name, Path(out))))
        return
    found: dict[str, Any]
    with tempfile.TemporaryDirectory() as folder:
        if asked.memory:
            found = memory(40 if asked.small else asked.memory, asked.formats, Path(folder))
        else:
            truth = first(CocoFile.read(asked.truth), 9 if asked.small else asked.limit)
            found = {name: round_trip(truth, name, asked.images, Path(folder)) for name in asked.formats}
            print(table(found))
    print_json(found, asked.json)


if __name__ == "__main__":
    main()
