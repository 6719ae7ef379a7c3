"""A run of many images that were never there, as a run writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from annofree.io.files.checksums import add_checksum, measure_file
from annofree.runs.store.checks import FORMAT, Chunk
from annofree.runs.store.chunks import Chunks
from annofree.runs.store.results import write_annotations
from annofree.structures import Detections

NAMES = ("dog", "cat", "car")
_CHUNK = 64


def make_run(out: Path, count: int, root: Path) -> Path:
    """Write a complete run of ``count`` images of 256 px with five instances each."""
    shards, ids = Chunks(out), [f"f{k // 1000:03}/img{k:06}.jpg" for k in range(count)]
    asked: dict[str, Any] = {
        "classes": [[name] for name in NAMES],
        "tasks": ["instance"],
        "stuff": [],
        "min_score": 0.0,
        "root": str(root),
        "part": "1/1",
        "overlays": False,
        "encodings": False,
        "method": None,
        "models": "tiny",
        "variant": "default",
        "objectness": "found",
        "precision": "float32",
        "overlaps": None,
        "policy": "answer",
        "methods": {"instance": "consensus"},
        "negatives": [],
    }
    shards.folder.mkdir(parents=True)
    shards.begin({"format": FORMAT, "asked": asked, "stretch": _CHUNK, "device": "cpu"}, ids)
    found = _draw_some()
    with (shards.folder / "manifest.jsonl").open("w", encoding="ascii") as manifest:
        for number, start in enumerate(range(0, count, _CHUNK)):
            own = range(start, min(count, start + _CHUNK))
            rows = [
                {
                    "n": k,
                    "id": ids[k],
                    "image": {"file_name": ids[k], "height": 256, "width": 256},
                    "annotations": found[k % 50],
                }
                for k in own
            ]
            path = shards.folder / f"{number:05}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")
            size, crc = measure_file(path)
            about = {"images": len(rows), "failed": 0, "instances": 5 * len(rows)}
            manifest.write(json.dumps(add_checksum(vars(Chunk(number, path.name, len(rows), size, about, crc)))) + "\n")
    write_annotations(out / "annotations.json", NAMES, shards.read_rows)
    (out / "run.json").write_text(json.dumps({"settings": asked, "failed": {}}))
    shards.append({"complete": True, "files": {}})
    return out


def _draw_some() -> list[list[dict[str, Any]]]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(50):
        masks = np.zeros((5, 256, 256), bool)
        for i in range(5):
            y, x = rng.integers(0, 180, 2)
            masks[i, y : y + 40 + i, x : x + 50] = True
        scores = np.sort(rng.random(5))[::-1].astype(np.float32)
        found = Detections.from_masks(masks, rng.integers(0, 3, 5), scores, NAMES)
        made.append([{k: v for k, v in row.items() if k != "image_id"} for row in found.to_coco()])
    return made
