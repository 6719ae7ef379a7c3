"""Choose what a mask of SAM's everything mode must reach, on emoji scenes that are neither those of training nor of validation.

    uv run python benchmarks/choose_sureness.py --scenes 8 --seed 515 --json sureness.json

Draws scenes of each split, draws all masks of a grid once, and scores each choice of what competes and how stable it must be as
class-agnostic masks by SAM's own guess: AP, AR100, and how many masks an image has.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any, get_args

from annofree.datasets.emoji.files import write_scenes
from annofree.datasets.emoji.world import Split, World
from annofree.evaluation.metrics.instance import evaluate_instances
from annofree.evaluation.predict_instances import read_truth_images
from annofree.formats.coco import CocoFile
from annofree.methods.class_agnostic.sam_everything import SamEverything, SamEverythingSettings
from annofree.methods.components import Models
from annofree.protocols import ClassAgnosticSegmenter, Keep, Sureness
from annofree.testing.timing import print_json

SPLITS: tuple[Split, ...] = ("plain", "touching", "cluttered")


def draw_scenes(folder: Path, count: int, seed: int) -> CocoFile:
    """Scenes of all splits in a folder, drawn once."""
    if (folder / "truth.json").is_file():
        return CocoFile.read(folder / "truth.json")
    drawn = World(held_out=0.2)
    named = [
        (f"{split}-{k:02}", scene) for split in SPLITS for k, scene in enumerate(drawn.draw_scenes(count, seed, split, 256))
    ]
    return write_scenes(named, folder, f"tuning scenes of seed {seed}")


def measure_choice(truth: CocoFile, images: Path, method: ClassAgnosticSegmenter) -> dict[str, Any]:
    """AP and AR100 without names, in percent, and masks an image."""
    found = CocoFile(images=truth.images, categories=truth.categories)
    ids, count = [truth.categories[0]["id"]], 0
    for image_id, image in read_truth_images(truth, images):
        answer = method.discover([image])[0]
        count += len(answer)
        found.add_annotations(answer.to_coco(image_id, ids))
    scores = evaluate_instances(truth, found, view="class-agnostic")
    percent = {name: round(100 * (value or 0), 1) for name, value in (("AP", scores.ap), ("AR100", scores.ar))}
    return {**percent, "masks an image": round(count / len(truth.images), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8, help="of a split")
    parser.add_argument("--seed", type=int, default=515)
    parser.add_argument("--points", type=int, nargs="+", default=(16,), help="a side")
    parser.add_argument("--keep", nargs="+", default=("all", "best"), choices=get_args(Keep))
    parser.add_argument("--stability", type=float, nargs="+", default=(0.3, 0.5, 0.7))
    parser.add_argument("--nms", type=float, nargs="+", default=(0.7,))
    parser.add_argument("--folder", type=Path, default=Path("out/tuning-sureness"), help="where scenes are drawn, or were")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    truth, sam = draw_scenes(asked.folder, asked.scenes, asked.seed), Models("tiny", "cpu", objectness="none").sam
    rows = []
    for points, keep, stability, nms in product(asked.points, asked.keep, asked.stability, asked.nms):
        settings = SamEverythingSettings(points, sure=Sureness(keep, 0, stability), nms=nms)
        row = {"points": points, "keep": keep, "stability": stability, "nms": nms}
        rows.append(row | measure_choice(truth, asked.folder / "images", SamEverything(sam, settings)))
        print(rows[-1], flush=True)
    print_json(rows, asked.json)


if __name__ == "__main__":
    main()
