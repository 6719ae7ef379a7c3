"""Zip between its two networks, our steps beside the obvious way, in one process and on the same made-up features.

    uv run python benchmarks/zip.py --json zip.json

What is timed begins with the boundary features (C, h, w) and with one activation map a class, and ends with the boxes that
SAM would be given; no model is loaded.  Ours is ``extract_fragments`` and ``Zip.find_coarse`` as they stand, with the settings
``official``, so that both ways must find the same, but for cells so near to two clusters or to the threshold that rounding
chooses: this is checked, for every class, before anything is timed.  The obvious way is what the released demo does for each
class anew: K-means by ``torch.cdist`` with a loop over the clusters, and a full-size boolean array for every fragment.
K classes, h w cells of the boundary map; the image has 4 h x 4 w pixels.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from annofree.clues.similarity import stretch_to_unit
from annofree.fragments.clusters import extract_fragments
from annofree.methods.zip import VARIANTS, Coarse, Zip, ZipEncoding
from annofree.ops.clustering import choose_linspace_seeds
from annofree.ops.grids import resize_maps, resize_nearest
from annofree.protocols import Embedding, Masker, VisionLanguage
from annofree.structures import BoolArray, FeatureMap, IntArray, Vocabulary
from annofree.testing.obvious_zip import compute_obvious_boxes, find_obvious_fragments, number_obvious_instances
from annofree.testing.timing import Spread, measure_seconds
from annofree.testing.tolerances import PIXELS, TOLERANCES

CLUSTERS = 20
PIXELS_A_CELL = 4  # RN50x64 has stride 16, but sees the image enlarged: 128 x 128 cells for 512 x 512 pixels


@dataclass(frozen=True, eq=False)
class Scene:
    """What both ways start from: ``features`` (C, h, w) and ``clues`` (K, h / 4, w / 4), each map from 0 to 1."""

    features: Tensor
    clues: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        return self.features.shape[1], self.features.shape[2]

    @property
    def size(self) -> tuple[int, int]:
        return self.grid[0] * PIXELS_A_CELL, self.grid[1] * PIXELS_A_CELL


def made_up_scene(side: int, channels: int, classes: int, seed: int) -> Scene:
    """Make features of 40 kinds of thing that pass softly into each other, non-negative as after a ReLU, and smooth clues.

    Features without any structure would lie as near to one centre as to another, and rounding would choose.
    """
    generator = torch.Generator().manual_seed(seed)

    def smooth(count: int, coarse: int, fine: int) -> Tensor:
        return F.interpolate(
            torch.randn(count, 1, coarse, coarse, generator=generator), size=(fine, fine), mode="bicubic", align_corners=True
        )[:, 0]

    kinds = torch.randn(40, channels, generator=generator).relu()
    fields = 6 * smooth(40, max(2, side // 8), side) + 0.5 * torch.randn(40, side, side, generator=generator)
    shares = fields.softmax(0).flatten(1).T
    noise = torch.randn(side * side, channels, generator=generator)
    features = torch.addmm(noise, shares, kinds, beta=0.3).relu_()
    clues = stretch_to_unit(smooth(classes, 6, max(2, side // 4)).exp())  # few high places, as names have
    return Scene(features.T.reshape(channels, side, side).contiguous(), clues)


# ours


def our_zip(classes: int, most: int | None = None) -> Zip:
    """Build a Zip whose clues are the maps of the scene: the name of a class is its number."""
    names = torch.eye(classes)
    clip = SimpleNamespace(
        encode_text=lambda vocabulary: names[[int(name) for name in vocabulary.names]],
        encode_null_text=lambda: torch.zeros(classes),
        score_presence=lambda whole, tokens, words: torch.ones(len(words)),
    )
    official = VARIANTS["official"]
    settings = official if most is None else replace(official, most=most)
    return Zip(cast(VisionLanguage, clip), cast(Masker, None), settings)


def our_encoding(scene: Scene) -> ZipEncoding:
    """Do what needs no class name."""
    official = VARIANTS["official"]
    tokens = FeatureMap(scene.clues, scene.size)
    boundaries = FeatureMap(scene.features, scene.size)
    fragments = extract_fragments(boundaries, tokens, official.seeding, official.connectivity)
    return ZipEncoding(scene.size, tokens, torch.zeros(1), fragments, Embedding(scene.size, ()))


def vocabulary_of(classes: int) -> Vocabulary:
    return Vocabulary.of([str(k) for k in range(classes)])


# the obvious way


class Found(NamedTuple):
    """Instances (h, w) of one class, numbered from 1, and their boxes (N, 4) px."""

    instances: IntArray
    boxes: np.ndarray[Any, np.dtype[np.float64]]


def obvious_clusters(scene: Scene) -> IntArray:
    """Cluster the cells, (h, w) from 1, as the released demo does."""
    features = scene.features.flatten(1).T.contiguous()
    centers = features[choose_linspace_seeds(len(features), CLUSTERS)]
    for _ in range(100):
        labels = torch.cdist(features, centers).argmin(1)
        moved = centers.clone()
        for k in range(len(centers)):
            if (labels == k).any():
                moved[k] = features[labels == k].mean(0)
        if torch.allclose(moved, centers):
            break
        centers = moved
    return np.asarray(labels.view(scene.grid).numpy() + 1, np.int64)


def obvious_clues(scene: Scene, name: int) -> tuple[Tensor, Tensor]:
    """The activation of one class at each cell, and the threshold above which a cell is active."""
    full = resize_maps(scene.clues[name][None], scene.size)[0]
    return resize_nearest(full, scene.grid), 0.7 * full.mean()


def obvious_found(scene: Scene, clusters: IntArray, name: int) -> Found:
    """Find the instances of one class by loops over boolean arrays."""
    cells, threshold = obvious_clues(scene, name)
    active: BoolArray = (cells > threshold).numpy()
    instances = number_obvious_instances(find_obvious_fragments(clusters, active))
    return Found(instances, compute_obvious_boxes(instances, scene.size))


def obvious_loop(scene: Scene, classes: int) -> None:
    """Do everything for each class, the clustering too."""
    for name in range(classes):
        obvious_found(scene, obvious_clusters(scene), name)


# the same results


class IterationCount(TorchFunctionMode):
    """Counts calls of argmin, of which each way makes one in each iteration of K-means."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += getattr(func, "__name__", "") == "argmin"
        return func(*args, **(kwargs or {}))


class Agreement(NamedTuple):
    """What both ways found, once it is known to be the same."""

    our_iterations: int
    obvious_iterations: int
    fragments: int
    instances: int


def agreement(scene: Scene) -> Agreement:
    """Run both ways once; raises SystemExit unless clusters, and instances and boxes of every class, are equal.

    Some cells may lie as near to one centre as to another; instances are made of our clusters, and a class may differ only
    where rounding decides whether some cell is active.
    """
    with IterationCount() as ours:
        encoding = our_encoding(scene)
    with IterationCount() as obvious:
        clusters = obvious_clusters(scene)
    our_clusters = encoding.fragments.cluster[encoding.fragments.labels - 1].numpy()
    differing = int((our_clusters != clusters).sum())
    if differing > PIXELS * clusters.size:
        raise SystemExit(f"expected equal clusters, got {differing} of {clusters.size} cells in others; nothing was timed")
    classes = len(scene.clues)
    coarse = our_zip(classes, most=clusters.size * classes).find_coarse(encoding, vocabulary_of(classes))
    for name in range(classes):
        mine, theirs = our_found(coarse, name, scene.grid), obvious_found(scene, our_clusters, name)
        same = np.array_equal(mine.instances, theirs.instances) and np.array_equal(mine.boxes, theirs.boxes)  # of whole px
        if not same and not undecided(scene, name):
            raise SystemExit(f"expected equal instances and boxes, got others for class {name}; nothing was timed")
    return Agreement(ours.calls, obvious.calls, len(encoding.fragments), len(coarse.scores))


def undecided(scene: Scene, name: int) -> bool:
    """Whether some cell of a class is so near to the threshold that rounding decides about it."""
    cells, threshold = obvious_clues(scene, name)
    within = TOLERANCES[torch.float32, "operation"]
    return bool(torch.isclose(cells, threshold, rtol=within.relative, atol=within.absolute).any())


def our_found(coarse: Coarse, name: int, grid: tuple[int, int]) -> Found:
    """Number the instances of one class in row-major order of their first cell, as the obvious way does."""
    chosen = coarse.class_ids == name
    regions, boxes = coarse.regions[chosen].numpy().reshape(-1, *grid), coarse.boxes[chosen].double().numpy()
    order = regions.reshape(len(regions), grid[0] * grid[1]).argmax(1).argsort()
    instances = np.zeros(grid, np.int64)
    for number, region in enumerate(regions[order], start=1):
        instances[region] = number
    return Found(instances, boxes[order])


# the clock


def timings(scene: Scene, measured: int, repeats: int) -> dict[str, list[float]]:
    """Time each job once a repeat, in turn, so that a slow spell of the machine meets all of them."""
    classes = len(scene.clues)
    zip_, one, all_, kept = our_zip(classes), vocabulary_of(1), vocabulary_of(classes), our_encoding(scene)
    jobs: dict[str, Callable[[], object]] = {
        "ours_one": lambda: zip_.find_coarse(our_encoding(scene), one),
        "ours_all": lambda: zip_.find_coarse(our_encoding(scene), all_),
        "ours_all_encoded": lambda: zip_.find_coarse(kept, all_),
        "obvious_one": lambda: obvious_loop(scene, 1),
        "obvious_measured": lambda: obvious_loop(scene, measured),
    }
    rounds = [{name: measure_seconds(job) for name, job in jobs.items()} for _ in range(repeats)]
    times = {name: [r[name] for r in rounds] for name in jobs}
    return times | {"obvious_all": [t * classes / measured for t in times["obvious_measured"]]}


RATIOS = {
    "one": ("obvious_one", "ours_one", "obvious / ours, 1 class", ">= 10"),
    "all": ("obvious_all", "ours_all", "obvious / ours, {K} classes", ">= 100"),
    "growth": ("ours_all", "ours_one", "ours, {K} classes / 1 class", "<= 1.3"),
}


def ratios(times: dict[str, list[float]]) -> dict[str, Spread]:
    """Divide within each repeat."""
    return {
        name: Spread.of([a / b for a, b in zip(times[over], times[under], strict=True)])
        for name, (over, under, _, _) in RATIOS.items()
    }


# the report


def table(times: dict[str, list[float]], classes: int, measured: int) -> str:
    """Lay out seconds and ratios as plain text."""
    labels = {
        "ours_one": "ours, 1 class",
        "ours_all": f"ours, {classes} classes",
        "ours_all_encoded": f"ours, {classes} classes, image encoded before",
        "obvious_one": "obvious, 1 class",
        "obvious_measured": f"obvious, {measured} classes",
        "obvious_all": f"obvious, {classes} classes *",
    }
    rows = [f"{'seconds':44}{'median':>10}{'min':>10}{'max':>10}"]
    rows += [_row(labels[name], Spread.of(values), 4) for name, values in times.items()]
    rows += ["", f"{'ratio':44}{'median':>10}{'min':>10}{'max':>10}{'target':>10}"]
    found = ratios(times)
    rows += [_row(label.format(K=classes), found[name], 2) + f"{target:>10}" for name, (_, _, label, target) in RATIOS.items()]
    return "\n".join([*rows, "", f"* {scaling(classes, measured)}"])


def _row(label: str, spread: Spread, digits: int) -> str:
    return f"{label:44}" + "".join(f"{value:10.{digits}f}" for value in spread)


def scaling(classes: int, measured: int) -> str:
    if measured == classes:
        return f"measured on all {classes} classes"
    return f"measured on {measured} classes and scaled to {classes}: it is a loop over the classes"


def main(arguments: Sequence[str] | None = None) -> None:
    """Check that both ways agree, time them, and print a table."""
    parser = argparse.ArgumentParser(description="Zip between its networks: our steps beside the obvious way.")
    parser.add_argument("--side", type=int, default=128, help="cells along each side of the boundary map")
    parser.add_argument("--channels", type=int, default=2048, help="of the boundary features")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--measured", type=int, default=2, help="classes that the obvious way is timed on")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the features and the activation maps")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    asked = parser.parse_args(arguments)
    measured = min(asked.measured, asked.classes)
    scene = made_up_scene(asked.side, asked.channels, asked.classes, asked.seed)
    print(
        f"{asked.side} x {asked.side} cells, {asked.channels} channels, {CLUSTERS} clusters, {torch.get_num_threads()} threads"
    )
    same = agreement(scene)
    print(
        f"equal results: {same.fragments} fragments, {same.instances} instances of {asked.classes} classes; "
        f"K-means took {same.our_iterations} iterations (ours), {same.obvious_iterations} (obvious)\n"
    )
    times = timings(scene, measured, asked.repeats)
    print(table(times, asked.classes, measured))
    if asked.json:
        record = {
            "settings": {k: getattr(asked, k) for k in ("side", "channels", "classes", "repeats", "seed")},
            "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__, "processor": platform.machine()},
            "equal": same._asdict(),
            "obvious_all": {"classes_measured": measured, "note": scaling(asked.classes, measured)},
            "seconds": {name: Spread.of(values)._asdict() | {"repeats": values} for name, values in times.items()},
            "ratios": {name: s._asdict() | {"target": RATIOS[name][3]} for name, s in ratios(times).items()},
        }
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
