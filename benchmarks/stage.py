"""A stage on which every command plays in milliseconds: small images, and models that know flat colours and cost nothing.

Commands run in forks of this process, which has imported what they need, through the very door of the command line.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import PIL.Image

from annofree.structures import Detections, Image, LabelMap

NAMES = ("red", "green", "blue")


@dataclass(frozen=True, eq=False)
class ColourEncoding:
    """Which colour each pixel has most of, (H, W) uint8; 3 where it is dark."""

    colours: npt.NDArray[np.uint8]


class Colours:
    """A method that finds red, green and blue."""

    provenance: dict[str, Any] = {"method": "colours", "models": []}  # noqa: RUF012

    def remarks(self, classes: Any) -> list[str]:
        """Nothing to remark."""
        return []

    def encode(self, images: Sequence[Image]) -> list[ColourEncoding]:
        """Look at each pixel."""
        return [ColourEncoding(np.where(i.pixels.max(2) > 99, i.pixels.argmax(2), 3).astype(np.uint8)) for i in images]

    def instances(self, image: Any, classes: Any) -> Detections:
        """All pixels of a colour are one thing."""
        masks = np.stack([image.colours == NAMES.index(name) for name in classes.names])
        return Detections.from_masks(masks, range(len(masks)), masks.mean((1, 2)), classes.names)

    def semantic(self, image: Any, classes: Any) -> LabelMap:
        """The colour of each pixel."""
        place = {NAMES.index(name): 1 + k for k, name in enumerate(classes.names)}
        labels = np.array([place.get(k, 0) for k in range(4)], np.int32)[image.colours]
        return LabelMap(labels, ("background", *classes.names), 0)


def draw_pictures(folder: Path, count: int, seed: int = 0) -> None:
    """Write small images of coloured boxes in folders, every fiftieth torn, every seventieth oddly named."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        pixels = np.zeros((16, 24, 3), np.uint8)
        for channel in range(3):
            y, x = rng.integers(0, 12, 2)
            pixels[y : y + 6, x : x + 9, channel] = rng.integers(100, 255)
        place = folder / f"{k % 7}" / (f"it's {k}\n☃.png" if k % 70 == 5 else f"{k:04}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(place)
        if k % 50 == 9:
            place.write_bytes(place.read_bytes()[:-30])


def warm_up(commands: Sequence[Sequence[object]], cheap: bool = True) -> None:
    """Import what some commands import, as they tell in a fork, so that later forks need not; one thread, as forks have one."""
    import torch

    torch.set_num_threads(1)
    for words in commands:
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as told:
            run_command(words, cheap=cheap, names_to=Path(told.name))
            for name in told.read().split():
                with suppress(Exception):
                    import_module(name)
    gc.collect()
    gc.freeze()  # else collecting in a fork copies all that the parent has


def put_on_cheap_models(shard: int = 2) -> None:
    """Replace methods and models by those that cost nothing, and let shards have ``shard`` images or so."""
    import annofree.methods.load_clip
    import annofree.pipelines.mask_archive
    import annofree.runs.config
    from annofree.pipelines.plan import Plan
    from annofree.runs.tasks import Tasks
    from annofree.testing.fakes import FakeClip, FakeObjectness

    changed: Any = annofree.runs.config
    changed.STRETCH = shard
    changed = Plan
    changed.load_tasks = lambda plan, words: Tasks(plan.wanted, Colours(), Colours(), plan.stuff)
    changed = annofree.methods.load_clip
    changed.load_clip = lambda spec, device, use: FakeClip()
    changed = annofree.pipelines.mask_archive
    changed._source = lambda *asked: FakeObjectness()


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, minus the signal that killed it; what it said, and the seconds it took."""

    code: int
    said: str
    seconds: float


def run_command(
    words: Sequence[object], kill_after: float | None = None, *, cheap: bool = True, names_to: Path | None = None
) -> Ended:
    """Run ``annofree WORDS`` in a fork, which may be killed after some seconds; with ``cheap`` models or its own.

    The names of all modules that it imported are written to ``names_to``.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        child = os.fork()
        if not child:
            _play(words, told.fileno(), cheap, names_to)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        seconds = time.perf_counter() - start
        told.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), told.read().decode("utf-8", "replace"), seconds)


def _play(words: Sequence[object], told: int, cheap: bool, names_to: Path | None) -> NoReturn:
    code: Any = 1
    try:
        for stream in (1, 2):
            os.dup2(told, stream)
        sys.stdout, sys.stderr = (open(n, "w", encoding="utf-8", errors="replace", closefd=False) for n in (1, 2))  # noqa: SIM115
        from annofree.apps.cli import main

        if cheap:
            put_on_cheap_models()
        sys.argv = ["annofree", *map(str, words)]
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        if names_to is not None:
            names_to.write_text("\n".join(sys.modules), encoding="utf-8")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
