"""Draw the sample scenes and the validation set that come with the project; needs the Noto Color Emoji font.

uv run python examples/make_scenes.py
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image as PILImage

from annofree.datasets.emoji.files import write_scenes
from annofree.datasets.emoji.world import CATEGORIES, SPLITS, Scene, Split, World

SAMPLES: dict[str, tuple[Split, list[str]]] = {
    "oranges": ("touching", ["orange"] * 3),
    "elephants": ("touching", ["elephant"] * 3),
    "orange-and-elephants": ("plain", ["elephant", "elephant", "orange"]),
    "market": ("plain", ["apple", "apple", "banana", "banana", "orange", "carrot", "broccoli"]),
    "street": ("cluttered", ["car", "car", "bus", "traffic light", "person", "person", "bicycle"]),
    "zoo": ("plain", ["giraffe", "zebra", "zebra", "bear", "elephant"]),
    "birds": ("touching", ["bird"] * 4),
    "breakfast": ("plain", ["cup", "sandwich", "donut", "donut", "spoon"]),
    "living-room": ("plain", ["couch", "tv", "potted plant", "cat", "clock"]),
    "desk": ("cluttered", ["laptop", "keyboard", "mouse", "cup", "book"]),
    "harbour": ("plain", ["boat", "boat", "boat", "bird"]),
    "playground": ("cluttered", ["sports ball", "sports ball", "kite", "dog", "person"]),
}
VALIDATION_SEED, SCENES_A_SPLIT = 2024, 50


def samples() -> Iterator[tuple[str, Scene]]:
    """The dozen sample scenes, each with its name."""
    ids = {name: id_ for id_, name in CATEGORIES.items()}
    world = World()
    for number, (name, (split, cast)) in enumerate(SAMPLES.items()):
        yield name, world.compose(np.random.default_rng([11, number]), [ids[c] for c in cast], split)


def validation() -> Iterator[tuple[str, Scene]]:
    """The fixed validation set: fifty scenes a split, some objects with looks kept out of training."""
    world = World(held_out=0.3)
    for split in SPLITS:
        for index, scene in enumerate(world.draw_scenes(SCENES_A_SPLIT, VALIDATION_SEED, split)):
            yield f"{split}-{index:02d}", scene


def main() -> None:
    """Draw both sets beside this script, with the truth of the samples apart, for their folder holds images alone."""
    here = Path(__file__).parent
    scenes = dict(samples())
    with TemporaryDirectory() as drawn:
        write_scenes(scenes.items(), Path(drawn), "annofree emoji world, the sample scenes")
        shutil.copyfile(Path(drawn) / "truth.json", here / "scenes-truth.json")
    (here / "scenes").mkdir(exist_ok=True)
    for name, scene in scenes.items():
        PILImage.fromarray(scene.image).save(here / "scenes" / f"{name}.jpg", quality=92, subsampling=0)
    write_scenes(validation(), here / "validation", "annofree emoji world, validation: 50 scenes a split, seed 2024")


if __name__ == "__main__":
    main()
