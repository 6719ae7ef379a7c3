"""Runs over folders: how fast beside the bare method and a plain loop, how much memory, how fast other names are.

    uv run python benchmarks/runs.py speed --models tiny --repeats 5
    uv run python benchmarks/runs.py decoding --size 3000 --images 40
    uv run python benchmarks/runs.py names --models tiny
    uv run python benchmarks/runs.py memory --images 10000 --plot memory.png

``speed``: the runner's images a second as a part of the bare method's, images decoded beforehand, same batches.
``decoding``: large photographs and a method that costs next to nothing, beside a loop that reads one and asks.
``names``: another class list for a run that kept its encodings, beside a new run.  ``memory``: resident growth after a warm-up.
Ratios are of the medians of several turns taken in turns; the spread is the least and the most of the ratios of single turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from annofree.io.callbacks import Callbacks
from annofree.io.images import read_image
from annofree.runs.batch_encoder import BatchEncoder
from annofree.runs.config import EncodingSource, RunConfig, size_chunks
from annofree.runs.inputs import find_source
from annofree.runs.run import Run
from annofree.runs.stored_encodings import StoredEncodings
from annofree.runs.tasks import Tasks
from annofree.structures import Detections, Image, Vocabulary

NAMES = "dog, cat, car, tree"
OTHERS = "bird, apple, boat, umbrella"


@dataclass(frozen=True, eq=False)
class GlanceEncoding:
    """``size`` (H, W), and how red, green and blue an image is."""

    size: tuple[int, int]
    colour: tuple[float, float, float]


class Glance:
    """A method that takes a look at a few pixels and finds one box."""

    provenance = {"method": "glance", "models": []}  # noqa: RUF012

    def remarks(self, classes: Any) -> list[str]:
        """Nothing to remark."""
        return []

    def encode(self, images: Sequence[Image]) -> list[GlanceEncoding]:
        """Mean colours of every hundredth row."""
        means = [image.pixels[::100, ::100].mean((0, 1)).tolist() for image in images]
        return [GlanceEncoding(image.size, (r, g, b)) for image, (r, g, b) in zip(images, means, strict=True)]

    def instances(self, image: Any, classes: Any) -> Detections:
        """The upper left quarter."""
        masks = np.zeros((1, *image.size), bool)
        masks[:, : -(-image.size[0] // 2), : -(-image.size[1] // 2)] = True
        return Detections.from_masks(masks, [int(np.argmax(image.colour)) % len(classes)], [0.5], classes.names)


def draw_pictures(folder: Path, count: int, side: int) -> None:
    """Write JPEGs of coloured boxes on noise."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    noise = rng.integers(0, 60, (side, side, 3)).astype(np.uint8)
    for k in range(count):
        pixels, (y, x) = np.roll(noise, k, 0), rng.integers(0, max(1, side // 2), 2)
        pixels[y : y + side // 3, x : x + side // 3] = rng.integers(60, 255, 3)
        PIL.Image.fromarray(pixels).save(folder / f"{k:06}.jpg", quality=90)


def run_over(
    images: Path, out: Path, method: Any, asked: argparse.Namespace, *, overlays: bool = False, keep: bool = False
) -> Run:
    """A run over a folder, done."""
    source, words = find_source([images], out), Vocabulary.of(NAMES)
    request = RunConfig(
        out,
        list(source.list_ids()),
        source.root,
        words,
        {},
        stretch=size_chunks(asked.batch_size),
        overlays=overlays,
        keep=keep,
    )
    run = Run(request, getattr(asked, "callbacks", Callbacks()))
    run.execute(Tasks(("instance",), method), BatchEncoder(Tasks(("instance",), method), asked.batch_size, asked.threads), {})
    return run


def compared(turns: dict[str, Callable[[], object]], repeats: int, base: str) -> dict[str, Any]:
    """Seconds of each way, the ways in turn; and how many times as fast as ``base`` each is."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(repeats):
        for name, do in turns.items():
            start = time.perf_counter()
            do()
            seconds[name].append(time.perf_counter() - start)
    faster = {}
    for name in turns:
        each = [b / s for b, s in zip(seconds[base], seconds[name], strict=True)]
        ratio = statistics.median(seconds[base]) / statistics.median(seconds[name])
        faster[name] = {"ratio": round(ratio, 4), "least": round(min(each), 4), "most": round(max(each), 4)}
    return {"base": base, "times_as_fast": faster, "seconds": {k: [round(s, 6) for s in v] for k, v in seconds.items()}}


def method_of(asked: argparse.Namespace) -> Any:
    """The method that is asked for, on its models; ``glance`` needs none."""
    from annofree.methods.build import load

    return Glance() if asked.method == "glance" else load(asked.method, models=asked.models, device=asked.device)


def speed(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The runner beside the bare method."""
    method, turn = method_of(asked), iter(range(10**6))
    draw_pictures(folder / "pictures", asked.images, asked.size)
    images = [read_image(path) for path in sorted((folder / "pictures").iterdir())]
    words = Vocabulary.of(NAMES)

    def bare() -> None:
        for start in range(0, len(images), asked.batch_size):
            for encoding in method.encode(images[start : start + asked.batch_size]):
                method.instances(encoding, words)

    bare()  # a first time, for whatever is made ready then
    runner = {
        name: (lambda o=overlays: run_over(folder / "pictures", folder / f"{next(turn)}", method, asked, overlays=o))
        for name, overlays in (("runner", False), ("runner with overlays", True))
    }
    return compared({"bare": bare, **runner}, asked.repeats, "bare")


def decoding(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The runner beside a plain loop, where reading is all the work."""
    method, turn, words = Glance(), iter(range(10**6)), Vocabulary.of(NAMES)
    draw_pictures(folder / "pictures", asked.images, asked.size)

    def loop() -> None:
        rows = []
        for path in sorted((folder / "pictures").iterdir()):
            rows += method.instances(method.encode([read_image(path)])[0], words).to_coco()
        (folder / "loop.json").write_text(json.dumps(rows), encoding="utf-8")

    def runner() -> None:
        run_over(folder / "pictures", folder / f"{next(turn)}", method, asked)

    return compared({"loop": loop, "runner": runner}, asked.repeats, "loop")


def names(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Another class list beside a new run."""
    method, turn = method_of(asked), iter(range(10**6))
    draw_pictures(folder / "pictures", asked.images, asked.size)
    tasks = Tasks(("instance",), method)
    kept = run_over(folder / "pictures", folder / "kept", method, asked, keep=True).request

    def ask(feed: EncodingSource, out: str) -> None:
        request = RunConfig(folder / out, kept.ids, kept.root, Vocabulary.of(OTHERS), {}, stretch=kept.stretch, overlays=False)
        Run(request).execute(tasks, feed, {})

    found = compared(
        {
            "new run": lambda: ask(BatchEncoder(tasks, asked.batch_size, asked.threads), f"new-{next(turn)}"),
            "other names": lambda: ask(StoredEncodings(folder / "kept", tasks), f"again-{next(turn)}"),
        },
        asked.repeats,
        "new run",
    )
    held = sum(path.stat().st_size for path in (folder / "kept" / "encodings").iterdir())
    return found | {"kilobytes_a_picture": round(held / asked.images / 1000, 1)}


def resident() -> float:
    """Memory in use, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Resident memory over a long run."""
    draw_pictures(folder / "pictures", asked.images, asked.size)
    seen: list[tuple[int, float]] = []

    def progress(done: int, total: int) -> None:
        if done % max(1, total // 200) == 0:
            seen.append((done, resident()))

    asked.callbacks = Callbacks(on_progress=progress)
    run_over(folder / "pictures", folder / "out", method_of(asked), asked)
    seen.append((asked.images, resident()))  # after the results are written
    warm = asked.images // 10
    start = next(mb for done, mb in seen if done >= warm)
    growth = max(mb for done, mb in seen if done >= warm) - start
    if asked.plot:
        _plot(seen, warm, asked.plot)
    return {"images": asked.images, "warm_up": warm, "megabytes_then": round(start, 1), "growth_megabytes": round(growth, 1)}


def _plot(seen: Sequence[tuple[int, float]], warm: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot([done for done, _ in seen], [mb for _, mb in seen], color="#0072B2")
    axes.axvline(warm, color="#999999", linestyle=":", label="end of the warm-up")
    axes.set(xlabel="images done", ylabel="resident memory (MB)", ylim=(0, 1.15 * max(mb for _, mb in seen)))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


PARTS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "speed": speed,
    "decoding": decoding,
    "names": names,
    "memory": memory,
}
USUAL = {"speed": (64, 256), "decoding": (48, 2500), "names": (64, 256), "memory": (10_000, 32)}  # images, px


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--images", type=int)
    parser.add_argument("--size", type=int, help="px, of both sides")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=max(2, os.cpu_count() or 2))
    parser.add_argument("--method", help="zip, ..., or glance, which costs nothing")
    parser.add_argument("--models", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", action="store_true", help="a few small images, once")
    asked = parser.parse_args(arguments)
    usual = (6, 24) if asked.small else USUAL[asked.part]
    asked.images, asked.size = asked.images or usual[0], asked.size or usual[1]
    asked.repeats = 1 if asked.small else asked.repeats
    asked.method = asked.method or ("glance" if asked.part in ("memory", "decoding") else "zip")
    with tempfile.TemporaryDirectory() as folder:
        found = PARTS[asked.part](asked, Path(folder))
    about = {key: getattr(asked, key) for key in ("part", "images", "size", "batch_size", "threads", "method", "models")}
    said = json.dumps({"asked": about, "cores": os.cpu_count(), **found}, indent=2)
    if asked.json:
        asked.json.write_text(said + "\n", encoding="utf-8")
    print(said)


if __name__ == "__main__":
    main()
