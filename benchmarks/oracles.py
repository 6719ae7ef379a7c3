"""The oracle split beside plain scoring, and beside scoring four changed files, on made-up truth of COCO's size.

    uv run python benchmarks/oracles.py --images 5000 --predictions 20

Images of 480 × 640 px with 7 true instances of 80 classes, 2 % of them crowds; of the predictions three fifths are moved copies
of these, a third of them under another name, the rest lies anywhere.  Truth is polygons, predictions are run lengths.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from annofree.evaluation.metrics.instance import evaluate_instances
from annofree.evaluation.metrics.oracles import FIXES, evaluate_oracles, fix_rows
from annofree.evaluation.predict_instances import score_predictions
from annofree.formats.coco import CocoFile
from annofree.ops.rle import compute_rle_area, compute_rle_box, fill_polygons

HEIGHT, WIDTH, CLASSES, INSTANCES, CORNERS = 480, 640, 80, 7, 24
Box = npt.NDArray[np.float64]


def anywhere(rng: np.random.Generator) -> Box:
    """A box x y w h in px."""
    w, h = np.exp(rng.normal(4.2, 0.8, 2)).clip(8, 400)
    return np.array([rng.uniform(0, WIDTH - w), rng.uniform(0, HEIGHT - h), w, h])


def drawn(rng: np.random.Generator, box: Box, image_id: int, category: int, **more: Any) -> dict[str, Any]:
    """A rough ellipse in a box, as a polygon."""
    x, y, w, h = box
    turns, radii = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False), 1 + rng.normal(0, 0.08, CORNERS)
    columns = np.clip(x + w / 2 * (1 + radii * np.cos(turns)), 0, WIDTH)
    rows = np.clip(y + h / 2 * (1 + radii * np.sin(turns)), 0, HEIGHT)
    polygon = [round(float(v), 2) for v in np.stack([columns, rows], 1).reshape(-1)]
    rle = fill_polygons([polygon], (HEIGHT, WIDTH))
    x0, y0, x1, y1 = compute_rle_box(rle)
    row = {"image_id": image_id, "category_id": category, "segmentation": [polygon], "bbox": [x0, y0, x1 - x0, y1 - y0]}
    return {**row, "area": float(compute_rle_area(rle)), **more}


def as_run_lengths(row: dict[str, Any]) -> dict[str, Any]:
    rle = fill_polygons(row["segmentation"], (HEIGHT, WIDTH))
    return {**row, "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode("ascii")}}


def made_up(images: int, predictions: int, seed: int = 0) -> tuple[CocoFile, list[dict[str, Any]]]:
    """Truth and predictions."""
    rng = np.random.default_rng(seed)
    truth, said = CocoFile.with_categories({k + 1: f"class {k}" for k in range(CLASSES)}), []
    for number in range(images):
        image_id = truth.add_image(f"{number:06}.jpg", (HEIGHT, WIDTH))
        real = [(anywhere(rng), int(rng.integers(1, CLASSES + 1))) for _ in range(INSTANCES)]
        truth.add_annotations([drawn(rng, box, image_id, c, iscrowd=int(rng.random() < 0.02)) for box, c in real])
        for k in range(predictions):
            box, class_ = real[int(rng.integers(len(real)))]
            box = box + rng.normal(0, 0.08, 4) * box[[2, 3, 2, 3]] if k < 0.6 * predictions else anywhere(rng)
            box[2:] = np.maximum(box[2:], 6)
            named = int(rng.integers(1, CLASSES + 1)) if k >= 0.6 * predictions or rng.random() < 0.3 else class_
            said.append(as_run_lengths(drawn(rng, box, image_id, named, score=round(float(rng.random()), 4))))
    return truth, said


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"seconds": round(time.perf_counter() - wall, 1), "cpu": round(time.process_time() - cpu, 1)}


def measured(images: int, predictions: int, obvious: bool) -> dict[str, Any]:
    """Seconds of plain scoring, of the split and, if asked for, of scoring each fixed file; the AP of all agree."""
    truth, said = made_up(images, predictions)
    told: dict[str, Any] = {"images": images, "predictions": len(said), "truth": len(truth.annotations)}
    _, told["plain scoring"] = timed(lambda: score_predictions(truth, said))
    split, told["oracle split"] = timed(lambda: evaluate_oracles(truth, said))
    told["AP"] = {fix: round(100 * (oracle.ap or 0.0), 1) for fix, oracle in split.oracles.items()}
    if obvious:
        files = [fix_rows(truth, said, fix) for fix in FIXES]
        _, told["scoring four fixed files, AP alone"] = timed(lambda: [evaluate_instances(truth, rows).ap for rows in files])
    told["peak GB"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--predictions", type=int, default=20, help="of an image")
    parser.add_argument("--obvious", action="store_true", help="score four fixed files too")
    asked = parser.parse_args()
    print(json.dumps(measured(asked.images, asked.predictions, asked.obvious), indent=2))


if __name__ == "__main__":
    main()
