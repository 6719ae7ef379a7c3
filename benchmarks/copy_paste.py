"""Copy-paste scenes: ours beside the described official way, the same draws, in one process and one thread.

    uv run python benchmarks/copy_paste.py --images PHOTOS --json copy_paste.json

The obvious way is what the released code does: each of a scene's 1 to 10 images is opened at its full size and its mask
read from a JSON file, anew each time; the whole image is scaled, padded and cropped, and all of the crop goes through
torchvision's colour steps and the blur, though of most images the object alone is used; maps of labels and instances are
written with each paste.  The blur is Pillow's in both ways, for OpenCV is no dependency here.  Before anything is timed, both
must give the same truth and, with colours left as they are, the same images to two levels.  Ours is timed with all decoded
images at hand and with none kept, as with an archive far beyond memory.  Masks are made-up ellipses; images are those of
--images, or drawn ones.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Picture
from PIL import ImageFilter, ImageStat
from torchvision.transforms.v2 import functional as transforms

from annofree.io.images import find_images
from annofree.ops.rle import decode_rle, encode_rle
from annofree.retrieval.archive import Archive, Member, PseudoMask
from annofree.testing.timing import Spread, format_spreads
from annofree.training.augment.color import ColorChange
from annofree.training.augment.copy_paste import VARIANTS, CopyPaste, CopyPasteSettings, ImageDraw, PastedScene, SceneDraw

SIZE = (375, 500)  # px, of a common photograph in ImageNet
CLASSES = 5
TOLERANCE = 2  # levels of 255


@dataclass(frozen=True)
class Material:
    """An archive with its masks, and the folder of one JSON file a mask, as the obvious way reads them."""

    archive: Archive
    masks: dict[str, PseudoMask]
    folder: Path

    @classmethod
    def of(cls, paths: Sequence[Path], folder: Path, seed: int) -> Material:
        rng, masks = np.random.default_rng(seed), {}
        places = {f"{i}": str(path) for i, path in enumerate(paths)}
        for id_, place in places.items():
            with Picture.open(place) as image:
                size = image.height, image.width
            coded = encode_rle(ellipse(rng, size))
            rle = {"size": list(size), "counts": coded["counts"].decode("ascii")}
            masks[id_] = PseudoMask(id_, rle, 1.0)
            (folder / f"{id_}.json").write_text(json.dumps(rle))
        names = tuple(f"class {k}" for k in range(min(CLASSES, len(paths))))
        members = {name: tuple(Member(i, 0.3) for i in list(places)[k :: len(names)]) for k, name in enumerate(names)}
        return cls(Archive(names, members, places), masks, folder)


def ellipse(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """An object of a third of the image's sides, or a little less or more, about its middle."""
    y, x = np.mgrid[: size[0], : size[1]]
    center, radius = rng.uniform(0.4, 0.6, 2) * size, rng.uniform(0.15, 0.35, 2) * size
    return np.asarray(((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 < 1)


def draw_pictures(count: int, folder: Path, seed: int) -> list[Path]:
    """Smooth colours with some grain, as JPEG files."""
    rng, paths = np.random.default_rng(seed), []
    for i in range(count):
        small = Picture.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize(SIZE[::-1], Picture.Resampling.BICUBIC)).astype(np.float32)
        pixels = (smooth + rng.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{i}.jpg")
        Picture.fromarray(pixels).save(paths[-1], quality=90)
    return paths


# the obvious way


def obvious_picture(material: Material, draw: ImageDraw, side: int, ignored: int) -> tuple[Any, Any]:
    """One image (S, S, 3) and its labels (S, S), opened and augmented as a whole."""
    with Picture.open(material.archive.places[draw.id]) as opened:
        image = opened.convert("RGB")
    rle = json.loads((material.folder / f"{draw.id}.json").read_text())
    mask = decode_rle(rle)
    h, w = (max(1, int(draw.scale * n)) for n in mask.shape)
    colors = np.asarray(image.resize((w, h), Picture.Resampling.BILINEAR))
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip((h, w), mask.shape, strict=True))
    labels = mask[rows[:, None], columns] * np.int64(draw.class_id + 1)
    lacking = max(0, side - h), max(0, side - w)
    margins = [(n, 0) if far else (0, n) for n, far in zip(lacking, draw.far, strict=True)]
    padded = np.empty((h + lacking[0], w + lacking[1], 3), np.uint8)
    padded[:] = np.rint(ImageStat.Stat(image).mean)
    padded[margins[0][0] : margins[0][0] + h, margins[1][0] : margins[1][0] + w] = colors
    labels = np.pad(labels, margins, constant_values=ignored)
    y, x = (int(u * (n - side + 1)) for u, n in zip(draw.window, labels.shape, strict=True))
    colors, labels = padded[y : y + side, x : x + side], labels[y : y + side, x : x + side]
    if draw.flip:
        colors, labels = colors[:, ::-1], labels[:, ::-1]
    return obvious_light(Picture.fromarray(np.ascontiguousarray(colors)), draw.light), labels


def obvious_light(image: Any, light: ColorChange) -> Any:
    for name, amount in light.steps:
        image = getattr(transforms, f"adjust_{name}")(image, amount)
    if light.grey:
        image = transforms.rgb_to_grayscale(image, 3)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(light.sigma)) if light.sigma else image)


def obvious_scene(material: Material, how: CopyPasteSettings, scene: SceneDraw) -> PastedScene:
    side = how.crop
    colors, semantic = obvious_picture(material, scene[0], side, how.ignored)
    image, semantic = colors.copy(), semantic.copy()
    instances = [(semantic > 0) & (semantic < how.ignored)]
    for draw in scene[1:]:
        colors, labels = obvious_picture(material, draw, side, how.ignored)
        object_ = (labels > 0) & (labels < how.ignored)
        instances.append(np.zeros((side, side), bool))
        ys, xs = np.nonzero(object_)
        if not len(ys):
            continue
        box = slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)
        cut = object_[box]
        y, x = (int(u * (side - n + 1)) for u, n in zip(draw.place, cut.shape, strict=True))
        to = slice(y, y + cut.shape[0]), slice(x, x + cut.shape[1])
        image[to][cut], semantic[to][cut] = colors[box][cut], labels[box][cut]
        for other in instances:
            other[to][cut] = False
        instances[-1][to][cut] = True
    kept = [i for i, mask in enumerate(instances) if mask.any()]
    shown = np.array([instances[i] for i in kept]).reshape(-1, side, side)
    return PastedScene(image, shown, np.array([scene[i].class_id for i in kept], np.int64), semantic)


def agreement(material: Material, how: CopyPasteSettings, draws: Sequence[SceneDraw]) -> int:
    """How many levels the images are apart without change of colours; raises SystemExit unless all truth is equal."""
    made, apart = CopyPaste(material.archive, material.masks, how), 0
    for draw in draws:
        plain = tuple(image._replace(light=ColorChange()) for image in draw)
        ours, theirs = made.render(plain), obvious_scene(material, how, plain)
        same = (np.array_equal(getattr(ours, n), getattr(theirs, n)) for n in ("semantic", "instances", "class_ids"))
        apart = max(apart, int(np.abs(ours.image.astype(int) - theirs.image).max()))
        if not all(same) or apart > TOLERANCE:
            raise SystemExit(f"expected equal scenes, got other truth or images {apart} levels apart; nothing was timed")
    return apart


# the clock


def timings(material: Material, how: CopyPasteSettings, draws: Sequence[SceneDraw], repeats: int) -> dict[str, list[float]]:
    """Scenes a second of each way, once a repeat, in turn, so that a slow spell of the machine meets all of them."""
    kept, anew = (CopyPaste(material.archive, material.masks, how, memory) for memory in (1 << 32, 0))
    jobs: dict[str, Callable[[SceneDraw], object]] = {
        "obvious": lambda draw: obvious_scene(material, how, draw),
        "kept": kept.render,
        "anew": anew.render,
    }
    for draw in draws:
        kept.render(draw)
    rounds = [{name: _rate(job, draws) for name, job in jobs.items()} for _ in range(repeats)]
    return {name: [r[name] for r in rounds] for name in jobs}


def _rate(job: Callable[[SceneDraw], object], draws: Sequence[SceneDraw]) -> float:
    start = time.perf_counter()
    for draw in draws:
        job(draw)
    return len(draws) / (time.perf_counter() - start)


LABELS = {"obvious": "obvious", "kept": "ours, images kept", "anew": "ours, no image kept"}


def ratios(rates: dict[str, list[float]]) -> dict[str, Spread]:
    """Ours over obvious, divided within each repeat."""
    return {name: Spread.of([a / b for a, b in zip(rates[name], rates["obvious"], strict=True)]) for name in ("kept", "anew")}


def table(rates: dict[str, list[float]]) -> str:
    """Lay out scenes a second and ratios as plain text."""
    speed = format_spreads("scenes a second", {LABELS[name]: Spread.of(values) for name, values in rates.items()}, 32)
    ratio = format_spreads("ratio to obvious", {LABELS[name]: spread for name, spread in ratios(rates).items()}, 32)
    return f"{speed}\n\n{ratio}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Check that both ways agree, time them, and print a table."""
    parser = argparse.ArgumentParser(description="Copy-paste scenes: ours beside the described official way.")
    parser.add_argument("--images", type=Path, help="a folder of images; else some are drawn")
    parser.add_argument("--pictures", type=int, default=50, help="how many to take, or to draw")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--crop", type=int, default=384, help="side of a scene in px")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there as well")
    asked = parser.parse_args(arguments)
    how = replace(VARIANTS["default"], crop=asked.crop)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = find_images([asked.images])[: asked.pictures] if asked.images else None
        material = Material.of(given or draw_pictures(asked.pictures, folder, asked.seed), folder, asked.seed)
        rng, made = np.random.default_rng(asked.seed), CopyPaste(material.archive, material.masks, how)
        draws = [made.draw(rng) for _ in range(asked.scenes)]
        count = sum(len(draw) for draw in draws) / len(draws)
        print(f"{len(material.masks)} images; {len(draws)} scenes of {how.crop} px, of {count:.1f} images each on average")
        apart = agreement(material, how, draws)
        print(f"equal truth; images, colours unchanged, at most {apart} of 255 apart\n")
        rates = timings(material, how, draws, asked.repeats)
    print(table(rates))
    if asked.json:
        record = {
            "settings": {k: getattr(asked, k) for k in ("pictures", "scenes", "crop", "repeats", "seed")},
            "machine": {"processor": platform.machine(), "python": platform.python_version()},
            "apart": apart,
            "scenes_a_second": {name: Spread.of(v)._asdict() | {"repeats": v} for name, v in rates.items()},
            "ratios": {name: spread._asdict() for name, spread in ratios(rates).items()},
        }
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
